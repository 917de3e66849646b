"""comfyui-api's statistics, errors and names."""

import pytest

from converter.core.comfyui_api import explain, rename, summarize
from converter.errors import EngineFailed, Fault, InvalidInput, InvalidRequest, InvalidWorkflow

TIMES = {"waiting": 0.25, "staging": 0.5, "queued": 0.125, "executing": 2.0, "collecting": 0.25}


def test_statistics_are_in_milliseconds() -> None:
    assert summarize(TIMES, 3.2, 1700000000.0, {"3": 1699999999.0}) == {
        "comfy_execution": {
            "start": 1699999997750,
            "end": 1699999999750,
            "duration": 2000,
            "nodes": {"3": {"start": 1699999999000}},
        },
        "preprocess_time": 500,
        "comfy_round_trip_time": 2375,
        "postprocess_time": 250,
        "upload_time": 0,
        "total_time": 3200,
    }


@pytest.mark.parametrize(
    ("fault", "status", "location"),
    [
        (InvalidRequest([{"pointer": "", "detail": "x"}, {"pointer": "/a/b", "detail": "x"}]), 400, "a.b"),
        (InvalidRequest([{"pointer": "", "detail": "x"}]), 400, None),
        (InvalidWorkflow("x", node_errors={"3": {}}), 400, "prompt.3"),
        (InvalidWorkflow("x", node_errors={"3": {}, "4": {}}), 400, "prompt"),
        (InvalidInput("x", node_id="1", input_name="image"), 400, "prompt.1.inputs.image"),
        (InvalidInput("x"), 400, None),
        (InvalidInput("x", input_name="webhook_v2"), 400, "webhook_v2"),
        (EngineFailed("x"), 502, None),
    ],
)
def test_a_fault_has_a_text_and_a_place(fault: Fault, status: int, location: str | None) -> None:
    told, document = explain(fault)
    assert (told, document.get("location")) == (status, location)
    assert document["error"] == fault.detail
    assert document["code"] == fault.code
    assert not document.keys() & {"type", "title", "status", "detail"}


def test_who_says_jpg_gets_jpg() -> None:
    assert rename("a.b.jpeg", "jpg") == "a.b.jpg"
    assert rename("a.b.jpeg", "jpeg") == rename("a.b.jpeg", None) == "a.b.jpeg"
    assert rename("a.txt", "jpg") == "a.txt"
