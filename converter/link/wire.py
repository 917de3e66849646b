"""ComfyUI's websocket messages, turned into the words of `core.events`.

Pure: text or bytes in, words out. HTTP's half of the protocol is in `answers.py`, attribution of pictures without
metadata in `session.py`, what the words mean in `core/evidence.py`. Invariant: nothing that an engine or a node of
somebody else can send makes this raise; what is not understood is None, or `Alive` if it names a prompt.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from converter.core.events import (
    Advanced,
    Alive,
    Began,
    Cached,
    Entered,
    Executed,
    Failed,
    Interrupted,
    NodeProgress,
    Picture,
    Released,
    Sound,
    Succeeded,
)


@dataclass(frozen=True, slots=True)
class Message:
    """A message about one prompt; `prompt_id` is None in the one that a client gets which connects in mid-run."""

    prompt_id: str | None
    sound: Sound


@dataclass(frozen=True, slots=True)
class Status:
    """`status`: pending and running prompts together. `sid` is the client id, in the first message only."""

    queue_remaining: int
    sid: str | None = None


@dataclass(frozen=True, slots=True)
class Features:
    """What the engine says of itself, on the websocket (`feature_flags`) and at `GET /features`.

    `max_upload_size` bounds every request body, in bytes (None: unknown). `concurrent_prompts` is how many prompts
    it runs at a time; ComfyUI runs one and says nothing.
    """

    supports_preview_metadata: bool = False
    max_upload_size: int | None = None
    concurrent_prompts: int = 1


Heard = Message | Status | Features | Picture

WantsProgress = Callable[[str], bool]
"""Whether anybody wants to know the progress of this prompt just now."""

GREETING = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
"""What a client says first, so that previews come with the id of their prompt (binary type 4 in place of 1)."""

_PREVIEW, _PREVIEW_WITH_METADATA = 1, 4
_CONTENT_TYPES = {1: "image/jpeg", 2: "image/png"}

# The two ways in which JSON encoders punctuate: (before the type, between type and data, before the prompt id).
_SPACED = ('{"type": "', '", "data": {', '"prompt_id": "')
_COMPACT = ('{"type":"', '","data":{', '"prompt_id":"')


def parse(raw: str | bytes, wants_progress: WantsProgress) -> Heard | None:
    """The word for one websocket message; None for junk and for what concerns no prompt.

    `progress` repeats what `progress_state` says, and a `progress_state` that nobody wants says only that the prompt
    lives: both are `Alive`, recognized without decoding the JSON, since a run of 100 steps sends 200 of them.
    """
    if isinstance(raw, bytes):
        return _parse_binary(raw)
    glimpse = peek(raw)
    if glimpse is not None and (glimpse[0] == "progress" or not wants_progress(glimpse[1])):
        return Message(glimpse[1], Alive())
    document = load(raw)
    if not isinstance(document, dict):
        return None
    kind, data = document.get("type"), document.get("data")
    if not isinstance(kind, str) or not isinstance(data, dict):
        return None
    if kind == "status":
        return _parse_status(data)
    if kind == "feature_flags":
        return parse_features(data)
    return _parse_sound(kind, data, wants_progress)


def peek(text: str) -> tuple[str, str] | None:
    """Type and prompt id of a `progress` or `progress_state` message, found without decoding it.

    None means: another type, or not in the form in which ComfyUI (or an engine with compact JSON) writes it, so
    decode it. The prompt id of a `progress_state` is taken only as the first member of `data`: its other members hold
    texts of nodes.
    """
    opening, middle, key = _SPACED if text.startswith(_SPACED[0]) else _COMPACT
    if not text.startswith("progress", len(opening)) or not text.startswith(opening):
        return None
    end = text.find('"', len(opening))
    kind = text[len(opening) : end]
    if kind not in ("progress", "progress_state") or not text.startswith(middle, end):
        return None
    start = end + len(middle)
    if kind == "progress":
        start = text.find(key, start)
    if start < 0 or not text.startswith(key, start):
        return None
    start += len(key)
    prompt_id = text[start : max(start, text.find('"', start))]
    return (kind, prompt_id) if prompt_id and "\\" not in prompt_id else None


def load(raw: str | bytes) -> Any:
    """The decoded JSON, or None if it is none. NaN and infinities, which Python's encoder writes bare, become null."""
    try:
        return _DECODER.decode(raw if isinstance(raw, str) else raw.decode())
    except (ValueError, RecursionError):
        return None


_DECODER = json.JSONDecoder(parse_constant=lambda _: None)


def parse_features(data: Mapping[str, Any]) -> Features:
    """The flags that are known here; a flag of another type than it should have counts as absent."""
    size, concurrent = data.get("max_upload_size"), data.get("max_concurrent_prompts")
    return Features(
        supports_preview_metadata=data.get("supports_preview_metadata") is True,
        max_upload_size=size if _is_count(size) else None,
        concurrent_prompts=concurrent if _is_count(concurrent) and concurrent > 0 else 1,
    )


def parse_failure(data: Mapping[str, Any]) -> Failed:
    """The data of an `execution_error`, as the websocket and the history record have it."""
    message, exception_type = data.get("exception_message"), data.get("exception_type")
    return Failed(
        node_id=_text(data.get("node_id")),
        class_type=_text(data.get("node_type")),
        message=message.rstrip("\n") if isinstance(message, str) else "",
        exception_type=exception_type if isinstance(exception_type, str) else "",
        midway=exception_type == "ExecutionBlocked" and "timestamp" not in data,
    )


def _parse_status(data: Mapping[str, Any]) -> Status | None:
    status = data.get("status")
    info = status.get("exec_info") if isinstance(status, dict) else None
    remaining = info.get("queue_remaining") if isinstance(info, dict) else None
    return Status(remaining, _text(data.get("sid"))) if _is_count(remaining) else None


def _parse_sound(kind: str, data: Mapping[str, Any], wants_progress: WantsProgress) -> Message | None:
    prompt_id = _text(data.get("prompt_id"))
    read = _READERS.get(kind)
    if prompt_id is None:
        sound = _read_executing(data) if kind == "executing" else None
        return Message(None, sound) if isinstance(sound, Entered) else None
    if read is None or (kind == "progress_state" and not wants_progress(prompt_id)):
        return Message(prompt_id, Alive())
    return Message(prompt_id, read(data) or Alive())


def _read_cached(data: Mapping[str, Any]) -> Sound | None:
    nodes = data.get("nodes")
    return Cached(tuple(n for n in nodes if isinstance(n, str))) if isinstance(nodes, list) else None


def _read_executing(data: Mapping[str, Any]) -> Sound | None:
    if "node" in data and data["node"] is None:
        return Released()
    node = _text(data.get("display_node")) or _text(data.get("node"))
    return Entered(node) if node is not None else None


def _read_progress(data: Mapping[str, Any]) -> Sound | None:
    nodes = data.get("nodes")
    if not isinstance(nodes, dict):
        return None
    entries = (_read_node(node_id, entry) for node_id, entry in nodes.items() if isinstance(entry, dict))
    return Advanced(tuple(entry for entry in entries if entry is not None))


def _read_node(node_id: str, entry: Mapping[str, Any]) -> NodeProgress | None:
    value, maximum = entry.get("value"), entry.get("max")
    if not _is_measure(value) or not _is_measure(maximum):
        return None
    display = _text(entry.get("display_node_id")) or node_id
    return NodeProgress(node_id, display, value, maximum, entry.get("state") == "finished")


def _read_executed(data: Mapping[str, Any]) -> Sound | None:
    node, output = _text(data.get("node")), data.get("output")
    if node is None or not (output is None or isinstance(output, dict)):
        return None
    return Executed(node, output)


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Sound | None]] = {
    "execution_start": lambda data: Began(),
    "execution_cached": _read_cached,
    "executing": _read_executing,
    "progress_state": _read_progress,
    "executed": _read_executed,
    "execution_success": lambda data: Succeeded(),
    "execution_error": parse_failure,
    "execution_interrupted": lambda data: Interrupted(_text(data.get("node_id"))),
}


def _parse_binary(raw: bytes) -> Picture | None:
    """Four bytes of type, big-endian, and what follows from it. TEXT (3) names no prompt, so it tells nothing."""
    kind, number = int.from_bytes(raw[:4]), int.from_bytes(raw[4:8])
    if len(raw) <= 8:
        return None
    if kind == _PREVIEW:
        content_type = _CONTENT_TYPES.get(number)
        return Picture(None, None, content_type, raw[8:]) if content_type is not None else None
    if kind != _PREVIEW_WITH_METADATA or len(raw) <= 8 + number:
        return None
    metadata = load(raw[8 : 8 + number])
    if not isinstance(metadata, dict):
        return None
    content_type = metadata.get("image_type")
    if not isinstance(content_type, str) or content_type not in _CONTENT_TYPES.values():
        return None
    node = _text(metadata.get("display_node_id")) or _text(metadata.get("node_id"))
    return Picture(_text(metadata.get("prompt_id")), node, content_type, raw[8 + number :])


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_measure(value: object) -> TypeGuard[float]:
    """A number that a float can hold: JSON's integers have no end, and division of longer ones raises."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max
