"""Templates: what is wrong with one is told whole, what is right can be filled, and the schema says how."""

import copy
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.template import MAX_GUESSED, MAX_SEED, NamedOutput, Template, fill, schema
from converter.core.template_toml import Problem, TemplateError, find_folder, parse
from converter.core.workflow import check
from converter.errors import InvalidRequest, InvalidWorkflow
from tests.converter.core.documents import drafts, values

SHIPPED = Path(__file__).parents[3] / "workflows"

TYPES = ("string", "integer", "number", "boolean", "choice", "image", "video", "audio", "seed")
OF_TYPES = f".type: must be one of {', '.join(TYPES)}"
OF_CHOICES = '.choices: must be a list of different texts, "models/FOLDER" or "engine"'
NO_INPUT = ".node: 2.texts: the workflow has no such input; Custom has text, flag, mode, a.b"

WORKFLOW: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "2": {"class_type": "Custom", "inputs": {"text": "old", "flag": False, "mode": "a", "a.b": 1, "linked": ["1", 0]}},
    "3": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 20, "cfg": 7.0, "width": 8, "height": 8}},
    "3.5": {"class_type": "KSampler", "inputs": {"seed": 1}},
}
DECLARATION: dict[str, Any] = {
    "title": "Everything",
    "description": "One input of each type.",
    "inputs": {
        "prompt": {"type": "string", "node": "2.text", "max_length": 5, "example": "a dog", "description": "Said."},
        "flag": {"type": "boolean", "node": "2.flag", "default": True},
        "mode": {"type": "choice", "node": "2.mode", "choices": ["a", "b"], "default": "b"},
        "steps": {"type": "integer", "node": "3.steps", "minimum": 1, "maximum": 50, "optional": True},
        "cfg": {"type": "number", "node": "3.cfg", "default": 7, "minimum": 0.5},
        "size": {"type": "integer", "node": ["3.width", "3.height"], "default": 64, "step": 8},
        "seed": {"type": "seed", "node": ["3.seed", "3.5.seed"]},
        "image": {"type": "image", "node": "1.image"},
        "dotted": {"type": "integer", "node": "2.a.b", "optional": True},
    },
}
GIVEN: dict[str, Any] = {"prompt": "a cat", "image": "cat.png"}


def template() -> Template:
    """The template with one input of each type."""
    return parse("everything", WORKFLOW, DECLARATION)


def problems(inputs: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with some inputs, by pointer."""
    with pytest.raises(InvalidRequest) as caught:
        fill(template(), inputs, lambda: 0)
    return {problem["pointer"]: problem["detail"] for problem in caught.value.problems}


def declare(**table: Any) -> dict[str, Any]:
    """A declaration of one input."""
    return {"inputs": {"x": table}}


def complaints(declaration: dict[str, Any], workflow: object = WORKFLOW, name: str = "t") -> tuple[str, ...]:
    """What is wrong with a template."""
    with pytest.raises(TemplateError) as caught:
        parse(name, workflow, declaration)
    told = tuple(map(str, caught.value.problems))
    assert str(caught.value) == f"template {name}: {'; '.join(told)}"
    assert caught.value.name == name
    return told


# Declarations ------------------------------------------------------------------------------------------------------


def test_a_declaration_is_read() -> None:
    found = template()
    assert (found.name, found.title, found.description) == ("everything", "Everything", "One input of each type.")
    assert [hole.name for hole in found.inputs] == list(DECLARATION["inputs"])
    assert [hole.name for hole in found.inputs if hole.required] == ["prompt", "image"]
    assert {hole.name: hole.places for hole in found.inputs}["seed"] == (("3", "seed"), ("3.5", "seed"))
    assert {hole.name: hole.places for hole in found.inputs}["dotted"] == (("2", "a.b"),)
    assert found.media == {("1", "image")}


def test_a_declaration_may_be_empty() -> None:
    found = parse("plain", WORKFLOW, {})
    assert (found.title, found.inputs) == ("plain", ())
    assert fill(found, {}, lambda: 0) == (WORKFLOW, {})


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"node": "2.text"}, OF_TYPES),
        ({"type": "text", "node": "2.text"}, OF_TYPES),
        ({"type": ["seed"], "node": "2.text"}, OF_TYPES),
        ({"type": "string"}, ".node: must be text like 3.seed, or a list of them"),
        ({"type": "string", "node": []}, ".node: must be text like 3.seed, or a list of them"),
        ({"type": "string", "node": ["2.text", 5]}, ".node: must be text like 3.seed, or a list of them"),
        ({"type": "string", "node": "text"}, ".node: text: the workflow has no such input"),
        ({"type": "string", "node": "9.text"}, ".node: 9.text: the workflow has no such input"),
        (
            {"type": "string", "node": "2.texts"},
            NO_INPUT,
        ),
        ({"type": "string", "node": "2.linked"}, ".node: 2.linked: is linked"),
        ({"type": "string", "node": "2.text", "defualt": ""}, ".defualt: is not known"),
        ({"type": "string", "node": "2.text", "minimum": 1}, ".minimum: does not apply to string"),
        ({"type": "integer", "node": "3.steps", "max_length": 1}, ".max_length: does not apply to integer"),
        ({"type": "boolean", "node": "2.flag", "choices": ["a"]}, ".choices: does not apply to boolean"),
        ({"type": "string", "node": "2.text", "description": 5}, ".description: must be text"),
        ({"type": "string", "node": "2.text", "optional": "yes"}, ".optional: must be true or false"),
        ({"type": "string", "node": "2.text", "max_length": 0}, ".max_length: must be a whole number above 0"),
        ({"type": "string", "node": "2.text", "example": 5}, ".example: must be text"),
        ({"type": "boolean", "node": "2.flag", "example": "x"}, ".example: does not apply to boolean"),
        (
            {"type": "string", "node": "2.text", "max_length": 2, "example": "abc"},
            ".example: must have at most 2 characters",
        ),
        ({"type": "number", "node": "3.cfg", "minimum": "1"}, ".minimum: must be a number"),
        ({"type": "number", "node": "3.cfg", "maximum": float("nan")}, ".maximum: must be a number"),
        ({"type": "integer", "node": "3.steps", "minimum": 0.5}, ".minimum: must be a whole number"),
        ({"type": "seed", "node": "3.seed", "maximum": 0.5}, ".maximum: must be a whole number"),
        ({"type": "number", "node": "3.cfg", "minimum": 2, "maximum": 1}, ".minimum: is above the maximum"),
        ({"type": "integer", "node": "3.steps", "step": 0}, ".step: must be a whole number above 0"),
        ({"type": "integer", "node": "3.steps", "step": 0.5}, ".step: must be a whole number above 0"),
        ({"type": "number", "node": "3.cfg", "step": 1}, ".step: does not apply to number"),
        ({"type": "integer", "node": "3.steps", "step": 4, "minimum": 1}, ".minimum: is no multiple of the step"),
        ({"type": "integer", "node": "3.steps", "step": 4, "default": 6}, ".default: must be a multiple of 4"),
        ({"type": "seed", "node": "3.seed", "maximum": -1}, ".minimum: is above the maximum"),
        ({"type": "choice", "node": "2.mode"}, ".choices: is missing"),
        (
            {"type": "choice", "node": "2.mode", "choices": []},
            OF_CHOICES,
        ),
        (
            {"type": "choice", "node": "2.mode", "choices": ["a", "a"]},
            OF_CHOICES,
        ),
        (
            {"type": "choice", "node": "2.mode", "choices": ["a", 1]},
            OF_CHOICES,
        ),
        (
            {"type": "choice", "node": "2.mode", "choices": "ab"},
            OF_CHOICES,
        ),
        ({"type": "seed", "node": "3.seed", "default": 5}, ".default: does not apply to a seed, which is drawn"),
        ({"type": "seed", "node": "3.seed", "optional": True}, ".optional: does not apply to a seed, which is drawn"),
        (
            {"type": "string", "node": "2.text", "default": "", "optional": True},
            ".optional: says nothing beside a default",
        ),
        ({"type": "integer", "node": "3.steps", "default": "x"}, ".default: must be a whole number"),
        ({"type": "number", "node": "3.cfg", "default": 5, "maximum": 4}, ".default: must be at most 4"),
        ({"type": "choice", "node": "2.mode", "choices": ["a"], "default": "b"}, ".default: must be one of a"),
    ],
)
def test_what_is_wrong_with_an_input_is_told(table: dict[str, Any], problem: str) -> None:
    assert complaints(declare(**table)) == (f"inputs.x{problem}",)


@pytest.mark.parametrize(
    ("declaration", "problem"),
    [
        ({"titel": "x"}, "titel: is not known"),
        ({"title": 5}, "title: must be text"),
        ({"description": []}, "description: must be text"),
        ({"inputs": []}, "inputs: must be a table"),
        ({"inputs": {"x": 5}}, "inputs.x: must be a table"),
        (
            {"inputs": {name: {"type": "seed", "node": "3.seed"} for name in ("a", "b")}},
            "inputs.b.node: 3.seed is filled by a already",
        ),
        (declare(type="seed", node=["3.seed", "3.seed"]), "inputs.x.node: 3.seed is filled by x already"),
    ],
)
def test_what_is_wrong_with_a_declaration_is_told(declaration: dict[str, Any], problem: str) -> None:
    assert complaints(declaration) == (problem,)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (5, ": must be a table"),
        ({}, ".node: must be the id of a node of the workflow"),
        ({"node": "9"}, ".node: must be the id of a node of the workflow"),
        ({"node": ["1"]}, ".node: must be the id of a node of the workflow"),
        ({"node": "1", "type": "image"}, ".type: is not known"),
        ({"node": "1", "description": 5}, ".description: must be text"),
    ],
)
def test_what_is_wrong_with_an_output_is_told(table: object, problem: str) -> None:
    assert complaints({"outputs": {"picture": table}}) == (f"outputs.picture{problem}",)


def test_an_outputs_name_is_a_word_and_no_other_nodes_id() -> None:
    workflow = {"a": WORKFLOW["1"], "1x": WORKFLOW["1"]}
    assert parse("t", workflow, {"outputs": {"a": {"node": "a"}}}).outputs == (NamedOutput("a", "a"),)
    assert complaints({"outputs": {"a": {"node": "1x"}}}, workflow) == ("outputs.a: is the id of another node",)
    [problem] = complaints({"outputs": {"1x": {"node": "1x"}}}, workflow)
    assert problem.startswith("outputs.1x: its name must match")


@pytest.mark.parametrize("name", ["", "../x", "a/b", "_x", "x" * 65])
def test_a_templates_name_is_a_word(name: str) -> None:
    assert "its name must match" in complaints({}, name=name)[0]


@pytest.mark.parametrize("name", ["", "1x", "a b", "a/b"])
def test_an_inputs_name_is_a_word(name: str) -> None:
    [problem] = complaints({"inputs": {name: {"type": "seed", "node": "3.seed"}}})
    assert problem.startswith(f"inputs.{name}: its name must match")


def test_a_workflow_that_can_not_run_is_no_template() -> None:
    [problem] = complaints({}, workflow={"nodes": [], "links": []})
    assert "Export (API)" in problem


def test_a_problem_of_the_workflow_names_its_node() -> None:
    with pytest.raises(TemplateError) as caught:
        parse("t", {"4": {"class_type": "X", "inputs": {"a": ["5", 0]}}, "6": {}}, {})
    lost = Problem((), "node 4: The input is linked to a node that does not exist (a: '5')", "4")
    rest = [Problem((), f"node 6: The node has no {what}", "6") for what in ("class_type", "inputs object, which")]
    assert caught.value.problems[0] == lost
    assert [str(found).startswith(str(told)) for found, told in zip(caught.value.problems[1:], rest, strict=True)]


def test_everything_wrong_is_told_at_once() -> None:
    size = {"type": "integer", "node": "3.width", "minimum": 2, "step": 4, "default": 6, "max_length": 1}
    seed = {"type": "seed", "node": ["3.seed", "3.width"], "maximum": "x"}
    told = complaints(
        {
            "titel": "",
            "inputs": {
                "a": {"type": "seed", "node": "1.x", "more": 1},
                "b": {"type": "text", "optional": 1},
                "c": {"type": "choice"},
                "d": size,
                "e": seed,
            },
            "outputs": {"f": {}},
        }
    )
    assert [problem.split(":")[0] for problem in told] == [
        "titel",
        "inputs.a.more",
        "inputs.a.node",
        "inputs.b.type",
        "inputs.b.optional",
        "inputs.b.node",
        "inputs.c.choices",
        "inputs.c.node",
        "inputs.d.max_length",
        "inputs.d.minimum",
        "inputs.d.default",
        "inputs.e.maximum",
        "outputs.f.node",
        "inputs.e.node",
    ]
    told = complaints({"titel": "", **declare(type="integer", node="3.steps", default="x")}, {"4": {}})
    assert [problem.split(":")[0] for problem in told] == ["node 4", "node 4", "titel", "inputs.x.default"]


def test_what_is_right_of_a_broken_template_is_kept() -> None:
    inputs = {
        "wrong": {"type": "number", "node": ["3.cfg", "9.x"]},
        "right": {"type": "seed", "node": "3.seed"},
        "double": {"type": "seed", "node": "3.seed"},
    }
    with pytest.raises(TemplateError) as caught:
        parse("t", WORKFLOW, {"inputs": inputs, "outputs": {"a": {"node": "1"}, "b": {"node": "x"}}})
    rest = caught.value.rest
    assert rest is not None
    assert [hole.name for hole in rest.inputs] == ["right", "double"]
    assert rest.outputs == (NamedOutput("a", "1"),)
    assert "cfg" not in rest.workflow["3"]["inputs"]
    assert rest.workflow["1"] == WORKFLOW["1"]
    with pytest.raises(TemplateError) as caught:
        parse("t", {"4": {}}, {})
    assert caught.value.rest is None


def test_choices_may_be_the_engines() -> None:
    for source in ("models/checkpoints", "engine"):
        found = parse("t", WORKFLOW, declare(type="choice", node="2.mode", choices=source, default="c"))
        assert (found.inputs[0].source, found.inputs[0].choices) == (source, ())
        assert fill(found, {"x": "anything"}, lambda: 0)[1] == {"x": "anything"}, "the engine knows better"
    assert find_folder("models/checkpoints") == "checkpoints"
    for source in ("models/", "models/a/b", "loras", "engine"):
        assert find_folder(source) is None
        assert source == "engine" or complaints(declare(type="choice", node="2.mode", choices=source))


tables = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(TYPES),
        "node": st.sampled_from(["1.image", "2.text", "3.seed", ["3.width", "3.height"], "2.linked", "9.x"]) | values,
        "default": st.sampled_from(["a", 5, 0.5, True]) | values,
        "optional": st.booleans() | values,
        "minimum": st.integers() | values,
        "maximum": st.integers() | values,
        "step": st.integers(-1, 9) | values,
        "choices": st.sampled_from([["a", "b"], "engine", "models/vae"]) | values,
        "max_length": st.integers() | values,
        "example": st.text() | values,
        "description": values,
    },
)
declarations = st.fixed_dictionaries(
    {},
    optional={
        "inputs": st.dictionaries(st.sampled_from(["a", "b", "1"]), tables | values) | values,
        "outputs": st.dictionaries(st.sampled_from(["a", "1"]), st.just({"node": "1"}) | values) | values,
        "title": values,
    },
)


@given(st.just(WORKFLOW) | drafts, declarations)
def test_any_declaration_is_a_template_or_told_wrong(workflow: object, declaration: dict[str, Any]) -> None:
    try:
        found = parse("any", workflow, declaration)
    except TemplateError:
        return
    json.dumps(schema(found))
    samples = dict.fromkeys(("string", "image", "video", "audio"), "a")
    supplied = {hole.name: samples[hole.type] for hole in found.inputs if hole.required and hole.type in samples}
    if all(hole.name in supplied for hole in found.inputs if hole.required):
        assert check(fill(found, supplied, lambda: 12345678901234567890)[0])


# Filling -----------------------------------------------------------------------------------------------------------


def test_inputs_go_to_their_places_and_the_rest_is_supplied() -> None:
    workflow, used = fill(template(), GIVEN | {"steps": 5.0, "size": 32}, lambda: 42)
    assert workflow["2"]["inputs"] == {"text": "a cat", "flag": True, "mode": "b", "a.b": 1, "linked": ["1", 0]}
    assert workflow["3"]["inputs"] == {"seed": 42, "steps": 5, "cfg": 7, "width": 32, "height": 32}
    assert isinstance(workflow["3"]["inputs"]["steps"], int)
    assert workflow["3.5"]["inputs"] == {"seed": 42}
    assert workflow["1"]["inputs"] == {"image": "cat.png"}
    assert used == {"prompt": "a cat", "flag": True, "mode": "b", "steps": 5, "cfg": 7, "size": 32, "seed": 42}


def test_an_optional_input_leaves_the_workflows_value() -> None:
    workflow, used = fill(template(), GIVEN, lambda: 0)
    assert workflow["3"]["inputs"]["steps"] == 20
    assert "steps" not in used


def test_a_given_seed_is_not_drawn() -> None:
    def draw() -> int:
        raise AssertionError

    assert fill(template(), GIVEN | {"seed": 7}, draw)[1]["seed"] == 7


def test_outputs_are_asked_for_by_name() -> None:
    plain = parse("t", WORKFLOW, {})
    assert (plain.select(None), plain.select(["2", "1"])) == (None, ("2", "1"))
    named = parse("t", WORKFLOW, {"outputs": {"picture": {"node": "1"}, "mask": {"node": "2", "description": "m"}}})
    assert named.outputs == (NamedOutput("picture", "1"), NamedOutput("mask", "2", "m"))
    assert named.select(None) == ("1", "2")
    assert named.select(["mask", "2", "3"]) == ("2", "3")


def test_outputs_that_there_are_not_are_told_with_those_that_there_are() -> None:
    plain = parse("t", WORKFLOW, {})
    named = parse("t", WORKFLOW, {"outputs": {"picture": {"node": "1"}, "mask": {"node": "2"}}})
    with pytest.raises(InvalidWorkflow, match="it has picture, mask") as caught:
        named.select(["mask", "2", "no", "none"])
    assert list(caught.value.extensions["node_errors"]) == ["no", "none"]
    assert plain.select(["no"]) == ("no",), "whether it is a node is looked at later"


@pytest.mark.parametrize("kind", ["image", "video", "audio"])
def test_media_are_marked_whatever_their_node(kind: str) -> None:
    found = parse("t", WORKFLOW, declare(type=kind, node="2.text"))
    assert found.media == {("2", "text")}
    assert schema(found)["properties"]["x"]["x-type"] == kind


@pytest.mark.parametrize("value", ["cat.png", "data:image/png;base64,AAAA", {"part": "photo"}])
def test_media_take_every_form(value: object) -> None:
    workflow, used = fill(template(), GIVEN | {"image": value}, lambda: 0)
    assert workflow["1"]["inputs"]["image"] == value
    assert "image" not in used


def test_everything_wrong_with_the_inputs_is_told_at_once() -> None:
    wrong = {"flag": "yes", "mode": "c", "steps": 51, "cfg": 0.25, "size": 1.5, "seed": -1, "image": 5, "a/b~c": 1}
    assert problems(wrong) == {
        "/inputs/prompt": "is required",
        "/inputs/flag": "must be true or false",
        "/inputs/mode": "must be one of a, b",
        "/inputs/steps": "must be at most 50",
        "/inputs/cfg": "must be at least 0.5",
        "/inputs/size": "must be a whole number",
        "/inputs/seed": "must be at least 0",
        "/inputs/image": 'must be a file name, base64, a data: URI, a URL or {"part": NAME}',
        "/inputs/a~1b~0c": f"is no input of this template; there are {', '.join(DECLARATION['inputs'])}",
    }


def test_a_value_is_a_multiple_of_the_step() -> None:
    assert fill(template(), {**GIVEN, "size": 72.0}, lambda: 0)[1]["size"] == 72
    assert problems({**GIVEN, "size": 131}) == {"/inputs/size": "must be a multiple of 8"}


def test_what_was_meant_is_guessed_for_the_first_inputs_that_are_unknown() -> None:
    assert problems({**GIVEN, "promt": "x"}) == {"/inputs/promt": "is no input of this template; did you mean prompt?"}
    found = problems({**GIVEN, **{f"step{number}": 1 for number in range(MAX_GUESSED + 1)}})
    assert [detail.endswith("; did you mean steps?") for detail in found.values()] == [True] * MAX_GUESSED + [False]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", 5),
        ("prompt", None),
        ("prompt", "abcdef"),
        ("steps", True),
        ("steps", "5"),
        ("steps", float("inf")),
        ("cfg", float("nan")),
        ("cfg", False),
        ("flag", 1),
        ("mode", ["a"]),
        ("seed", None),
        ("seed", MAX_SEED + 1),
        ("seed", 0.5),
        ("image", ""),
        ("image", {"part": 5}),
        ("image", {"part": "x", "more": 1}),
    ],
)
def test_values_of_the_wrong_kind_are_refused(name: str, value: object) -> None:
    assert list(problems(GIVEN | {name: value})) == [f"/inputs/{name}"]


def test_a_large_integer_is_a_number() -> None:
    assert fill(template(), GIVEN | {"cfg": 10**400}, lambda: 0)[1]["cfg"] == 10**400


@given(st.integers(0, 2**80), st.integers(0, 100), st.integers(0, 100))
def test_a_drawn_seed_keeps_its_limits(drawn: int, lowest: int, span: int) -> None:
    declaration = declare(type="seed", node="3.seed", minimum=lowest, maximum=lowest + span)
    _, used = fill(parse("t", WORKFLOW, declaration), {}, lambda: drawn)
    assert lowest <= used["x"] <= lowest + span


@given(st.dictionaries(st.sampled_from([*DECLARATION["inputs"], "more"]) | st.text(), values))
def test_any_inputs_fill_or_are_told_wrong(inputs: dict[str, Any]) -> None:
    found = template()
    before = copy.deepcopy(found)
    try:
        workflow, used = fill(found, inputs, lambda: 1)
    except InvalidRequest:
        workflow = found.workflow
    else:
        assert used["prompt"] == inputs["prompt"]
    assert check(workflow) is workflow
    assert found == before


# Schemas -----------------------------------------------------------------------------------------------------------


def test_the_schema_of_the_inputs() -> None:
    described = schema(template())
    places = {name: about.pop("x-node") for name, about in described["properties"].items()}
    assert places == {
        name: [table["node"]] if isinstance(table["node"], str) else table["node"]
        for name, table in DECLARATION["inputs"].items()
    }
    assert described == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "required": ["prompt", "image"],
        "properties": {
            "prompt": {
                "type": "string",
                "x-type": "string",
                "maxLength": 5,
                "description": "Said.",
                "examples": ["a dog"],
            },
            "flag": {"type": "boolean", "x-type": "boolean", "default": True},
            "mode": {"type": "string", "x-type": "choice", "enum": ["a", "b"], "default": "b"},
            "steps": {"type": "integer", "x-type": "integer", "minimum": 1, "maximum": 50},
            "cfg": {"type": "number", "x-type": "number", "minimum": 0.5, "default": 7},
            "size": {"type": "integer", "x-type": "integer", "multipleOf": 8, "default": 64},
            "seed": {"type": "integer", "x-type": "seed", "minimum": 0, "maximum": MAX_SEED},
            "image": {
                "x-type": "image",
                "anyOf": [
                    {"type": "string", "minLength": 1},
                    {
                        "type": "object",
                        "properties": {"part": {"type": "string"}},
                        "required": ["part"],
                        "additionalProperties": False,
                    },
                ],
            },
            "dotted": {"type": "integer", "x-type": "integer"},
        },
    }


# What ships --------------------------------------------------------------------------------------------------------


def shipped(name: str) -> Template:
    """A template of the repository."""
    workflow = json.loads((SHIPPED / f"{name}.json").read_text())
    return parse(name, workflow, tomllib.loads((SHIPPED / f"{name}.toml").read_text()))


@pytest.mark.parametrize(
    ("name", "required"),
    [
        *((name, {"prompt": "a cat"}) for name in ("txt2img", "sd15", "sdxl", "sd35", "flux")),
        ("img2img", {"prompt": "a cat", "image": {"part": "photo"}}),
        ("inpaint", {"prompt": "a cat", "image": {"part": "photo"}, "mask": {"part": "mask"}}),
        ("upscale", {"image": {"part": "photo"}}),
    ],
)
def test_shipped_templates_need_little(name: str, required: dict[str, Any]) -> None:
    found = shipped(name)
    workflow, used = fill(found, required, lambda: 99)
    assert {hole.name for hole in found.inputs if hole.required} == required.keys()
    assert all(hole.description for hole in found.inputs)
    assert used["seed"] == workflow["3"]["inputs"]["seed"] == 99
    assert workflow["6"]["inputs"]["text"] == required.get("prompt", "")
    defaults = {hole.name: hole.default for hole in found.inputs if hole.default is not None}
    assert fill(found, required | defaults, lambda: 99) == (workflow, used)
    assert check(workflow)


def test_every_shipped_workflow_is_a_template() -> None:
    assert {path.stem for path in SHIPPED.glob("*.json")} == {path.stem for path in SHIPPED.glob("*.toml")}
    for path in SHIPPED.glob("*.json"):
        shipped(path.stem)


@pytest.mark.parametrize(
    ("name", "most", "step"),
    [
        *((name, 1024, 8) for name in ("txt2img", "img2img", "inpaint", "upscale")),
        *((name, 4096, step) for name, step in {"sd15": 8, "sdxl": 8, "sd35": 16, "flux": 16}.items()),
    ],
)
def test_shipped_templates_take_sizes_that_their_models_can_draw(name: str, most: int, step: int) -> None:
    sizes = [hole for hole in shipped(name).inputs if hole.name in ("width", "height")]
    assert [(hole.maximum, hole.step) for hole in sizes] == [(most, step)] * 2
