"""The bodies of ComfyUI's HTTP interface: what is posted, and what its answers say.

Pure: bytes in, words out, and the other way round. Sending is `client.py`'s part, websocket messages are in
`wire.py`. Invariant: a body that is not what ComfyUI answers raises `Unreadable`, never anything else, so that a
broken answer cannot be mistaken for "not there".
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from converter.core.catalog import Kind, read_kind
from converter.core.events import QueueView, Record
from converter.errors import EngineFailed
from converter.link.wire import Features, load, parse_failure, parse_features


class Unreadable(ValueError):
    """The body is not what ComfyUI answers here: cut off, or made by something else on the way."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The prompt is queued. Outputs named in `node_errors` were dropped from it, the rest will run.

    `prompt_id` is the engine's: versions that know no `prompt_id` in the request choose their own.
    """

    prompt_id: str
    node_errors: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """The prompt is not queued, and never will be as it is. `body` is the parsed JSON, None where it is none."""

    status: int
    body: object


Submission = Accepted | Refused


def prompt_body(
    graph: Mapping[str, Any],
    prompt_id: str,
    client_id: str,
    extra_data: Mapping[str, Any] | None = None,
    targets: Sequence[str] | None = None,
) -> bytes:
    """The body of `POST /prompt`. `targets` are the output nodes to run; None runs them all.

    Never `number` or `front`, so that prompts run in the order of their submission; `extra_data` is always an object,
    since ComfyUI's worker thread dies of null.
    """
    document: dict[str, Any] = {
        "prompt": graph,
        "prompt_id": prompt_id,
        "client_id": client_id,
        "extra_data": extra_data or {},
    }
    if targets is not None:
        document["partial_execution_targets"] = list(targets)
    return json.dumps(document, separators=(",", ":")).encode()


def parse_submission(status: int, body: bytes) -> Submission:
    """The answer to `POST /prompt`.

    Only 200, 400 and 413 are answers; of any other status, 500 with its text/plain body included, nobody knows
    whether the prompt was queued (ComfyUI answers 500 after queueing when two entries cannot be compared).
    """
    document = load(body)
    if status == 200:
        return _accepted(_mapping(document))
    if status not in (400, 413):
        raise Unreadable(f"status {status}")
    return Refused(status, document)


def parse_queue(body: bytes, asked_at: float) -> QueueView:
    """`GET /queue`: ids in the order in which they run. Items have five elements, six from 2026 on.

    `queue_pending` comes as a raw heap, which orders by number and then by prompt id.
    """
    document = _mapping(load(body))
    running = tuple(prompt_id for _, prompt_id in _items(document, "queue_running"))
    pending = tuple(prompt_id for _, prompt_id in sorted(_items(document, "queue_pending")))
    return QueueView(asked_at, running, pending)


def is_problem_of_converter(body: bytes) -> bool:
    """Whether an answer is a fault of a service such as this one, where an engine was looked for."""
    document = load(body)
    return isinstance(document, dict) and str(document.get("type", "")).startswith("urn:converter:fault:")


def parse_history(body: bytes, prompt_id: str) -> Record | None:
    """`GET /history/{prompt_id}`: the record, or None where there is none (unknown, pending and running look alike).

    Raises `EngineFailed` if there is an entry but no outcome in it: the prompt has ended, so neither waiting nor
    another look would make it readable.
    """
    document = _mapping(load(body))
    entry = document.get(prompt_id)
    if entry is None:
        return None
    status = entry.get("status") if isinstance(entry, dict) else None
    if not isinstance(status, dict) or not isinstance(status.get("status_str"), str):
        raise EngineFailed("The engine's record of this run can't be read.")
    told = status.get("messages")
    messages = [m for m in told if _is_event(m)] if isinstance(told, list) else []
    errors = [data for event, data in messages if event == "execution_error"]
    return Record(
        success=status["status_str"] == "success",
        outputs=_mapping_of(entry, "outputs"),
        requested=_requested(entry.get("prompt")),
        failure=parse_failure(errors[-1]) if errors else None,
        interrupted=any(event == "execution_interrupted" for event, _ in messages),
    )


def parse_upload(body: bytes) -> str:
    """`POST /upload/image`: the value for a LoadImage node, `SUBFOLDER/NAME` or `NAME`."""
    document = _mapping(load(body))
    name = _text_of(document, "name")
    if not name:
        raise Unreadable("no name of the uploaded file")
    subfolder = _text_of(document, "subfolder")
    return f"{subfolder}/{name}" if subfolder else name


def parse_cancel(body: bytes) -> bool:
    """`POST /api/jobs/{id}/cancel`: whether the prompt was pending or running and is canceled by this."""
    cancelled = _mapping(load(body)).get("cancelled")
    if not isinstance(cancelled, bool):
        raise Unreadable("no outcome of the cancel")
    return cancelled


def parse_feature_answer(body: bytes) -> Features:
    """`GET /features`."""
    return parse_features(_mapping(load(body)))


class Nodes(NamedTuple):
    """What a look at all classes of nodes is for: their names, those that are outputs, and inputs (by class and name)
    that take the name of an uploaded file.
    """

    classes: frozenset[str] = frozenset()
    outputs: frozenset[str] = frozenset()
    uploads: frozenset[tuple[str, str]] = frozenset()


def parse_nodes(body: bytes) -> Nodes:
    """`GET /object_info`."""
    read = {name: read_kind(info) for name, info in _mapping(load(body)).items()}
    kinds = {name: kind for name, kind in read.items() if kind is not None}
    return Nodes(
        frozenset(kinds),
        frozenset(name for name, kind in kinds.items() if kind.is_output),
        frozenset((name, key) for name, kind in kinds.items() for key, port in kind.ports.items() if port.media),
    )


def parse_kind(body: bytes, class_type: str) -> Kind | None:
    """`GET /object_info/{class}`: the class; None where the engine has none of that name."""
    return read_kind(_mapping(load(body)).get(class_type))


def parse_models(body: bytes) -> tuple[str, ...]:
    """`GET /models/{folder}`: the names of files."""
    names = load(body)
    if not isinstance(names, list):
        raise Unreadable("not a list of models")
    return tuple(name for name in names if isinstance(name, str))


def parse_version(body: bytes) -> tuple[int, ...]:
    """`GET /system_stats`: the numbers of ComfyUI's version, as far as they are numbers."""
    system = _mapping(load(body)).get("system")
    version = system.get("comfyui_version") if isinstance(system, dict) else None
    found = re.match(r"v?([0-9]{1,6}(?:\.[0-9]{1,6}){0,3})", version) if isinstance(version, str) else None
    return tuple(map(int, found[1].split("."))) if found else ()


def _accepted(document: Mapping[str, Any]) -> Accepted:
    prompt_id = _text_of(document, "prompt_id")
    if not prompt_id:
        raise Unreadable("no prompt_id")
    return Accepted(prompt_id, _mapping_of(document, "node_errors"))


def _items(document: Mapping[str, Any], key: str) -> list[tuple[float, str]]:
    """Number and id of each item. Strict: an item that is skipped would look like a prompt that is gone."""
    items = document.get(key)
    if not isinstance(items, list):
        raise Unreadable(f"no {key}")
    return [_item(item) for item in items]


def _item(item: object) -> tuple[float, str]:
    if not isinstance(item, list) or len(item) < 2 or not isinstance(item[1], str):
        raise Unreadable("a queue item without a prompt id")
    # Numbers are the submitter's choice: NaN and infinities arrive here as None.
    return (item[0] if isinstance(item[0], int | float) else math.inf), item[1]


def _requested(prompt: object) -> tuple[str, ...]:
    targets = prompt[4] if isinstance(prompt, list) and len(prompt) > 4 else None
    return tuple(t for t in targets if isinstance(t, str)) if isinstance(targets, list) else ()


def _is_event(message: object) -> bool:
    return isinstance(message, list) and len(message) == 2 and isinstance(message[1], dict)


def _mapping(document: object) -> Mapping[str, Any]:
    if not isinstance(document, dict):
        raise Unreadable("not a JSON object")
    return document


def _mapping_of(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _text_of(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""
