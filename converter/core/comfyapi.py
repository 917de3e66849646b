"""Comfy API v2 in words: how jobs, progress, outputs and faults of ours are called there, and what its workflows hold.

For: every decision of that dialect that needs no I/O. Leaves HTTP to `api.comfyapi` and keeping to `ledger`. Times are
seconds of the Unix epoch; on the wire they are RFC 3339, in UTC. Source: the public OpenAPI document of the API, as
comfy-sdk 0.5.0 was made from it. Invariant: nothing here changes its arguments.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from converter.core.outputs import FileRef, Kind, Output
from converter.core.workflow import clip
from converter.errors import (
    Canceled,
    DeadlineUnmeetable,
    ExecutionFailed,
    Expired,
    Fault,
    IdempotencyMismatch,
    IdInUse,
    InvalidWorkflow,
    NotFound,
    Shed,
    Unavailable,
)

MOUNT = "/api/v2"
"""What all its paths begin with."""

ENDED = ("succeeded", "canceled", "failed")
"""States after which a job stays as it is."""

ASSET = "core/ASSET"
"""The `__type` of an object that stands for an asset in a workflow."""

LOST: Mapping[str, Any] = {
    "code": "engine_failed",
    "message": "the service ended before the job did",
    "node_id": None,
    "class_type": None,
    "traceback": None,
}
"""How jobs ended that were under way when the service ended."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of a job. `outputs` as `Outputs.describe` makes them, with `text` where they are one.

    `labels`: the caller's own, as `metadata`. `expires`: until then the job is known.
    """

    id: str
    scope: str
    created: float
    expires: float
    status: str = "queued"
    started: float | None = None
    completed: float | None = None
    outputs: Sequence[Mapping[str, Any]] = ()
    error: Mapping[str, Any] | None = None
    metrics: Mapping[str, int | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether it stays as it is."""
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class Named:
    """What the id of an output says: the output number `index` of a job, and the file that it lies in, if any."""

    job_id: str
    scope: str
    index: int
    name: str
    content_type: str
    size: int
    created: float
    expires: float
    kind: Kind = "file"
    file: FileRef | None = None

    @property
    def output(self) -> Output:
        """As an output, without its node."""
        return Output("", None, self.name, self.kind, self.content_type, file=self.file)

    def encode(self) -> bytes:
        """As bytes."""
        file = None if self.file is None else [self.file.filename, self.file.subfolder, self.file.type]
        about = (self.job_id, self.scope, self.index, self.name, self.content_type, self.size)
        return json.dumps([*about, self.created, self.expires, self.kind, file], separators=(",", ":")).encode()

    @classmethod
    def decode(cls, said: bytes) -> "Named":
        """What `encode` was given."""
        job_id, scope, index, name, content_type, size, created, expires, kind, file = json.loads(said)
        place = None if file is None else FileRef(*file)
        return cls(job_id, scope, index, name, content_type, size, created, expires, kind, place)


# Jobs ---------------------------------------------------------------------------------------------------------------


def call_state(state: str) -> str:
    """The status of a job in one of our states."""
    if state in ENDED:
        return state
    return "running" if state in ("running", "collecting") else "queued"


def show_time(moment: float | None) -> str | None:
    """RFC 3339 in UTC."""
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def show_progress(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a `progress` event, from ours."""
    class_type, step, steps = snapshot["class_type"], snapshot["step"], snapshot["steps"]
    message = class_type if class_type is None or step is None else f"{class_type} {step}/{steps}"
    return {
        "value": snapshot["value"],
        "nodes_done": snapshot["nodes_done"],
        "nodes_total": snapshot["nodes_total"],
        "current_node": snapshot["node_id"],
        "current_node_class": class_type,
        "step": step,
        "steps": steps,
        "message": message,
    }


def show_job(
    record: Record,
    outputs: Sequence[Mapping[str, Any]] = (),
    position: int | None = None,
    progress: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A job. `outputs` as `show_output` makes them; `position`: in the queue; `progress`: our snapshot."""
    path = f"{MOUNT}/jobs/{record.id}"
    return {
        "id": record.id,
        "status": record.status,
        "created_at": show_time(record.created),
        "started_at": show_time(record.started),
        "completed_at": show_time(record.completed),
        "expires_at": show_time(record.expires),
        "queue_position": position if record.status == "queued" else None,
        "progress": None if progress is None else show_progress(progress),
        "outputs": list(outputs),
        "error": record.error,
        "metrics": dict(record.metrics),
        "metadata": dict(record.labels),
        "urls": {"self": path, "events": f"{path}/events", "cancel": f"{path}/cancel"},
    }


def show_summary(record: Record) -> dict[str, Any]:
    """A job in a list."""
    updated = record.completed or record.started or record.created
    return {
        "id": record.id,
        "status": record.status,
        "create_time": show_time(record.created),
        "update_time": show_time(updated),
        "metadata": dict(record.labels),
    }


def show_output(output: Mapping[str, Any], job_id: str, url: str, expires_at: str | None) -> dict[str, Any]:
    """An output of a job, with an address and when that ends."""
    kept = {name: output[name] for name in ("node_id", "name", "type", "content_type", "size_bytes", "id")}
    return {**kept, "hash": None, "url": url, "url_expires_at": expires_at, "job_id": job_id}


def show_named(named: Named, id: str, url: str, expires_at: str | None) -> dict[str, Any]:
    """An output as an asset, with an address and when that ends."""
    return {
        "id": id,
        "hash": None,
        "size_bytes": named.size,
        "content_type": named.content_type,
        "file_path": named.name,
        "created_at": show_time(named.created),
        "url": url,
        "url_expires_at": expires_at,
        "expires_at": show_time(named.expires),
        "job_id": named.job_id,
    }


def measure(times: Mapping[str, float], created: float, *, begun: bool) -> tuple[float | None, dict[str, int | None]]:
    """When a job was started, and its metrics. `times` are seconds by `timing.PARTS`; `begun`: it has started."""
    before = times["waiting"] + times["staging"] + times["queued"]
    execution = round(1000 * times["executing"]) if begun else None
    return (created + before if begun else None), {"queue_ms": round(1000 * before), "execution_ms": execution}


def matches(record: Record, labels: Mapping[str, str]) -> bool:
    """Whether a job has all these labels."""
    return all(record.labels.get(name) == value for name, value in labels.items())


# Faults -------------------------------------------------------------------------------------------------------------

_CODES: Sequence[tuple[type[Fault], int, str]] = (
    (DeadlineUnmeetable, 429, "queue_full"),
    (Shed, 429, "queue_full"),
    (Unavailable, 429, "deployment_not_ready"),
    (Expired, 404, "not_found"),
    (IdempotencyMismatch, 422, "idempotency_key_reuse"),
)
"""Faults that the API calls otherwise than we do: by its own document a deployment that may still become ready answers
429, which its clients take for "come back later", and what has expired is not found."""


def call_fault(fault: Fault) -> tuple[int, str]:
    """Status and code of a fault that is an answer."""
    named = fault.extensions.get("comfy_code")
    if isinstance(named, str):
        return fault.status, named
    return next(
        ((status, code) for kind, status, code in _CODES if isinstance(fault, kind)), (fault.status, fault.code)
    )


def show_fault(fault: Fault) -> dict[str, Any]:
    """The error envelope."""
    known = ("problems", "node_errors", "node_id", "class_type", "input_name", "queue", "assets", "phase")
    details = {name: fault.extensions[name] for name in known if fault.extensions.get(name)}
    return {"error": {"code": call_fault(fault)[1], "message": fault.detail, "details": details or None}}


def show_failure(fault: Fault) -> dict[str, Any] | None:
    """How a job failed, as its `error`; None where it was canceled."""
    if isinstance(fault, Canceled):
        return None
    code = "node_execution_error" if isinstance(fault, ExecutionFailed) else fault.code
    place = {name: fault.extensions.get(name) for name in ("node_id", "class_type")}
    if isinstance(fault, InvalidWorkflow) and len(fault.extensions["node_errors"]) == 1:
        [(node_id, entry)] = fault.extensions["node_errors"].items()
        place = {"node_id": node_id, "class_type": entry.get("class_type")}
    return {"code": code, "message": fault.detail, **place, "traceback": None}


def ui_export() -> InvalidWorkflow:
    """The refusal of the editor's own format."""
    detail = "this is the editor's own format, with nodes and links; send the one of Workflow > Export (API)"
    return InvalidWorkflow(detail, comfy_code="workflow_format_ui")


def is_ui_export(workflow: Mapping[str, Any]) -> bool:
    """Whether a workflow is what the editor saves for itself."""
    return isinstance(workflow.get("nodes"), list) and isinstance(workflow.get("links"), list)


def missing_assets(problems: Sequence[str]) -> InvalidWorkflow:
    """The refusal of a workflow whose references lead nowhere."""
    listed = [clip(problem, 200) for problem in problems[:20]]
    return InvalidWorkflow("; ".join(listed), comfy_code="missing_asset", assets=listed)


def hash_mismatch(hash: str) -> Fault:
    """The refusal of an upload that is not what its caller takes it for."""
    return IdInUse(f"the bytes that came have another hash: {hash}", comfy_code="hash_mismatch")


def asset_in_use() -> Fault:
    """The refusal to delete what a job refers to."""
    return IdInUse("the asset is an output, to which its job refers", comfy_code="asset_in_use")


def blob_not_found() -> Fault:
    """There is no content that the caller could use again."""
    return NotFound("no asset of yours has this hash", comfy_code="blob_not_found")


# Assets -------------------------------------------------------------------------------------------------------------


def is_named(id: str) -> bool:
    """Whether an id is that of an output, which is sealed; others are of uploads."""
    return "." in id


# Assets in workflows ------------------------------------------------------------------------------------------------


def is_reference(value: object) -> bool:
    """Whether a value in a workflow stands for an asset."""
    return isinstance(value, Mapping) and value.get("__type") == ASSET


def find_references(workflow: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The ids of all assets that stand in inputs of a workflow, each once, and what is wrong with other references."""
    found: dict[str, None] = {}
    problems = []
    for node_id, name, value in _inputs(workflow):
        for reference in _find(value):
            id = _id_of(reference)
            if id is None:
                place = f"node {clip(node_id, 64)}, input {clip(name, 64)}"
                problems.append(f"{place}: a {ASSET} needs info.id, the id of an asset")
            else:
                found[id] = None
    return list(found), problems


def replace_references(workflow: Mapping[str, Any]) -> dict[str, Any]:
    """The workflow with parts, named by the ids of assets, in the place of its references, which are all right."""
    changed = dict(workflow)
    for node_id, name, value in _inputs(workflow):
        if any(True for _ in _find(value)):
            node = changed[node_id]
            changed[node_id] = {**node, "inputs": {**node["inputs"], name: _replace(value)}}
    return changed


def _find(value: Any) -> Iterator[Mapping[str, Any]]:
    """The references in a value, at any depth."""
    if is_reference(value):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _find(each)


def _replace(value: Any) -> Any:
    if is_reference(value):
        return {"part": _id_of(value)}
    if isinstance(value, dict):
        return {name: _replace(each) for name, each in value.items()}
    return [_replace(each) for each in value] if isinstance(value, list) else value


def _id_of(reference: Mapping[str, Any]) -> str | None:
    info = reference.get("info")
    id = info.get("id") if isinstance(info, Mapping) else None
    return id if isinstance(id, str) and id and id.isascii() else None


def _inputs(workflow: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    nodes = [(id, node["inputs"]) for id, node in workflow.items() if isinstance(node, Mapping) and "inputs" in node]
    return [(id, name, value) for id, inputs in nodes if isinstance(inputs, Mapping) for name, value in inputs.items()]
