"""The shapes on the wire: messages, binary frames, queue items and history entries.

For: making bytes and text of ComfyUI 0.3.64's protocol from plain values, once for all receivers. Leaves who gets them
to `sockets` and when they are due to `executor`.
Invariant: pure; all JSON is strict (no NaN, no infinity) and ASCII.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PREVIEW = 1
PREVIEW_WITH_METADATA = 4
FORMATS = {"jpeg": 1, "png": 2}


@dataclass(frozen=True, slots=True)
class Message:
    """Something to send. `client` None means everybody.

    Of messages with one `key` only the latest matters to a reader that cannot keep up. `flagged` None means any
    socket; else only those that did, or did not, ask for previews with metadata.
    """

    content: str | bytes | Snapshot
    client: str | None = None
    key: tuple[str, ...] | None = None
    flagged: bool | None = None

    @property
    def payload(self) -> str | bytes:
        """What is sent. Of a snapshot it is written here, since most of them are never sent."""
        return self.content.write() if isinstance(self.content, Snapshot) else self.content

    @property
    def size(self) -> int:
        """About how many bytes it takes while it waits."""
        return len(self.content)


def dump(value: object) -> str:
    """Strict JSON. Raises ValueError for NaN, infinity and what is nested too deeply, TypeError for what is no JSON."""
    try:
        return json.dumps(value, allow_nan=False)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse(text: str | bytes) -> object:
    """Read strict JSON. Raises ValueError for anything else, also for numbers too large to be finite."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_float)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is out of range")
    return value


def write_event(kind: str, data: Mapping[str, Any]) -> str:
    """A text message: {"type", "data"}. Raises as `dump`."""
    return dump({"type": kind, "data": data})


def write_status(remaining: int, sid: str | None = None) -> str:
    """How many prompts are pending or running; with `sid` it is the first message of a socket."""
    data: dict[str, object] = {"status": {"exec_info": {"queue_remaining": remaining}}}
    if sid is not None:
        data["sid"] = sid
    return write_event("status", data)


def frame_preview(format: str, image: bytes) -> bytes:
    """Binary event 1: u32be type, u32be format (1 JPEG, 2 PNG), the image."""
    return PREVIEW.to_bytes(4, "big") + FORMATS[format].to_bytes(4, "big") + image


def frame_preview_with_metadata(prompt_id: str, node_id: str, format: str, image: bytes) -> bytes:
    """Binary event 4: u32be type, u32be length of JSON, the JSON, the image."""
    metadata = dump(_describe_node(prompt_id, node_id) | {"image_type": f"image/{format}"}).encode()
    return PREVIEW_WITH_METADATA.to_bytes(4, "big") + len(metadata).to_bytes(4, "big") + metadata + image


def _describe_node(prompt_id: str, node_id: str) -> dict[str, object]:
    return {
        "node_id": node_id,
        "prompt_id": prompt_id,
        "display_node_id": node_id,
        "parent_node_id": None,
        "real_node_id": node_id,
    }


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A `progress_state` message that is not written yet: the first `count` of the `earlier` nodes, and the latest."""

    prompt_id: str
    earlier: Sequence[str]
    count: int
    latest: str

    def __len__(self) -> int:
        return len(self.latest)

    def write(self) -> str:
        """The message."""
        nodes = ", ".join([*self.earlier[: self.count], self.latest])
        return f'{{"type": "progress_state", "data": {{"prompt_id": {dump(self.prompt_id)}, "nodes": {{{nodes}}}}}}}'


@dataclass(slots=True)
class ProgressState:
    """The `progress_state` messages of one prompt: each holds every node that has started, one after the other.

    A node is written once per change, and all of them only for who is sent the message, so that a step costs what one
    node costs, however many there are.
    """

    prompt_id: str
    _node_id: str | None = None
    _latest: str = ""
    _earlier: list[str] = field(default_factory=list)  # of nodes that do not change any more

    def note(self, node_id: str, value: float, maximum: float, *, finished: bool = False) -> Snapshot:
        """The message after `node_id` has come to `value` of `maximum`. Raises ValueError for NaN and infinity."""
        state = {"value": value, "max": maximum, "state": "finished" if finished else "running"}
        text = dump(state | _describe_node(self.prompt_id, node_id))
        if self._node_id not in (None, node_id):
            self._earlier.append(self._latest)
        self._node_id, self._latest = node_id, f"{dump(node_id)}: {text}"
        return Snapshot(self.prompt_id, self._earlier, len(self._earlier), self._latest)


def write_item(
    number: float, prompt_id: str, graph_text: str, extra_data: Mapping[str, Any], targets: Sequence[str]
) -> str:
    """A queue item, also the `prompt` of a history entry: [number, id, graph, extra_data, outputs to execute].

    `graph_text` is the graph as JSON already. Raises as `dump`.
    """
    return f"[{dump(number)}, {dump(prompt_id)}, {graph_text}, {dump(extra_data)}, {dump(list(targets))}]"


def write_record(
    item: str, outputs: Mapping[str, object], succeeded: bool, messages: Iterable[tuple[str, Mapping[str, Any]]]
) -> str:
    """A history entry, from the queue item as JSON and what happened. Raises as `dump`."""
    status = {
        "status_str": "success" if succeeded else "error",
        "completed": succeeded,
        "messages": [[kind, data] for kind, data in messages],
    }
    meta = {
        node_id: {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}
        for node_id in outputs
    }
    return f'{{"prompt": {item}, "outputs": {dump(outputs)}, "status": {dump(status)}, "meta": {dump(meta)}}}'


def write_object(entries: Iterable[tuple[str, str]]) -> str:
    """A JSON object of values that are JSON already."""
    return "{" + ", ".join(f"{dump(key)}: {value}" for key, value in entries) + "}"


def write_queue(running: Iterable[str], pending: Iterable[str]) -> str:
    """The answer of GET /queue from items that are JSON already."""
    return f'{{"queue_running": [{", ".join(running)}], "queue_pending": [{", ".join(pending)}]}}'


def describe_error(kind: str, message: str, details: str = "") -> dict[str, object]:
    """The `error` object of a refusal."""
    return {"type": kind, "message": message, "details": details, "extra_info": {}}
