"""Every recorded HTTP answer of a real ComfyUI is read right, and a body that is none never looks like "not there"."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.events import Failed, QueueView, Record
from converter.errors import EngineFailed
from converter.link import answers
from converter.link.answers import Accepted, Refused, Unreadable
from converter.link.wire import Features
from tests.fakes import recordings

"""A busy machine is slow, which says nothing about the code."""

PARSERS: list[Callable[[bytes], Any]] = [
    lambda body: answers.parse_submission(200, body),
    lambda body: answers.parse_submission(400, body),
    lambda body: answers.parse_queue(body, 1.0),
    lambda body: answers.parse_history(body, "x"),
    answers.parse_upload,
    answers.parse_cancel,
    answers.parse_feature_answer,
    answers.parse_version,
    answers.parse_nodes,
]


def exchanges(method: str, path: str) -> Iterator[tuple[recordings.Row, recordings.Row]]:
    """Recorded requests to that path (or below it) with their answers, which are in order for each client."""
    for name in recordings.names():
        asked: dict[str, recordings.Row] = {}
        for row in recordings.load(name):
            if row["kind"] == "http_request":
                asked[row["who"]] = row
            elif row["kind"] == "http_response":
                request = asked.pop(row["who"])
                if request["method"] == method and request["path"].removeprefix("/api").startswith(path):
                    yield request, row


def body_of(row: recordings.Row) -> bytes:
    """The answer's bytes; `raw` is the recorded beginning of a body that is no JSON."""
    body = row["body"]
    if isinstance(body, dict) and "raw" in body:
        return str(body["raw"]).encode()
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def dump(document: Any) -> bytes:
    return json.dumps(document).encode()


# ---- POST /prompt


def test_every_recorded_submission_is_read_right() -> None:
    seen = set()
    for _, response in exchanges("POST", "/prompt"):
        status, body = response["status"], response["body"]
        seen.add(status)
        if status == 200:
            word = answers.parse_submission(status, body_of(response))
            assert word == Accepted(body["prompt_id"], body["node_errors"])
        elif status == 400:
            assert answers.parse_submission(status, body_of(response)) == Refused(status, body)
        else:
            with pytest.raises(Unreadable, match=str(status)):
                answers.parse_submission(status, body_of(response))
    assert seen == {200, 400, 500}


@pytest.mark.parametrize("status", [400, 413])
@pytest.mark.parametrize(("body", "document"), [(b"", None), (b"Maximum size exceeded.", None), (b"{}", {})])
def test_a_refusal_without_comfyuis_words_is_a_refusal(status: int, body: bytes, document: object) -> None:
    assert answers.parse_submission(status, body) == Refused(status, document)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"prompt_id": null}', b'{"prompt_id": "x", "num'])
def test_a_broken_acceptance_is_no_answer(body: bytes) -> None:
    with pytest.raises(Unreadable):
        answers.parse_submission(200, body)


@pytest.mark.parametrize("status", [201, 301, 403, 404, 429, 500, 502])
def test_other_statuses_say_nothing(status: int) -> None:
    with pytest.raises(Unreadable):
        answers.parse_submission(status, b'{"prompt_id": "x"}')


def test_the_body_of_a_prompt() -> None:
    graph = {"1": {"class_type": "SaveImage", "inputs": {"text": "grün"}}}
    body = answers.prompt_body(graph, "p", "c", {"extra_pnginfo": {"workflow": {}}}, ("1",))
    assert json.loads(body) == {
        "prompt": graph,
        "prompt_id": "p",
        "client_id": "c",
        "extra_data": {"extra_pnginfo": {"workflow": {}}},
        "partial_execution_targets": ["1"],
    }


def test_a_prompt_without_extras_still_has_an_object_for_them() -> None:
    document = json.loads(answers.prompt_body({}, "p", "c"))
    assert document == {"prompt": {}, "prompt_id": "p", "client_id": "c", "extra_data": {}}


# ---- GET /queue


def test_every_recorded_queue_is_read_right() -> None:
    pending = 0
    for _, response in exchanges("GET", "/queue"):
        view = answers.parse_queue(body_of(response), 7.5)
        body = response["body"]
        assert view.asked_at == 7.5
        assert view.running == tuple(item[1] for item in body["queue_running"])
        assert len(view.pending) == len(body["queue_pending"])
        numbers = {item[1]: item[0] for item in body["queue_pending"]}
        assert [numbers[prompt_id] for prompt_id in view.pending] == sorted(i[0] for i in body["queue_pending"])
        pending += len(view.pending)
    assert pending


def test_pending_prompts_are_put_in_the_order_of_their_run() -> None:
    """A raw heap, with the sixth element of later versions, equal numbers, and a number that is none."""
    heap = [[-3, "d", {}, {}, [], {}], [2, "c", {}, {}, [], {}], [1.5, "b", {}, {}, []], [2, "a"], [float("nan"), "e"]]
    body = dump({"queue_running": [[7, "r2", {}, {}, [], {}], [6, "r1", {}, {}, []]], "queue_pending": heap})
    assert answers.parse_queue(body, 0.0) == QueueView(0.0, ("r2", "r1"), ("d", "b", "a", "c", "e"))


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"queue_running": []},
        {"queue_running": [], "queue_pending": {}},
        {"queue_running": [], "queue_pending": [5]},
        {"queue_running": [[1]], "queue_pending": []},
        {"queue_running": [[1, 5]], "queue_pending": []},
    ],
)
def test_a_queue_of_which_a_part_is_unreadable_is_unreadable(document: Any) -> None:
    """Skipping the part would make its prompt look gone."""
    with pytest.raises(Unreadable):
        answers.parse_queue(dump(document), 0.0)


# ---- GET /history/{prompt_id}


def test_every_recorded_history_is_read_right() -> None:
    seen = set()
    for _, response in exchanges("GET", "/history/"):
        # Some answers were recorded in part, or as text because of a bare NaN.
        entries = response["body"] if isinstance(response["body"], dict) else {}
        for prompt_id, entry in entries.items():
            if "prompt" not in entry:
                continue
            record = answers.parse_history(body_of(response), prompt_id)
            assert record is not None
            events = dict(entry["status"]["messages"])
            assert record.success is (entry["status"]["status_str"] == "success")
            assert record.outputs == entry["outputs"]
            assert record.requested == tuple(entry["prompt"][4])
            assert record.interrupted is ("execution_interrupted" in events)
            assert (record.failure is not None) is ("execution_error" in events)
            if record.failure is not None:
                assert record.failure.node_id == events["execution_error"]["node_id"]
                assert not record.failure.midway
            seen.add((record.success, record.interrupted, record.failure is not None))
        assert answers.parse_history(dump(entries), "nobody") is None
    assert seen >= {(True, False, False), (False, True, False), (False, False, True), (True, False, True)}


def test_a_bare_nan_in_an_output_is_null() -> None:
    body = dump({"x": {"outputs": {"1": {"y": [float("nan")]}}, "status": {"status_str": "success"}}})
    assert answers.parse_history(body, "x") == Record(success=True, outputs={"1": {"y": [None]}})


def test_a_record_is_read_as_far_as_it_makes_sense() -> None:
    messages = [
        ["execution_error", {"node_id": "1", "exception_message": "first\n"}],
        ["execution_error", {"node_id": "2", "node_type": "K", "exception_message": "last\n", "exception_type": "E"}],
        ["execution_error"],
        ["execution_interrupted", None],
        "junk",
    ]
    entry = {
        "prompt": [1, "x", {}, {}, ["1", 2]],
        "outputs": None,
        "status": {"status_str": "error", "messages": messages},
    }
    record = answers.parse_history(dump({"x": entry}), "x")
    assert record == Record(success=False, outputs={}, requested=("1",), failure=Failed("2", "K", "last", "E"))


@pytest.mark.parametrize("prompt", [None, [], [1, "x", {}, {}], [1, "x", {}, {}, "1"]])
def test_a_record_may_lack_what_was_requested(prompt: Any) -> None:
    entry = {"prompt": prompt, "status": {"status_str": "success", "messages": None}}
    assert answers.parse_history(dump({"x": entry}), "x") == Record(success=True, outputs={})


@pytest.mark.parametrize("entry", [5, {}, {"status": None}, {"status": {"status_str": None}}])
def test_an_entry_without_an_outcome_is_final(entry: Any) -> None:
    with pytest.raises(EngineFailed):
        answers.parse_history(dump({"x": entry}), "x")


# ---- the rest


def test_every_recorded_upload_is_read_right() -> None:
    seen = set()
    for _, response in exchanges("POST", "/upload/image"):
        if response["status"] != 200:
            continue
        body = response["body"]
        value = answers.parse_upload(body_of(response))
        assert value == (f"{body['subfolder']}/{body['name']}" if body["subfolder"] else body["name"])
        seen.add(value)
    assert {"up.png", "up (1).png", "a/b/up.png"} <= seen


def test_cancel() -> None:
    assert answers.parse_cancel(b'{"cancelled": true}') is True
    assert answers.parse_cancel(b'{"cancelled": false}') is False
    with pytest.raises(Unreadable):
        answers.parse_cancel(b'{"cancelled": 1}')


def test_features() -> None:
    body = b'{"supports_preview_metadata": true, "max_upload_size": 104857600, "extension": {"x": 1}}'
    assert answers.parse_feature_answer(body) == Features(supports_preview_metadata=True, max_upload_size=104857600)


def test_nodes() -> None:
    info = {
        "SaveImage": {"output_node": True},
        "EmptyImage": {"output_node": False},
        "LoadImage": {"input": {"required": {"image": [["a.png"], {"image_upload": True}], "size": ["INT", {}]}}},
        "LoadVideo": {"input": {"required": {"file": ["COMBO", {"options": [], "video_upload": True}]}}},
        "Recorder": {"input": {"optional": {"sound": ["STRING", {"audio_upload": True}], "x": [["a"], {}]}}},
        "Odd": {},
        "Junk": 5,
    }
    nodes = answers.parse_nodes(dump(info))
    assert nodes.classes == info.keys() - {"Junk"}
    assert nodes.outputs == {"SaveImage"}
    assert nodes.uploads == {("LoadImage", "image"), ("LoadVideo", "file"), ("Recorder", "sound")}


@pytest.mark.parametrize("parse", PARSERS[2:])
@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'{"x": ', b"\xff", b"[" * 100_000])
def test_junk_is_unreadable(parse: Callable[[bytes], Any], body: bytes) -> None:
    with pytest.raises(Unreadable):
        parse(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
KEYS = st.sampled_from(
    [
        "x",
        "prompt_id",
        "node_errors",
        "error",
        "queue_running",
        "queue_pending",
        "name",
        "subfolder",
        "cancelled",
        "max_upload_size",
    ]
)
ENTRY = st.dictionaries(st.sampled_from(["prompt", "outputs", "status"]), JSON)
STATUS = st.fixed_dictionaries({"status_str": JSON | st.just("success"), "messages": JSON})


@given(
    st.binary(max_size=100)
    | JSON.map(dump)
    | st.dictionaries(KEYS, JSON, max_size=5).map(dump)
    | st.builds(lambda entry, status: dump({"x": {**entry, "status": status}}), ENTRY, STATUS)
)
def test_no_body_raises_anything_else(body: bytes) -> None:
    for parse in PARSERS:
        try:
            parse(body)
        except (Unreadable, EngineFailed):
            continue


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("0.3.64", (0, 3, 64)),
        ("v0.4", (0, 4)),
        ("0.26.0-rc1", (0, 26, 0)),
        ("1.2.3.4.5", (1, 2, 3, 4)),
        ("unknown", ()),
        ("", ()),
        (None, ()),
        (3, ()),
        ("9" * 5000, (999999,)),
    ],
)
def test_versions_are_numbers_as_far_as_they_can_be(version: object, numbers: tuple[int, ...]) -> None:
    assert answers.parse_version(dump({"system": {"comfyui_version": version}})) == numbers
    assert answers.parse_version(dump({"system": version})) == answers.parse_version(b"{}") == ()
