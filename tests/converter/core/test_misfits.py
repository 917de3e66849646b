"""Misfits: declarations are held against what the engine says of its nodes, and only where that is certain."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.catalog import Catalog, Kind, Port, read_kind
from converter.core.misfits import find_misfits
from converter.core.offers import offer
from converter.core.template_toml import parse
from tests.converter.core.documents import values

INPUTS = ("whole", "real", "flag", "text", "mode", "file", "hidden_list", "own", "unknown")
WORKFLOW: dict[str, Any] = {
    "1": {"class_type": "Node", "inputs": dict.fromkeys(INPUTS, 0) | {"mode": "a"}},
    "2": {"class_type": "Save", "inputs": {"images": ["1", 0]}},
}
NODE = Kind(
    {
        "whole": Port("INT", minimum=1, maximum=100),
        "real": Port("FLOAT", minimum=0.5),
        "flag": Port("BOOLEAN"),
        "text": Port("STRING"),
        "mode": Port("COMBO", ("a", "b")),
        "file": Port("COMBO", media="image"),
        "hidden_list": Port("COMBO"),
        "own": Port("COMFY_DYNAMICCOMBO_V3", minimum=1, maximum=2),
    }
)
CATALOG = Catalog({"Node": NODE, "Save": Kind({}, is_output=True)}, {"loras": (), "lora": None})

Told = list[tuple[str, bool]]


def judge(declaration: dict[str, Any], catalog: Catalog = CATALOG) -> Told:
    """What is told, and whether it is fatal; the offer agrees."""
    template = parse("t", WORKFLOW, declaration)
    found = [(str(misfit.problem), misfit.fatal) for misfit in find_misfits(template, catalog)]
    offered = offer(template, catalog)
    fatal = [problem for problem, fatal in found if fatal]
    assert (offered.available, offered.reason) == (not fatal, ", ".join(fatal))
    return found


def choice(choices: object, **more: Any) -> dict[str, Any]:
    return {"type": "choice", "choices": choices, **more}


@pytest.mark.parametrize(
    ("name", "table", "told"),
    [
        ("whole", {"type": "string"}, [("type: 1.whole takes a whole number, no string", True)]),
        ("whole", {"type": "image"}, [("type: 1.whole takes a whole number, no image", True)]),
        ("real", {"type": "audio", "optional": True}, [("type: 1.real takes a number, no audio", False)]),
        ("real", {"type": "string", "default": "x"}, [("type: 1.real takes a number, no string", True)]),
        ("real", {"type": "string", "default": "1.5"}, [("type: 1.real takes a number, no string", False)]),
        ("flag", {"type": "string"}, [("type: 1.flag takes true or false, no string", False)]),
        ("mode", {"type": "integer"}, [("type: 1.mode takes one of a list of texts, no integer", True)]),
        ("mode", {"type": "seed"}, [("type: 1.mode takes one of a list of texts, no seed", True)]),
        (
            "mode",
            {"type": "boolean", "optional": True},
            [("type: 1.mode takes one of a list of texts, no boolean", False)],
        ),
        ("file", {"type": "number"}, [("type: 1.file takes one of a list of texts, no number", True)]),
        ("text", choice("engine"), [("choices: 1.text takes text, and the engine has no list for it", False)]),
        (
            "whole",
            choice("engine"),
            [("choices: 1.whole takes a whole number, and the engine has no list for it", True)],
        ),
        ("whole", choice("models/loras"), [("choices: 1.whole takes a whole number, no file's name", True)]),
        ("whole", choice(["8", "big"]), [("choices: 1.whole takes a whole number, which big is not", False)]),
        (
            "whole",
            choice(["8", "big"], default="big"),
            [("choices: 1.whole takes a whole number, which big is not", True)],
        ),
        ("text", choice("models/lora"), [("choices: the engine has no folder of models lora", False)]),
        ("whole", {"type": "integer", "minimum": 0}, [("minimum: must be at least 1, by the engine's 1.whole", False)]),
        (
            "whole",
            {"type": "number", "maximum": 101},
            [("maximum: must be at most 100, by the engine's 1.whole", False)],
        ),
        (
            "whole",
            {"type": "integer", "default": 101},
            [("default: must be at most 100, by the engine's 1.whole", True)],
        ),
        ("real", {"type": "number", "default": 0}, [("default: must be at least 0.5, by the engine's 1.real", True)]),
        (
            "whole",
            {"type": "seed", "minimum": 1},
            [("maximum: must be at most 100, by the engine's 1.whole", False)],
        ),
    ],
)
def test_what_contradicts_the_engine_is_told(name: str, table: dict[str, Any], told: Told) -> None:
    declaration = {"inputs": {"x": {"node": f"1.{name}", **table}}}
    assert judge(declaration) == [(f"inputs.x.{detail}", fatal) for detail, fatal in told]
    assert not list(find_misfits(parse("t", WORKFLOW, declaration), Catalog())), "of an engine that is not known"


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("whole", {"type": "integer", "minimum": 1, "maximum": 100}),
        ("whole", {"type": "integer"}),
        ("whole", choice(["8", "16"])),
        ("whole", {"type": "boolean"}),
        ("real", {"type": "number", "minimum": 1, "maximum": 10**9}),
        ("flag", {"type": "boolean"}),
        ("flag", choice(["yes", "no"])),
        ("text", {"type": "integer", "minimum": -5}),
        ("text", {"type": "image"}),
        ("text", choice("models/loras")),
        ("text", choice("models/nobody_asked")),
        ("mode", {"type": "string"}),
        ("mode", choice("engine")),
        ("file", {"type": "image"}),
        ("hidden_list", {"type": "integer"}),
        ("hidden_list", choice("engine")),
        *(
            (name, table)
            for name in ("own", "unknown")
            for table in ({"type": "integer", "maximum": 9}, choice("engine"))
        ),
        *((name, {"type": "string"}) for name in ("own", "unknown")),
    ],
)
def test_what_may_be_right_is_left_alone(name: str, table: dict[str, Any]) -> None:
    assert not judge({"inputs": {"x": {"node": f"1.{name}", **table}}})


def test_each_place_is_compared_and_the_list_is_that_of_the_first() -> None:
    assert not judge({"inputs": {"x": choice("engine", node=["1.mode", "1.text"])}})
    told = judge({"inputs": {"x": {"type": "integer", "node": ["1.text", "1.whole"], "maximum": 500}}})
    assert told == [("inputs.x.maximum: must be at most 100, by the engine's 1.whole", False)]


def test_outputs_are_of_output_nodes() -> None:
    declaration = {"outputs": {"a": {"node": "1"}, "b": {"node": "2"}}}
    assert judge(declaration) == [("outputs.a.node: Node is no output node of the engine", True)]
    for kinds in ({}, {"Node": None}):
        assert not list(find_misfits(parse("t", WORKFLOW, declaration), Catalog(kinds)))


def test_a_workflow_has_an_output_node() -> None:
    template = parse("t", WORKFLOW, {})
    for save, told in ((Kind({}), 1), (Kind({}, is_output=True), 0), (None, 0)):
        assert len(list(find_misfits(template, Catalog({"Node": NODE, "Save": save})))) == told
    found = offer(template, Catalog({"Node": NODE, "Save": Kind({})}))
    assert found.reason == "the workflow has no output node, so the engine would run nothing"


@given(st.fixed_dictionaries(dict.fromkeys(INPUTS, values)), st.sampled_from(["integer", "string", "seed"]))
def test_whatever_an_engine_says_can_be_compared(specs: dict[str, Any], kind: str) -> None:
    tables = {name: {"type": kind, "node": f"1.{name}"} for name in INPUTS}
    template = parse("t", WORKFLOW, {"inputs": tables})
    list(find_misfits(template, Catalog({"Node": read_kind({"input": {"required": specs}})})))
