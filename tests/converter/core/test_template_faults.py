"""Faults of a template's call bear the names of its inputs, and are else what they were."""

from typing import Any

import pytest

from converter.core.media import MediaInput, refuse
from converter.core.template import Input
from converter.core.template_faults import name_inputs
from converter.core.workflow import explain
from converter.core.workflow import refuse as refuse_workflow
from converter.errors import EngineFailed, ExecutionFailed, Fault, InvalidInput, InvalidRequest

HOLES = (
    Input("model", "choice", (("4", "ckpt_name"),)),
    Input("photo", "image", (("10", "image"), ("11", "image"))),
    Input("clip", "video", (("12", "file"),)),
)
REFUSED = "The engine refused the workflow"


def media(node_id: str, reason: str) -> InvalidInput:
    """A file that can't be used."""
    return refuse(MediaInput(node_id, "LoadImage", "image", "part", "x"), reason)


def refused(node_id: str, key: str, kind: str, details: str) -> Fault:
    """A value that the engine does not take."""
    error = explain(kind, "No", details, key)
    return refuse_workflow(REFUSED, {node_id: {"class_type": "Loader", "errors": [error]}})


def test_errors_of_nodes_bear_the_input_that_fills_them() -> None:
    errors = [explain("a", "No", "", "ckpt_name"), explain("b", "Odd")]
    given = refuse_workflow(REFUSED, {"4": {"class_type": "Loader", "errors": errors}, "5": _entry("ckpt_name")})
    before = given.problem()
    fault = name_inputs(given, HOLES)
    assert type(fault) is type(given)
    assert given.problem() == before
    assert fault.detail == f"/inputs/model: {given.detail}"
    told = fault.extensions["node_errors"]
    assert told["4"]["errors"] == [{**errors[0], "template_input": "model"}, errors[1]]
    assert told["5"] == given.extensions["node_errors"]["5"]


def _entry(key: str) -> dict[str, Any]:
    return {"class_type": "Loader", "errors": [explain("a", "No", "", key)]}


def test_one_file_is_named_and_so_are_several() -> None:
    fault = name_inputs(media("11", "is empty").passing(), HOLES)
    assert fault.detail == "/inputs/photo: Input image of node 11 (LoadImage) is empty."
    assert fault.extensions["template_input"] == "photo"
    assert fault.retry == "same"
    several = InvalidInput("Both.", inputs=[media("10", "a").extensions, media("99", "b").extensions])
    told = name_inputs(several, HOLES)
    assert told.detail == "/inputs/photo: Both."
    assert [place.get("template_input") for place in told.extensions["inputs"]] == ["photo", None]


@pytest.mark.parametrize(
    ("node_id", "key", "kind", "details", "helps"),
    [
        ("10", "image", "custom_validation_failed", "image - Invalid image file: nofile.png", True),
        ("12", "file", "value_not_in_list", "file: 'a.mp4' not in []", True),
        ("10", "image", "custom_validation_failed", "image - too dark", False),
        ("4", "ckpt_name", "value_not_in_list", "ckpt_name: 'dem' not in ['demo']", False),
    ],
)
def test_how_a_file_is_sent_is_said_where_the_engine_has_none(
    node_id: str, key: str, kind: str, details: str, helps: bool
) -> None:
    fault = name_inputs(refused(node_id, key, kind, details), HOLES)
    assert fault.detail.endswith("as base64, as a data: URI or as a URL.") is helps


@pytest.mark.parametrize(
    "fault",
    [
        ExecutionFailed("boom", node_id="4", class_type="Loader"),
        InvalidInput("webhook is private", input_name="webhook"),
        InvalidRequest([{"pointer": "/inputs/model", "detail": "must be text"}]),
        EngineFailed("gone"),
        media("99", "is empty"),
    ],
)
def test_what_is_about_no_input_stays_as_it_is(fault: Fault) -> None:
    assert name_inputs(fault, HOLES) is fault
    assert name_inputs(fault, ()) is fault
