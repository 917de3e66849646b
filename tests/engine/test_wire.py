"""Messages, frames, items and records as they are on the wire."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import wire

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON)
def test_what_is_written_is_read(value: object) -> None:
    assert wire.parse(wire.dump(value)) == value


@pytest.mark.parametrize(
    "text",
    ["NaN", "Infinity", "-Infinity", "1e999", '{"a": [NaN]}', "", "{nope", pytest.param("[" * 100_000, id="deep")],
)
def test_reading_is_strict(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        wire.parse(text)


def test_writing_is_strict() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    for value in (math.nan, math.inf, nested):
        with pytest.raises(ValueError, match=r".+"):
            wire.dump(value)
    with pytest.raises(TypeError):
        wire.dump(object())


def test_status() -> None:
    assert json.loads(wire.write_status(3)) == {
        "type": "status",
        "data": {"status": {"exec_info": {"queue_remaining": 3}}},
    }
    assert json.loads(wire.write_status(0, "me"))["data"]["sid"] == "me"


def test_preview_frames() -> None:
    assert wire.frame_preview("jpeg", b"J") == bytes.fromhex("00000001 00000001") + b"J"
    assert wire.frame_preview("png", b"P") == bytes.fromhex("00000001 00000002") + b"P"
    frame = wire.frame_preview_with_metadata("p", "7", "png", b"image")
    length = int.from_bytes(frame[4:8], "big")
    assert frame[:4] == bytes.fromhex("00000004")
    assert json.loads(frame[8 : 8 + length]) == {
        "node_id": "7",
        "prompt_id": "p",
        "display_node_id": "7",
        "parent_node_id": None,
        "real_node_id": "7",
        "image_type": "image/png",
    }
    assert frame[8 + length :] == b"image"


def test_progress_state_grows() -> None:
    state = wire.ProgressState('p"')
    before = state.note('1"', 0.0, 1.0)
    message = json.loads(state.note("2", 3, 4, finished=True).write())
    assert message["type"] == "progress_state"
    assert message["data"]["prompt_id"] == 'p"'
    assert [(k, n["value"], n["max"], n["state"]) for k, n in message["data"]["nodes"].items()] == [
        ('1"', 0.0, 1.0, "running"),
        ("2", 3, 4, "finished"),
    ]
    with pytest.raises(ValueError, match="not JSON compliant"):
        state.note("3", math.nan, 1)
    state.note("4", 0, 1)
    assert list(json.loads(before.write())["data"]["nodes"]) == ['1"'], "it tells what was, whenever it is written"


@given(st.text(), JSON, st.dictionaries(st.text(), JSON, max_size=2), st.lists(st.text(), max_size=3))
def test_items_and_records(prompt_id: str, graph: object, extra: dict[str, object], targets: list[str]) -> None:
    item = wire.write_item(2.5, prompt_id, json.dumps(graph), extra, targets)
    assert json.loads(item) == [2.5, prompt_id, graph, extra, targets]
    record = wire.write_record(item, {"9": {"text": ["x"]}}, True, [("execution_start", {"a": 1})])
    assert json.loads(record) == {
        "prompt": json.loads(item),
        "outputs": {"9": {"text": ["x"]}},
        "status": {"status_str": "success", "completed": True, "messages": [["execution_start", {"a": 1}]]},
        "meta": {"9": {"node_id": "9", "display_node": "9", "parent_node": None, "real_node_id": "9"}},
    }
    failed = json.loads(wire.write_record(item, {}, False, []))["status"]
    assert (failed["status_str"], failed["completed"]) == ("error", False)
    assert json.loads(wire.write_object([(prompt_id, record)])) == {prompt_id: json.loads(record)}
    assert json.loads(wire.write_queue([item], [item, item]))["queue_pending"] == [json.loads(item)] * 2
