"""What clients of ComfyUI are told, in its words."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.comfyui import (
    Message,
    Tale,
    arrange,
    conclude,
    count,
    explain,
    frame,
    greet,
    item,
    record,
    tell,
)
from converter.core.outputs import FileRef, Kind, Output
from converter.errors import Canceled, EngineFailed, ExecutionFailed, Fault, InvalidRequest, InvalidWorkflow

FILE = FileRef("a.png", "sub", "output")


def output(node: str, kind: Kind = "image", **of: object) -> Output:
    return Output(node, "SaveImage", "a", kind, "image/png", **of)  # type: ignore[arg-type]


def kinds(messages: list[Message]) -> list[str]:
    return ["picture" if isinstance(message, bytes) else message["type"] for message in messages]


nodes = st.none() | st.sampled_from(["1", "2"])
progress = st.builds(
    lambda node, step: ("progress", {"node_id": node, "step": step, "steps": step and 9}), nodes, st.none() | st.just(3)
)
statuses = st.sampled_from(["waiting", "queued", "running", "restarted"]).map(
    lambda state: ("status", {"state": state})
)
previews = st.just(("preview", {"content_type": "image/jpeg", "data": base64.b64encode(b"x").decode()}))
others = st.just(("output", {"node_id": "1"}))
outcomes = st.sampled_from([None, Canceled("x"), ExecutionFailed("x", node_id="1", class_type="A"), EngineFailed("x")])


@given(
    st.lists(progress | statuses | previews | others, max_size=12),
    outcomes,
    st.lists(st.sampled_from([output("1", file=FILE), output("2", text="t", kind="text"), output("3", data=b"x")])),
)
def test_a_tale_has_a_beginning_and_an_end(
    entries: list[tuple[str, dict[str, object]]], fault: Fault | None, outputs: list[Output]
) -> None:
    tale, told = Tale("p"), []
    for event, data in entries:
        tale, messages = tell(tale, event, data, 5)
        told += messages
    told += conclude(tale, fault, outputs, 6)
    assert kinds(told)[:2] == ["execution_start", "execution_cached"]
    assert kinds(told).count("execution_start") == 1
    assert told[-1] == {"type": "executing", "data": {"node": None, "prompt_id": "p"}}
    ends = [kind for kind in kinds(told) if kind in ("execution_success", "execution_error", "execution_interrupted")]
    assert len(ends) == 1
    assert kinds(told)[-2] == ends[0]
    assert all(message["data"]["prompt_id"] == "p" for message in told if isinstance(message, dict))


def test_a_node_is_told_once_and_each_of_its_steps() -> None:
    tale, told = Tale("p", begun=True), []
    for step in (None, 1, 2):
        tale, messages = tell(tale, "progress", {"node_id": "3", "step": step, "steps": step and 2}, 5)
        told += messages
    assert kinds(told) == ["executing", "progress", "progress"]
    assert told[-1] == {"type": "progress", "data": {"value": 2, "max": 2, "prompt_id": "p", "node": "3"}}


def test_a_failure_says_where_and_why() -> None:
    [*_, error, _] = conclude(Tale("p"), ExecutionFailed("no", node_id="1", class_type="A"), [], 6)
    assert isinstance(error, dict)
    assert error["data"].items() >= {"node_id": "1", "node_type": "A", "exception_message": "no\n"}.items()


def test_outputs_are_arranged_by_node_and_kind() -> None:
    outputs = [
        output("1", file=FILE),
        output("1", "video", file=FILE),
        output("2", "audio", file=FILE),
        output("2", "latent", file=FILE),
        output("3", "file", file=FILE),
        output("4", "text", text="words"),
        output("5", data=b"x"),
    ]
    shown = {"filename": "a.png", "subfolder": "sub", "type": "output"}
    assert arrange(outputs) == {
        "1": {"images": [shown, shown]},
        "2": {"audio": [shown], "latents": [shown]},
        "3": {"files": [shown]},
        "4": {"text": ["words"]},
    }


@pytest.mark.parametrize("fault", [None, Canceled("x")])
def test_a_record_says_how_it_ended(fault: Fault | None) -> None:
    entry = record(item(3, "p", "me", {}, ["1"]), fault, [output("1", file=FILE)], 7)
    assert entry["prompt"] == [3, "p", {}, {"client_id": "me"}, ["1"]]
    assert entry["status"]["completed"] is (fault is None)
    assert entry["status"]["messages"][-1][0] == ("execution_interrupted" if fault else "execution_success")
    assert entry["meta"]["1"]["real_node_id"] == "1"


def test_the_queue_is_counted() -> None:
    assert greet("me", 2)["data"] == {"status": {"exec_info": {"queue_remaining": 2}}, "sid": "me"}
    assert count(0)["data"] == {"status": {"exec_info": {"queue_remaining": 0}}}
    assert frame("image/webp", b"x") == b"\0\0\0\1\0\0\0\2x"


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (InvalidWorkflow("x"), 400, "invalid_prompt"),
        (InvalidRequest([{"pointer": "/a", "detail": "x"}]), 400, "invalid_request"),
        (EngineFailed("x"), 502, "engine_failed"),
    ],
)
def test_a_refusal_has_the_shape_of_the_original(fault: Fault, status: int, kind: str) -> None:
    told, document = explain(fault)
    assert (told, document["error"]["type"], document["node_errors"]) == (status, kind, {})


def test_errors_of_nodes_are_shown() -> None:
    errors = [
        {"type": "t", "message": "m", "details": "d", "input_name": "i"},
        {"type": "t", "message": "m", "details": ""},
    ]
    _, document = explain(InvalidWorkflow("x", node_errors={"1": {"class_type": "A", "errors": errors}}))
    assert document["error"]["type"] == "prompt_outputs_failed_validation"
    assert document["node_errors"]["1"] == {
        "errors": [
            {"type": "t", "message": "m", "details": "d", "extra_info": {"input_name": "i"}},
            {"type": "t", "message": "m", "details": "", "extra_info": {}},
        ],
        "dependent_outputs": [],
        "class_type": "A",
    }
