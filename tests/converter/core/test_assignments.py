"""What is typed after `--set` becomes a value of the input's type, or is refused with a reason."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.assignments import Upload, Wrong, read_input, read_place, split
from converter.core.template import object_to, schema
from converter.core.template_toml import parse

SCHEMA = {
    "properties": {
        "prompt": {"type": "string", "x-type": "string"},
        "steps": {"type": "integer", "x-type": "integer"},
        "cfg": {"type": "number"},
        "tiled": {"type": "boolean"},
        "photo": {"anyOf": [], "x-type": "image"},
        "later": {"type": "array"},
    }
}
GRAPH: dict[str, Any] = {
    "1": {"inputs": {"text": "a", "n": 1, "x": 0.5, "flag": True, "link": ["2", 0], "a.b": "c"}},
    "2": {},
}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("prompt", "a = b", "a = b"),
        ("prompt", "@home", "@home"),
        ("prompt", "", ""),
        ("steps", "20", 20),
        ("steps", "2e1", 20),
        ("steps", "18446744073709551615", 2**64 - 1),
        ("cfg", ".5", 0.5),
        ("cfg", "7", 7),
        ("tiled", "true", True),
        ("tiled", "No", False),
        ("photo", "@a b.png", Upload("a b.png")),
        ("photo", "there.png", "there.png"),
        ("photo", "https://example.com/@a.png", "https://example.com/@a.png"),
        ("later", "[1]", [1]),
    ],
)
def test_a_value_has_the_type_of_its_input(name: str, text: str, value: object) -> None:
    found = read_input(SCHEMA, name, text)
    assert (found, isinstance(found, bool)) == (value, isinstance(value, bool))


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("steps", "x", "must be a whole number"),
        ("steps", "1.5", "must be a whole number"),
        ("steps", "inf", "must be a whole number"),
        ("cfg", "nan", "must be a number"),
        ("cfg", "1e999", "must be a number"),
        ("cfg", "", "must be a number"),
        ("tiled", "maybe", "must be true or false"),
        ("later", "NaN", "must be JSON"),
        ("later", "[" * 100_000, "must be JSON"),
        ("promt", "x", "there is no such input; did you mean prompt?"),
        ("zzz", "x", "there is no such input; there are prompt, steps, cfg, tiled, photo, later"),
    ],
)
def test_what_is_no_value_is_refused(name: str, text: str, reason: str) -> None:
    with pytest.raises(Wrong) as caught:
        read_input(SCHEMA, name, text)
    assert str(caught.value) == reason


@pytest.mark.parametrize("inputs", [{}, {"properties": []}, {"properties": {"prompt": 5}}])
def test_a_schema_of_another_shape_has_no_inputs(inputs: dict[str, Any]) -> None:
    with pytest.raises(Wrong, match="there"):
        read_input(inputs, "prompt", "x")


@pytest.mark.parametrize(
    ("place", "text", "value"),
    [
        ("1.text", "b", "b"),
        ("1.text", "@b.png", Upload("b.png")),
        ("1.text", "@@b", "@b"),
        ("1.n", "2", 2),
        ("1.x", "2", 2.0),
        ("1.flag", "off", False),
        ("1.link", '["2", 1]', ["2", 1]),
        ("1.a.b", "d", "d"),
    ],
)
def test_a_place_in_a_workflow_keeps_its_type(place: str, text: str, value: object) -> None:
    node_id, _, key = place.partition(".")
    assert read_place(GRAPH, place, text) == ((node_id, key), value)


def test_a_place_that_is_none_is_told_with_those_that_are_near() -> None:
    with pytest.raises(Wrong, match=r"did you mean 1\.text\?"):
        read_place(GRAPH, "1.txt", "a")
    with pytest.raises(Wrong, match="there are no inputs"):
        read_place({"2": {"inputs": None}}, "2.x", "a")


@pytest.mark.parametrize(("text", "found"), [("a=b", ("a", "b")), ("a=", ("a", "")), ("a==b", ("a", "=b"))])
def test_a_name_and_a_value_are_told_apart(text: str, found: tuple[str, str]) -> None:
    assert split(text) == found


@pytest.mark.parametrize("text", ["", "a", "=b"])
def test_a_word_without_a_name_or_a_sign_is_refused(text: str) -> None:
    with pytest.raises(Wrong, match="must be NAME=VALUE"):
        split(text)


@given(st.sampled_from(["string", "integer", "number", "boolean", "image", "video", "seed"]), st.text())
def test_whatever_is_read_is_what_a_template_takes(kind: str, text: str) -> None:
    graph = {"1": {"class_type": "A", "inputs": {"x": 1}}}
    template = parse("t", graph, {"inputs": {"x": {"type": kind, "node": "1.x"}}})
    try:
        value = read_input(schema(template), "x", text)
    except Wrong:
        return
    unlimited = kind in ("seed", "image", "video")  # a seed has limits, and a file's name has a character at least
    assert isinstance(value, Upload) or unlimited or object_to(template.inputs[0], value) is None
    assert not isinstance(value, float) or math.isfinite(value)
