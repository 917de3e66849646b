"""Every "no" of an engine becomes a fault in one shape, without its internals: the recorded ones and any other."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.refusals import find_dropped, normalize_refusal, partial_refusal
from converter.errors import EngineFailed, Fault, Internal, InvalidWorkflow, TooLarge
from tests.converter.core.documents import exchanges, texts, values

RECORDED = {note: body for note, _, status, body in exchanges("03") if status == 400}


def refuse(note: str) -> Fault:
    """The fault for a recorded refusal."""
    return normalize_refusal(400, RECORDED[note])


def errors_of(fault: Fault, node_id: str) -> Any:
    """The errors of one node."""
    return fault.extensions["node_errors"][node_id]["errors"]


@pytest.mark.parametrize("note", [note for note in RECORDED if note != "no prompt field"])
def test_recorded_refusals_have_one_shape(note: str) -> None:
    fault = refuse(note)
    assert isinstance(fault, InvalidWorkflow)
    assert len(fault.detail) > 30
    assert fault.detail.endswith(".")
    for entry in fault.extensions["node_errors"].values():
        assert entry.keys() == {"class_type", "errors"}
        for error in entry["errors"]:
            assert {"type", "message", "details"} <= error.keys() <= {"type", "message", "details", "input_name"}
    assert "traceback" not in json.dumps(fault.problem())
    assert "KeyError" not in json.dumps(fault.problem())


@pytest.mark.parametrize(
    ("note", "detail"),
    [
        (
            "empty graph",
            "The workflow has no output node (such as SaveImage) that the engine could run.",
        ),
        (
            "node without class_type",
            "The engine refused the workflow: node 1: The node has no class_type.",
        ),
        (
            "unknown node type",
            (
                "The engine refused the workflow: node 1 (NoSuchNode): The engine has no node of this class; perhaps "
                "a custom node is not installed."
            ),
        ),
        (
            "INT below min",
            "The engine refused the workflow: node 1 (EmptyImage): Value 0 smaller than min of 1 (width).",
        ),
        (
            "combo value not in list",
            (
                "The engine refused the workflow: node 2 (ImageScale): Value not in list (upscale_method: 'bogus' not "
                "in ['nearest-exact', 'bilinear', 'area', 'bicubic', 'lanczos'])."
            ),
        ),
        (
            "link to a node that is not there",
            "The engine refused the workflow: node 2 (SaveImage): Exception when validating node ('99').",
        ),
        (
            "cycle",
            (
                "The engine found no output that it could run and gave no reason; nodes that are linked in a circle "
                "are the usual one."
            ),
        ),
    ],
)
def test_recorded_refusals_are_told_in_a_sentence(note: str, detail: str) -> None:
    assert refuse(note).detail == detail


def test_the_inputs_name_is_kept() -> None:
    assert errors_of(refuse("missing required input"), "2") == [
        {
            "type": "required_input_missing",
            "message": "Required input is missing",
            "details": "images",
            "input_name": "images",
        }
    ]


def test_several_errors_come_in_an_order_of_their_own() -> None:
    fault = refuse("combo with a long list")
    assert [error["input_name"] for error in errors_of(fault, "1")] == ["model", "negative", "positive", "sampler_name"]
    body = RECORDED["combo with a long list"]
    turned = json.loads(json.dumps(body))
    turned["node_errors"]["1"]["errors"].reverse()
    assert normalize_refusal(400, turned).problem() == fault.problem()
    assert fault.detail.endswith("; and more.")


def test_outputs_refused_in_part_are_told_by_number() -> None:
    accepted = [body for _, _, status, body in exchanges("04") if status == 200 and body.get("node_errors")]
    fault = partial_refusal(accepted[0]["node_errors"])
    assert list(fault.extensions["node_errors"]) == ["5", "6"]
    assert fault.detail == (
        "The engine would run the workflow only in part: node 5 (SaveImage): Exception when validating node ('99'); "
        "node 6 (EmptyImage): Value 0 smaller than min of 1 (width)."
    )


def test_nodes_come_in_the_order_of_their_numbers() -> None:
    faulty = {node_id: {"errors": [], "class_type": "X"} for node_id in ("10", "a", "9", "100", "2")}
    assert list(partial_refusal(faulty).extensions["node_errors"]) == ["2", "9", "a", "10", "100"]


def later(kind: str, message: str, details: str = "", **extra: Any) -> dict[str, Any]:
    """A refusal as later versions write it."""
    error = {"type": kind, "message": message, "details": details, "extra_info": extra}
    return {"error": error, "node_errors": {}}


@pytest.mark.parametrize(
    "body",
    [
        later(
            "missing_node_type", "Node 'Nice' not found.", "Node ID '#7'", node_id="7", class_type="Odd", node_title="N"
        ),
        later("missing_node_type", "Node 'Nice' not found.", "", node_id="7", class_type="Odd"),
        later("invalid_prompt", "Cannot execute because node Odd does not exist.", "Node ID '#7'"),
    ],
)
def test_an_unknown_class_is_one_error_in_all_versions(body: object) -> None:
    fault = normalize_refusal(400, body)
    assert errors_of(fault, "7")[0]["type"] == "missing_node_type"
    assert fault.extensions["node_errors"]["7"]["class_type"] == "Odd"


def test_the_class_that_was_meant_is_named_where_the_engine_has_one_like_it() -> None:
    body = later("missing_node_type", "Not found.", "", node_id="7", class_type="SaveImge")
    fault = normalize_refusal(400, body, {"SaveImage", "LoadImage"})
    said = "The engine has no node of this class; did you mean SaveImage, or is a custom node not installed?"
    assert fault.detail == f"The engine refused the workflow: node 7 (SaveImge): {said}"
    assert errors_of(fault, "7")[0]["message"] == said


def test_an_unknown_class_without_its_name_is_told_too() -> None:
    fault = normalize_refusal(400, later("missing_node_type", "Node 'Nice' not found.", "Node ID '#7'"))
    assert errors_of(fault, "7")[0]["type"] == "missing_node_type"
    assert fault.extensions["node_errors"]["7"]["class_type"] is None


def test_a_missing_class_is_one_error_in_all_versions() -> None:
    message = "Node 'ID #1' has no class_type. The workflow may be corrupted or a custom node is missing."
    new = normalize_refusal(400, later("missing_node_type", message, "Node ID '#1'", node_id="1", class_type=None))
    assert new.problem() == refuse("node without class_type").problem()


def test_an_unknown_class_without_a_node_is_told_as_the_engine_says_it() -> None:
    fault = normalize_refusal(400, later("missing_node_type", "Node not found.", "see /srv/engine/log.txt"))
    assert fault.detail == "The engine refused the workflow: Node not found: see log.txt."


def test_a_cycle_of_later_versions_keeps_its_path() -> None:
    path = "1 (ImageInvert) -> 2 (ImageInvert) -> 1 (ImageInvert)"
    error = {"type": "dependency_cycle", "message": "Dependency cycle detected", "details": path, "extra_info": {}}
    body = later("prompt_outputs_failed_validation", "Prompt outputs failed validation")
    body["node_errors"] = {"1": {"errors": [error], "dependent_outputs": ["3"], "class_type": "ImageInvert"}}
    fault = normalize_refusal(400, body)
    assert "Dependency cycle detected (1 (ImageInvert) -> 2" in fault.detail


def test_internals_do_not_get_through() -> None:
    error = {
        "type": "exception_during_inner_validation",
        "message": "Exception when validating inner node",
        "details": "[Errno 2] No such file or directory: '/home/me/ComfyUI/models/x y/z.bin'",
        "extra_info": {
            "exception_type": "FileNotFoundError",
            "traceback": ['  File "/home/me/ComfyUI/execution.py", line 5'],
            "input_name": "clip",
        },
    }
    body = later("prompt_outputs_failed_validation", "Prompt outputs failed validation", "Errno: /home/me/x")
    body["node_errors"] = {"1": {"errors": [error], "class_type": "CLIPLoader"}}
    told = json.dumps(normalize_refusal(400, body).problem())
    assert "home" not in told
    assert "FileNotFoundError" not in told
    assert "z.bin" in told
    assert '"input_name": "clip"' in told


@pytest.mark.parametrize("kind", ["no_prompt", "invalid_prompt_id"])
def test_what_only_we_can_get_wrong_is_not_blamed_on_the_caller(kind: str) -> None:
    assert isinstance(normalize_refusal(400, later(kind, "No prompt provided")), Internal)


@pytest.mark.parametrize(
    ("status", "body"), [(500, None), (500, {"error": {}}), (403, ""), (400, None), (400, {"error": "text"}), (302, {})]
)
def test_answers_that_are_no_refusal_are_a_failure_of_the_engine(status: int, body: object) -> None:
    fault = normalize_refusal(status, body)
    assert isinstance(fault, EngineFailed)
    assert str(status) in fault.detail


def test_a_body_above_the_engines_limit_is_too_large() -> None:
    assert isinstance(normalize_refusal(413, "Maximum request body size exceeded"), TooLarge)


def test_an_error_that_says_nothing_is_still_a_sentence() -> None:
    assert normalize_refusal(400, {"error": {}}).detail == "The engine refused the workflow: it gave no reason."
    assert partial_refusal({}).detail == "The engine would run the workflow only in part: no reason was given."


error_documents = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["invalid_prompt", "missing_node_type", "prompt_no_outputs", "new"]) | values,
        "message": texts | values,
        "details": st.sampled_from(["Node ID '#1'", ""]) | values,
        "extra_info": st.fixed_dictionaries({}, optional={"input_name": texts | values, "node_id": values}) | values,
    },
)
entries = st.fixed_dictionaries(
    {}, optional={"errors": st.lists(error_documents | values) | values, "class_type": values}
)
node_documents = st.dictionaries(texts, entries | values, max_size=3) | values


@given(st.fixed_dictionaries({}, optional={"error": error_documents | values, "node_errors": node_documents}) | values)
def test_any_answer_makes_a_fault(body: Any) -> None:
    fault = normalize_refusal(400, body)
    assert isinstance(fault, InvalidWorkflow | EngineFailed)
    fault.detail.encode()
    assert set(fault.problem()) <= {"type", "title", "status", "code", "detail", "retry", "node_errors"}
    json.dumps(fault.problem())


@given(node_documents)
def test_any_node_errors_make_a_fault(node_errors: Any) -> None:
    fault = partial_refusal(node_errors)
    fault.detail.encode()
    for entry in fault.extensions["node_errors"].values():
        assert entry.keys() == {"class_type", "errors"}


def test_outputs_that_were_left_out_unheard_are_found_in_the_record() -> None:
    graph = {id: {"class_type": name, "inputs": {}} for id, name in [("1", "Empty"), ("2", "Save"), ("3", "Save")]}
    fault = find_dropped(graph, None, {"Save"}, ["2"])
    assert isinstance(fault, InvalidWorkflow)
    assert fault.extensions["node_errors"].keys() == {"3"}
    assert errors_of(fault, "3")[0]["type"] == "dropped_output"
    assert find_dropped(graph, ["3"], None, ["2"]) is not None
    for nodes, classes, run in [
        (None, {"Save"}, "23"),
        (["2"], {"Save"}, "2"),
        (None, None, "2"),
        (None, {"Save"}, ""),
    ]:
        assert find_dropped(graph, nodes, classes, run) is None
