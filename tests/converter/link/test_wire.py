"""Every websocket message that a real ComfyUI was seen to send becomes the right word, and no junk raises."""

import json
import struct
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from converter.core import evidence, progress
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
from converter.link.wire import GREETING, Features, Message, Status, parse, peek
from tests.fakes import recordings

"""A busy machine is slow, which says nothing about the code."""

ID = "9e5c7aeb-56db-4eba-b436-3f4640b8a687"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def always(prompt_id: str) -> bool:
    return True


def never(prompt_id: str) -> bool:
    return False


def hear(kind: str, **data: Any) -> Any:
    """The sound of one message about `ID`."""
    heard = parse(json.dumps({"type": kind, "data": {**data, "prompt_id": ID}}), always)
    assert isinstance(heard, Message)
    assert heard.prompt_id == ID
    return heard.sound


def rows(kind: str) -> list[recordings.Row]:
    return [row for name in recordings.names() for row in recordings.load(name) if row["kind"] == kind]


# ---- the recordings


def expected(kind: str, data: dict[str, Any]) -> Sound:
    """What the message means, read from its fields without any doubt about their types."""
    match kind:
        case "execution_start":
            return Began()
        case "execution_cached":
            return Cached(tuple(data["nodes"]))
        case "executing":
            return Released() if data["node"] is None else Entered(data.get("display_node", data["node"]))
        case "progress_state":
            return Advanced(
                tuple(
                    NodeProgress(n["node_id"], n["display_node_id"], n["value"], n["max"], n["state"] == "finished")
                    for n in data["nodes"].values()
                )
            )
        case "executed":
            return Executed(data["node"], data["output"])
        case "execution_success":
            return Succeeded()
        case "execution_error":
            message = data["exception_message"].removesuffix("\n")
            midway = "timestamp" not in data
            return Failed(data["node_id"], data["node_type"], message, data["exception_type"], midway)
        case "execution_interrupted":
            return Interrupted(data["node_id"])
        case _:
            return Alive()


def test_every_recorded_message_becomes_the_right_word() -> None:
    kinds = set()
    for row in rows("ws_text"):
        kind, data = row["msg"]["type"], row["msg"]["data"]
        kinds.add(kind)
        if kind == "status":
            word: Any = Status(data["status"]["exec_info"]["queue_remaining"], data.get("sid"))
        elif kind == "feature_flags":
            word = Features(supports_preview_metadata=True, max_upload_size=104857600)
        else:
            word = Message(data.get("prompt_id"), expected(kind, data))
        spaced, compact = json.dumps(row["msg"]), json.dumps(row["msg"], separators=(",", ":"))
        turned = json.dumps({"data": dict(reversed(data.items())), "type": kind}, indent=1)
        assert parse(spaced, always) == parse(compact, always) == parse(turned, always) == word
    assert kinds >= {"status", "progress", "progress_state", "executed", "execution_error", "execution_interrupted"}


def test_progress_is_recognized_without_decoding_in_every_recording() -> None:
    for row in rows("ws_text"):
        kind, data = row["msg"]["type"], row["msg"]["data"]
        glimpse = (kind, data["prompt_id"]) if kind in ("progress", "progress_state") else None
        assert peek(json.dumps(row["msg"])) == peek(json.dumps(row["msg"], separators=(",", ":"))) == glimpse


def test_recorded_junk_is_survived() -> None:
    heard = [parse(row["data"], always) for row in rows("ws_raw")]
    # A bare NaN in a node's output is no JSON, and ComfyUI sends it.
    assert Executed("1", {"x": [None]}) in [h.sound for h in heard if isinstance(h, Message)]


def test_every_recorded_binary_becomes_a_picture_or_nothing() -> None:
    seen = set()
    for row in rows("ws_binary"):
        raw, word = rebuild(row)
        assert raw[:16].hex().startswith(row["head_hex"][: 2 * min(16, len(raw))]) or row["event_type"] == 1
        assert len(raw) == row["binary_len"]
        assert parse(raw, never) == word
        seen.add(row["event_type"])
    assert seen == {1, 3, 4}


def rebuild(row: recordings.Row) -> tuple[bytes, Picture | None]:
    """The frame of a recorded row, with zeros in place of the pixels, and the word for it."""
    if row["event_type"] == 3:
        node = row["node_id"].encode()
        return struct.pack(">II", 3, len(node)) + node + row["text"].encode(), None
    if row["event_type"] == 1:
        image = bytes(row["binary_len"] - 8)
        content_type = {1: "image/jpeg", 2: "image/png"}[row["image_type"]]
        return struct.pack(">II", 1, row["image_type"]) + image, Picture(None, None, content_type, image)
    metadata = row["metadata"]
    text = json.dumps(metadata).encode()
    image = bytes(row["binary_len"] - 8 - len(text))
    word = Picture(metadata["prompt_id"], metadata["display_node_id"], metadata["image_type"], image)
    return struct.pack(">II", 4, len(text)) + text + image, word


# ---- progress that nobody wants


def test_progress_is_decoded_only_if_wanted() -> None:
    text = json.dumps({"type": "progress_state", "data": {"prompt_id": ID, "nodes": {}}})
    assert parse(text, lambda prompt_id: prompt_id != ID) == Message(ID, Alive())
    assert parse(text, always) == Message(ID, Advanced(()))


def test_unwanted_progress_in_another_form_is_not_told_either() -> None:
    text = json.dumps({"data": {"prompt_id": ID, "nodes": {}}, "type": "progress_state"})
    assert peek(text) is None
    assert parse(text, never) == Message(ID, Alive())


def test_cut_off_progress_counts_as_a_sign_of_life() -> None:
    """What is not decoded is not checked; the prompt lives all the same."""
    assert parse('{"type": "progress_state", "data": {"prompt_id": "x", "nod', never) == Message("x", Alive())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "progress",
        '{"type": "progress", "data": {"prompt_id": "cut o',
        '{"type": "status", "data": {}}',
        '{"type": "progress',
        '{"type": "progressive", "data": {"prompt_id": "x"}}',
        '{"type": "progress" , "data": {"prompt_id": "x"}}',
        '{"type":"progress", "data": {"prompt_id": "x"}}',
        '{"type": "progress", "data": {"value": 1}}',
        '{"type": "progress_state", "data": {"nodes": {"1": {"prompt_id": "other"}}, "prompt_id": "x"}}',
        '{"type": "progress_state", "data": {"prompt_id": "a\\"b", "nodes": {}}}',
        '{"typo": "progress_state", "data": {"prompt_id": "x"}}',
    ],
)
def test_what_is_not_in_the_usual_form_is_not_guessed(text: str) -> None:
    assert peek(text) is None


@given(
    st.sampled_from(["progress", "progress_state", "executed", "status"]),
    st.dictionaries(st.sampled_from(["prompt_id", "nodes", "value", "x"]), st.text() | st.integers()),
)
def test_a_glimpse_never_differs_from_the_whole(kind: str, data: dict[str, Any]) -> None:
    for separators in ((", ", ": "), (",", ":")):
        text = json.dumps({"type": kind, "data": data}, separators=separators)
        assert peek(text) in (None, (kind, data.get("prompt_id")))


# ---- single words


@pytest.mark.parametrize(
    ("kind", "data", "sound"),
    [
        ("executing", {"node": "4.0.0.1", "display_node": "4"}, Entered("4")),
        ("executing", {"node": "4"}, Entered("4")),
        ("executing", {"node": None}, Released()),
        ("executing", {}, Alive()),
        ("executing", {"node": 7}, Alive()),
        ("execution_cached", {"nodes": ["1", 2, "3"]}, Cached(("1", "3"))),
        ("execution_cached", {"nodes": "1"}, Alive()),
        ("executed", {"node": "1", "output": None}, Executed("1", None)),
        ("executed", {"node": "1", "output": ["x"]}, Alive()),
        ("executed", {"node": None, "output": {}}, Alive()),
        ("progress_state", {"nodes": []}, Alive()),
        ("execution_interrupted", {"node_id": 5}, Interrupted(None)),
        ("execution_error", {}, Failed(None, None, "", "")),
        ("progress", {"value": 1, "max": 2}, Alive()),
        ("anything.else", {"x": 1}, Alive()),
    ],
)
def test_messages_about_a_prompt(kind: str, data: dict[str, Any], sound: Sound) -> None:
    assert hear(kind, **data) == sound


def test_only_sound_entries_of_progress_are_taken() -> None:
    nodes = {
        "1": {"value": 1, "max": 2, "state": "running", "display_node_id": "9"},
        "2": {"value": 2, "max": 2, "state": "finished"},
        "3": {"value": True, "max": 2},
        "4": {"value": 1},
        "5": "junk",
        "6": {"value": 1e999, "max": 1e999},
        "7": {"value": 1, "max": 10**400},
        "8": {"value": -(10**400), "max": 1},
    }
    assert hear("progress_state", nodes=nodes) == Advanced(
        (NodeProgress("1", "9", 1, 2, finished=False), NodeProgress("2", "2", 2, 2, finished=True))
    )


@pytest.mark.parametrize(
    ("data", "midway"),
    [
        ({"exception_type": "ExecutionBlocked"}, True),
        ({"exception_type": "ExecutionBlocked", "timestamp": 1}, False),
        ({"exception_type": "ValueError"}, False),
    ],
)
def test_a_blocked_output_does_not_end_the_prompt(data: dict[str, Any], midway: bool) -> None:
    assert hear("execution_error", **data).midway is midway


def test_the_node_that_runs_when_a_client_connects_has_no_prompt() -> None:
    assert parse('{"type": "executing", "data": {"node": "3"}}', always) == Message(None, Entered("3"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "null",
        "{}",
        '{"type": "status"}',
        '{"type": 1, "data": {}}',
        '{"type": "status", "data": []}',
        '{"type": "status", "data": {}}',
        '{"type": "status", "data": {"status": {"exec_info": {}}}}',
        '{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": true}}}}',
        '{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": -1}}}}',
        '{"type": "status", "data": {"status": {"exec_info": 5}}}',
        '{"type": "logs", "data": {"entries": [], "size": 3}}',
        '{"type": "executing", "data": {"node": null}}',
        '{"type": "executed", "data": {"node": "3", "prompt_id": 5}}',
        '{"type": "x", "data": ' + "[" * 100_000,
        '{"type": "x", "data": ' + "9" * 5000 + "}",
    ],
)
def test_what_concerns_no_prompt_is_nothing(text: str) -> None:
    assert parse(text, always) is None


@pytest.mark.parametrize(
    ("data", "features"),
    [
        ({}, Features()),
        ({"max_upload_size": 5, "max_concurrent_prompts": 8}, Features(max_upload_size=5, concurrent_prompts=8)),
        ({"max_upload_size": "5", "max_concurrent_prompts": 0, "supports_preview_metadata": 1}, Features()),
        ({"max_concurrent_prompts": None}, Features()),
    ],
)
def test_features(data: dict[str, Any], features: Features) -> None:
    assert parse(json.dumps({"type": "feature_flags", "data": data}), always) == features


def test_the_greeting_is_what_comfyui_reads() -> None:
    assert json.loads(GREETING) == {"type": "feature_flags", "data": {"supports_preview_metadata": True}}


# ---- binary messages


def with_metadata(metadata: Any, image: bytes = PNG) -> bytes:
    text = json.dumps(metadata).encode()
    return struct.pack(">II", 4, len(text)) + text + image


@pytest.mark.parametrize(
    ("metadata", "picture"),
    [
        (
            {"node_id": "4.0.0.1", "display_node_id": "4", "prompt_id": ID, "image_type": "image/png"},
            Picture(ID, "4", "image/png", PNG),
        ),
        ({"node_id": "4", "image_type": "image/jpeg"}, Picture(None, "4", "image/jpeg", PNG)),
        ({"node_id": "4", "prompt_id": ID, "image_type": "text/html"}, None),
        ({"node_id": "4", "prompt_id": ID, "image_type": ["image/png"]}, None),
        ([1], None),
    ],
)
def test_pictures_with_metadata(metadata: Any, picture: Picture | None) -> None:
    assert parse(with_metadata(metadata), always) == picture


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0\0\0",
        struct.pack(">I", 1),
        struct.pack(">II", 1, 1),
        struct.pack(">II", 1, 3) + PNG,
        struct.pack(">II", 2, 1) + PNG,
        struct.pack(">II", 3, 1) + b"4text",
        struct.pack(">II", 4, 2**32 - 1) + PNG,
        struct.pack(">II", 4, 4) + b"\xff\xff\xff\xff" + PNG,
        struct.pack(">II", 4, 2) + b"{}",
    ],
)
def test_other_binaries_are_nothing(raw: bytes) -> None:
    assert parse(raw, always) is None


@given(st.integers(0, 300))
def test_a_cut_off_picture_is_never_a_whole_one(length: int) -> None:
    raw = with_metadata({"node_id": "4", "prompt_id": ID, "image_type": "image/png"})
    heard = parse(raw[:length], always)
    header = len(raw) - len(PNG)
    assert heard == (Picture(ID, "4", "image/png", PNG[: length - header]) if length > header else None)


# ---- junk

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KINDS = st.sampled_from(
    [
        "status",
        "feature_flags",
        "execution_start",
        "execution_cached",
        "executing",
        "progress",
        "progress_state",
        "executed",
        "execution_success",
        "execution_error",
        "execution_interrupted",
        "logs",
    ]
)
FIELDS = st.sampled_from(
    [
        "prompt_id",
        "node",
        "display_node",
        "node_id",
        "node_type",
        "nodes",
        "output",
        "status",
        "sid",
        "max_upload_size",
        "exception_message",
        "exception_type",
        "max_concurrent_prompts",
        "timestamp",
        "value",
        "max",
    ]
)


@given(st.binary(max_size=200))
@example(b"\0\0\0\4\0\0\0\0\0")
def test_no_bytes_raise(raw: bytes) -> None:
    assert isinstance(parse(raw, always), Picture | None)


@given(st.sampled_from([1, 2, 3, 4]), st.integers(0, 30), st.binary(max_size=60) | st.builds(json.dumps, JSON))
def test_no_binary_message_raises(kind: int, number: int, rest: bytes | str) -> None:
    body = rest if isinstance(rest, bytes) else rest.encode()
    assert isinstance(parse(struct.pack(">II", kind, number) + body, always), Picture | None)
    assert isinstance(parse(struct.pack(">II", kind, len(body)) + body + PNG, always), Picture | None)


@given(st.text())
def test_no_text_raises(text: str) -> None:
    assert not isinstance(parse(text, always), Picture)


@given(KINDS | st.text(max_size=5), JSON | st.dictionaries(FIELDS, JSON, max_size=6), st.booleans())
def test_no_message_raises(kind: str, data: Any, wanted: bool) -> None:
    text = json.dumps({"type": kind, "data": data})
    heard = parse(text, lambda prompt_id: wanted)
    assert not isinstance(heard, Picture)
    # Cut off anywhere, it is junk, or progress whose end nobody cared for.
    cut = parse(text[: len(text) // 2], lambda prompt_id: wanted)
    assert cut is None or (isinstance(cut, Message) and cut.sound == Alive())


@cache
def recorded() -> list[str]:
    """Every text message of the recordings once."""
    return sorted({json.dumps(row["msg"]) for row in rows("ws_text")})


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """A recorded message, one of whose members is another value, or gone; or that is cut off."""
    text = draw(st.sampled_from(recorded()))
    document = json.loads(text)
    place: Any = document
    while True:
        key = draw(st.sampled_from(sorted(place))) if isinstance(place, dict) else draw(st.integers(0, len(place) - 1))
        if not isinstance(place[key], dict | list) or not place[key] or draw(st.booleans()):
            break
        place = place[key]
    if draw(st.booleans()):
        place[key] = draw(JSON)
    else:
        del place[key]
    changed = json.dumps(document)
    return changed[: draw(st.integers(0, len(changed)))] if draw(st.integers(0, 9)) == 0 else changed


@given(mutations())
def test_whatever_a_message_says_can_be_weighed_and_told(text: str) -> None:
    heard = parse(text, always)
    assert not isinstance(heard, Picture)
    if isinstance(heard, Message) and not isinstance(heard.sound, Alive):
        workflow = {id: {"class_type": "X", "inputs": {}} for id in "123456789"}
        snapshot = progress.snapshot(progress.hear(progress.begin(workflow), heard.sound), workflow)
        json.dumps(snapshot, allow_nan=False)
        assert 0 <= snapshot["value"] <= 1
        evidence.step(evidence.submit("p", 0.0, unbroken=True), heard.sound, 1.0)
