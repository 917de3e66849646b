"""A template: a workflow with typed holes, filled from what a caller gives.

For: the types of inputs, filling the holes, and the JSON Schema of the inputs. Leaves reading declarations to
`template_toml`, what the engine has to `catalog`, and the staging of media to others.

Invariant: what `schema` calls valid, `fill` takes. The workflow of a template is never changed.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from converter.core.guesses import suggest
from converter.core.workflow import Graph, explain, refuse, replace_inputs
from converter.errors import InvalidRequest

Place = tuple[str, str]
"""Node id and input name."""

MAX_SEED = 2**64 - 1
"""The largest seed of ComfyUI's samplers."""

MAX_GUESSED = 8
"""Unknown inputs of one request for which is guessed what was meant."""

MEDIA = ("image", "video", "audio")
"""The types whose values are files."""


@dataclass(frozen=True, slots=True)
class Input:
    """A hole: what goes in, and the places where it goes. None is no default; a seed has both limits.

    step: what a value is a multiple of, and `minimum` with it.
    source: where the engine is asked for the choices, "" where they are declared. Those of an engine are shown to
    callers and left to it to enforce, since it may have got others meanwhile.
    """

    name: str
    type: str
    places: tuple[Place, ...]
    description: str = ""
    default: Any = None
    optional: bool = False
    minimum: float | None = None
    maximum: float | None = None
    step: int | None = None
    choices: tuple[str, ...] = ()
    source: str = ""
    max_length: int | None = None
    example: str | None = None

    @property
    def required(self) -> bool:
        """Whether a caller has to give it; a missing seed is drawn."""
        return self.default is None and not self.optional and self.type != "seed"


@dataclass(frozen=True, slots=True)
class NamedOutput:
    """A node whose outputs have a name."""

    name: str
    node_id: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A workflow, checked, its inputs in the order of the declaration, and the outputs that have names."""

    name: str
    title: str
    description: str
    workflow: Graph
    inputs: tuple[Input, ...]
    outputs: tuple[NamedOutput, ...] = ()

    @property
    def media(self) -> frozenset[Place]:
        """The places that name media whatever their class, for `media.media_inputs`."""
        return frozenset(place for hole in self.inputs if hole.type in MEDIA for place in hole.places)

    def select(self, asked: list[str] | None) -> tuple[str, ...] | None:
        """The nodes that a caller wants, who may call them by name: all that have names if nothing is asked.

        None is whatever the workflow makes. What is no name counts as a node's id. Where outputs have names, raises
        InvalidWorkflow for what is neither.
        """
        nodes = {output.name: output.node_id for output in self.outputs}
        if asked is None:
            return tuple(nodes.values()) or None
        if nodes and (unknown := [name for name in asked if name not in nodes and name not in self.workflow]):
            error = explain("unknown_node", f"The template has no output of this name; it has {', '.join(nodes)}")
            entry = {"class_type": None, "errors": [error]}
            raise refuse("The outputs asked for can't be had", dict.fromkeys(unknown, entry))
        return tuple(dict.fromkeys(nodes.get(name, name) for name in asked))


# Types -------------------------------------------------------------------------------------------------------------


def is_number(value: object) -> bool:
    """Whether it is a finite number; a boolean is none."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (isinstance(value, int) or math.isfinite(value))
    )


def is_whole(value: Any) -> bool:
    """64.0 is an integer (JSON Schema 2020-12 section 6.1.1)."""
    return is_number(value) and value == int(value)


def is_text(value: object) -> bool:
    """Whether it is text."""
    return isinstance(value, str)


def _is_media(value: object) -> bool:
    if isinstance(value, dict):
        return value.keys() == {"part"} and isinstance(value["part"], str)
    return isinstance(value, str) and value != ""


@dataclass(frozen=True, slots=True)
class Type:
    """A type of inputs: which values it takes, in words and as a schema, and the keys that limit them."""

    accepts: Callable[[object], bool]
    wanted: str
    schema: Mapping[str, Any]
    limits: frozenset[str] = frozenset()


_MEDIA_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {
            "type": "object",
            "properties": {"part": {"type": "string"}},
            "required": ["part"],
            "additionalProperties": False,
        },
    ]
}

_RANGE = frozenset({"minimum", "maximum"})

TYPES: Mapping[str, Type] = {
    "string": Type(is_text, "text", {"type": "string"}, frozenset({"max_length", "example"})),
    "integer": Type(is_whole, "a whole number", {"type": "integer"}, _RANGE | {"step"}),
    "number": Type(is_number, "a number", {"type": "number"}, _RANGE),
    "boolean": Type(lambda value: isinstance(value, bool), "true or false", {"type": "boolean"}),
    "choice": Type(is_text, "text", {"type": "string"}, frozenset({"choices"})),
    **dict.fromkeys(MEDIA, Type(_is_media, 'a file name, base64, a data: URI, a URL or {"part": NAME}', _MEDIA_SCHEMA)),
    "seed": Type(is_whole, "a whole number", {"type": "integer"}, _RANGE),
}


def object_to(hole: Input, value: Any) -> str | None:
    """What is wrong with a value for a hole, or None."""
    expected = TYPES[hole.type]
    if not expected.accepts(value):
        return f"must be {expected.wanted}"
    if hole.minimum is not None and value < hole.minimum:
        return f"must be at least {hole.minimum}"
    if hole.maximum is not None and value > hole.maximum:
        return f"must be at most {hole.maximum}"
    if hole.step is not None and int(value) % hole.step:
        return f"must be a multiple of {hole.step}"
    if hole.max_length is not None and len(value) > hole.max_length:
        return f"must have at most {hole.max_length} characters"
    if hole.choices and not hole.source and value not in hole.choices:
        return f"must be one of {', '.join(hole.choices)}"
    return None


# Use ---------------------------------------------------------------------------------------------------------------


def fill(template: Template, inputs: Mapping[str, Any], draw_seed: Callable[[], int]) -> tuple[Graph, dict[str, Any]]:
    """The workflow with the caller's inputs in place, and the values used, by name.

    A missing seed is drawn (`draw_seed` gives any non-negative integer) and is among the values; media, and what was
    left to the workflow, are not. Raises InvalidRequest, which lists what `examine` finds.
    """
    problems = examine(template, inputs)
    if problems:
        raise InvalidRequest(problems)
    used: dict[str, Any] = {}
    values: dict[Place, Any] = {}
    for hole in template.inputs:
        if hole.name not in inputs and hole.default is None and hole.type != "seed":
            continue
        value = inputs[hole.name] if hole.name in inputs else _supply(hole, draw_seed)
        value = int(value) if hole.type in ("integer", "seed") else value
        values.update(dict.fromkeys(hole.places, value))
        if hole.type not in MEDIA:
            used[hole.name] = value
    return replace_inputs(template.workflow, values), used


def examine(template: Template, inputs: Mapping[str, object]) -> list[Mapping[str, str]]:
    """Every input that is wrong, missing or unknown, each with its JSON pointer within the request."""
    problems = []
    for hole in template.inputs:
        given = hole.name in inputs
        objection = object_to(hole, inputs[hole.name]) if given else "is required" if hole.required else None
        if objection is not None:
            problems.append(_problem(hole.name, objection))
    known = [hole.name for hole in template.inputs]
    strays = [name for name in inputs if name not in known]
    for number, name in enumerate(strays):
        hint = suggest(name, known) if number < MAX_GUESSED else ""
        problems.append(_problem(name, f"is no input of this template{hint}"))
    return problems


def _supply(hole: Input, draw_seed: Callable[[], int]) -> Any:
    if hole.type != "seed":
        return hole.default
    lowest, highest = int(hole.minimum or 0), int(hole.maximum or 0)
    return lowest + draw_seed() % (highest - lowest + 1)


def _problem(name: str, detail: str) -> Mapping[str, str]:
    """With a JSON pointer (RFC 6901 section 3)."""
    token = name.replace("~", "~0").replace("/", "~1")
    return {"pointer": f"/inputs/{token}", "detail": detail}


def schema(template: Template) -> dict[str, Any]:
    """The JSON Schema (2020-12) of `inputs`; `x-type` is the declared type of each, `x-node` where it goes."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {hole.name: _describe(hole) for hole in template.inputs},
        "required": [hole.name for hole in template.inputs if hole.required],
        "additionalProperties": False,
    }


def _describe(hole: Input) -> dict[str, Any]:
    optional = {
        "description": hole.description or None,
        "default": hole.default,
        "minimum": hole.minimum,
        "maximum": hole.maximum,
        "multipleOf": hole.step,
        "maxLength": hole.max_length,
        "enum": list(hole.choices) or None,
        "examples": None if hole.example is None else [hole.example],
    }
    places = [".".join(place) for place in hole.places]
    about = {**TYPES[hole.type].schema, "x-type": hole.type, "x-node": places}
    return {**about, **{key: value for key, value in optional.items() if value is not None}}
