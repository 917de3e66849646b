"""What no engine should say on its websocket: strategies of frames (RFC 6455 section 5), as bytes.

Messages that are whole and mean something are left out where they are about the caller's own prompt and tell of its end
or of its outputs: an engine that lies in its own words is believed. Invariant: everything else may be here.
"""

import json
import struct
from typing import Any

from hypothesis import strategies as st

TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9
PREVIEW, PREVIEW_WITH_METADATA = 1, 4
PNG = b"\x89PNG\r\n\x1a\n"

PROMPT = "ffffffff-ffff-4fff-bfff-ffffffffffff"
"""Stands for the id of the caller's prompt, which is as long, until the frame is sent."""


def frame(
    opcode: int, payload: bytes, *, final: bool = True, reserved: int = 0, masked: bool = False, length: int = -1
) -> bytes:
    """One frame; `length` is what it announces, where that is not what it has."""
    announced = len(payload) if length < 0 else length
    first = final << 7 | reserved << 4 | opcode
    bit = masked << 7
    if announced < 126:
        head = struct.pack(">BB", first, bit | announced)
    elif announced < 2**16:
        head = struct.pack(">BBH", first, bit | 126, announced)
    else:
        head = struct.pack(">BBQ", first, bit | 127, announced)
    return head + b"\0\0\0\0" * masked + payload


def text(value: str) -> bytes:
    """A text message."""
    return frame(TEXT, value.encode("utf-8", "replace"))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
HUGE = st.sampled_from([2**53 + 1, 2**64, -(2**63), 10**400, 1e308, -1e308, 5e-324])
MEMBERS = st.sampled_from(
    ["prompt_id", "node", "display_node", "node_id", "nodes", "output", "status", "exec_info", "value", "max", "images"]
)
JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS | HUGE | st.just(PROMPT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS | st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)
OURS = ["execution_start", "execution_cached", "executing", "progress", "progress_state", "logs", "", "x.y"]
ENDS = ["executed", "execution_success", "execution_error", "execution_interrupted"]


def _about_ours(kind: str, data: dict[str, Any]) -> bytes:
    return text(json.dumps({"type": kind, "data": {**data, "prompt_id": PROMPT}}))


def _about_others(kind: str, data: dict[str, Any], prompt_id: Any) -> bytes:
    return text(json.dumps({"type": kind, "data": {**data, "prompt_id": prompt_id}}).replace(PROMPT, "other"))


DATA = st.dictionaries(MEMBERS, JSON, max_size=5)
OTHERS = st.uuids().map(str) | SCALARS | st.lists(st.text(max_size=3), max_size=2)
NODES = st.dictionaries(
    st.sampled_from("129"),
    st.fixed_dictionaries({"value": SCALARS | HUGE, "max": SCALARS | HUGE, "state": SCALARS}),
    max_size=3,
)

MESSAGES = (
    st.text(max_size=60).map(text)
    | JSON.map(lambda value: text(json.dumps(value)))
    | st.builds(_about_ours, st.sampled_from(OURS), DATA)
    | st.builds(_about_ours, st.just("progress_state"), st.fixed_dictionaries({"nodes": NODES}))
    | st.builds(_about_others, st.sampled_from([*OURS, *ENDS]), DATA, OTHERS)
    | st.builds(lambda data: text(json.dumps({"type": "status", "data": data})), JSON)
    | st.builds(lambda data: text(json.dumps({"type": "feature_flags", "data": data})), JSON)
)
"""Text messages of wrong shapes, types and prompts."""

TOO_MUCH = {
    "brackets": text("[" * 100_000),
    "members": text('{"type": "progress_state", "data": ' + '{"nodes": ' * 50_000),
    "digits": text(f'{{"type": "progress_state", "data": {{"prompt_id": "{PROMPT}", "nodes": {"9" * 6000}}}}}'),
    "output": text(f'{{"type": "x", "data": {{"prompt_id": "{PROMPT}", "output": {"[" * 3000}{"]" * 3000}}}}}'),
    "node": text(f'{{"type": "executing", "data": {{"prompt_id": "{PROMPT}", "node": "{"x" * 2**22}"}}}}'),
    "picture": frame(BINARY, struct.pack(">II", PREVIEW, 2) + b"x" * 2**24),
    "text": frame(TEXT, b"x" * 2**24),
}
"""Messages that are too deep, too long or too large."""


def _preview(kind: int, number: int, rest: bytes) -> bytes:
    return frame(BINARY, struct.pack(">II", kind, number) + rest)


def _preview_of(metadata: Any, cut: int) -> bytes:
    words = json.dumps(metadata).encode()
    whole = struct.pack(">II", PREVIEW_WITH_METADATA, len(words)) + words + PNG
    return frame(BINARY, whole[: max(0, len(whole) - cut)])


METADATA = st.fixed_dictionaries(
    {"prompt_id": JSON, "node_id": JSON, "image_type": st.sampled_from(["image/png", "image/x"]) | JSON}
)

PICTURES = (
    st.binary(max_size=40).map(lambda data: frame(BINARY, data))
    | st.builds(_preview, st.integers(0, 5), st.integers(0, 2**32 - 1), st.binary(max_size=30))
    | st.builds(_preview_of, METADATA | JSON, st.integers(0, 30))
)
"""Binary messages that are no previews, or not quite."""

VIOLATIONS = (
    st.binary(min_size=1, max_size=30)
    | st.binary(min_size=1, max_size=8).map(lambda data: frame(TEXT, b"\xff\xfe" + data))
    | st.builds(frame, st.integers(3, 7) | st.integers(11, 15), st.binary(max_size=10))
    | st.builds(frame, st.just(TEXT), st.binary(max_size=10), reserved=st.integers(1, 7))
    | st.builds(frame, st.just(BINARY), st.binary(max_size=10), masked=st.just(True))
    | st.builds(frame, st.just(0), st.binary(max_size=10), final=st.booleans())
    | st.builds(frame, st.sampled_from([TEXT, BINARY]), st.binary(max_size=10), final=st.just(False))
    | st.builds(frame, st.just(PING), st.binary(min_size=126, max_size=200))
    | st.builds(frame, st.just(PING), st.binary(max_size=125), final=st.booleans())
    | st.builds(frame, st.just(CLOSE), st.binary(max_size=10))
    | st.builds(frame, st.sampled_from([TEXT, BINARY]), st.binary(max_size=10), length=st.integers(1000, 2**64 - 1))
)
"""Bytes that break the protocol, or that swallow whatever comes after them."""
