"""A template: a workflow with typed holes, as `workflows/NAME.json` and `NAME.toml` declare it.

For: reading a declaration, filling the holes from a caller's inputs, and the JSON Schema of those inputs. Leaves
reading the files, and the staging of media, to others.

Invariant: what `parse` accepts, `fill` can fill; what `schema` calls valid, `fill` takes. The workflow of a template is
never changed.

    title = "Text to image"
    description = "..."

    [inputs.width]
    type = "integer"            # string, integer, number, boolean, choice, image or seed
    node = "5.width"            # node.input, or a list of them
    default = 512               # without it the input is required, or with `optional = true` the workflow's value stays
    minimum = 16                # integer, number and seed; choice has `choices`, string `max_length`
    maximum = 2048
    description = "Width of the picture in pixels."
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from converter.core.workflow import Graph, check, is_link, replace_inputs
from converter.errors import InvalidRequest, InvalidWorkflow

Place = tuple[str, str]
"""Node id and input name."""

MAX_SEED = 2**64 - 1
"""The largest seed of ComfyUI's samplers."""


class TemplateError(Exception):
    """A template that can't be used; `problems` are sentences, one for each thing that is wrong."""

    def __init__(self, name: str, problems: list[str]) -> None:
        super().__init__(f"template {name}: {'; '.join(problems)}")
        self.name = name
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Input:
    """A hole: what goes in, and the places where it goes. None is no default; a seed has both limits."""

    name: str
    type: str
    places: tuple[Place, ...]
    description: str = ""
    default: Any = None
    optional: bool = False
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    max_length: int | None = None

    @property
    def required(self) -> bool:
        """Whether a caller has to give it; a missing seed is drawn."""
        return self.default is None and not self.optional and self.type != "seed"


@dataclass(frozen=True, slots=True)
class Template:
    """A workflow, checked, and its inputs in the order of the declaration."""

    name: str
    title: str
    description: str
    workflow: Graph
    inputs: tuple[Input, ...]

    @property
    def media(self) -> frozenset[Place]:
        """The places that name media whatever their class, for `media.media_inputs`."""
        return frozenset(place for hole in self.inputs if hole.type == "image" for place in hole.places)


# Types -------------------------------------------------------------------------------------------------------------


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (isinstance(value, int) or math.isfinite(value))
    )


def _is_whole(value: Any) -> bool:
    """64.0 is an integer (JSON Schema 2020-12 section 6.1.1)."""
    return _is_number(value) and value == int(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and value != [] and all(map(_is_text, value)) and len(set(value)) == len(value)


def _is_media(value: object) -> bool:
    if isinstance(value, dict):
        return value.keys() == {"part"} and isinstance(value["part"], str)
    return isinstance(value, str) and value != ""


@dataclass(frozen=True, slots=True)
class _Type:
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

_TYPES: Mapping[str, _Type] = {
    "string": _Type(_is_text, "text", {"type": "string"}, frozenset({"max_length"})),
    "integer": _Type(_is_whole, "a whole number", {"type": "integer"}, _RANGE),
    "number": _Type(_is_number, "a number", {"type": "number"}, _RANGE),
    "boolean": _Type(lambda value: isinstance(value, bool), "true or false", {"type": "boolean"}),
    "choice": _Type(_is_text, "text", {"type": "string"}, frozenset({"choices"})),
    "image": _Type(_is_media, 'a file name, base64, a data: URI or {"part": NAME}', _MEDIA_SCHEMA),
    "seed": _Type(_is_whole, "a whole number", {"type": "integer"}, _RANGE),
}


def _object_to(hole: Input, value: Any) -> str | None:
    """What is wrong with a value, or None."""
    expected = _TYPES[hole.type]
    if not expected.accepts(value):
        return f"must be {expected.wanted}"
    if hole.minimum is not None and value < hole.minimum:
        return f"must be at least {hole.minimum}"
    if hole.maximum is not None and value > hole.maximum:
        return f"must be at most {hole.maximum}"
    if hole.max_length is not None and len(value) > hole.max_length:
        return f"must have at most {hole.max_length} characters"
    if hole.choices and value not in hole.choices:
        return f"must be one of {', '.join(hole.choices)}"
    return None


# Use ---------------------------------------------------------------------------------------------------------------


def fill(template: Template, inputs: object, draw_seed: Callable[[], int]) -> tuple[Graph, dict[str, Any]]:
    """The workflow with the caller's inputs in place, and the values used, by name.

    A missing seed is drawn (`draw_seed` gives any non-negative integer) and is among the values; media, and what was
    left to the workflow, are not. Raises InvalidRequest, which lists every input that is wrong, missing or unknown.
    """
    if not isinstance(inputs, Mapping):
        raise InvalidRequest([{"pointer": "/inputs", "detail": "must be an object"}])
    problems: list[dict[str, str]] = []
    used: dict[str, Any] = {}
    values: dict[Place, Any] = {}
    for hole in template.inputs:
        if hole.name not in inputs and hole.required:
            problems.append(_problem(hole.name, "is required"))
            continue
        if hole.name not in inputs and hole.default is None and hole.type != "seed":
            continue
        value = inputs[hole.name] if hole.name in inputs else _supply(hole, draw_seed)
        objection = _object_to(hole, value)
        if objection is not None:
            problems.append(_problem(hole.name, objection))
            continue
        value = int(value) if hole.type in ("integer", "seed") else value
        values.update(dict.fromkeys(hole.places, value))
        if hole.type != "image":
            used[hole.name] = value
    known = {hole.name for hole in template.inputs}
    problems += [_problem(name, "is no input of this template") for name in inputs if name not in known]
    if problems:
        raise InvalidRequest(problems)
    return replace_inputs(template.workflow, values), used


def _supply(hole: Input, draw_seed: Callable[[], int]) -> Any:
    if hole.type != "seed":
        return hole.default
    lowest, highest = int(hole.minimum or 0), int(hole.maximum or 0)
    return lowest + draw_seed() % (highest - lowest + 1)


def _problem(name: object, detail: str) -> dict[str, str]:
    """With a JSON pointer (RFC 6901 section 3)."""
    token = str(name).replace("~", "~0").replace("/", "~1")
    return {"pointer": f"/inputs/{token}", "detail": detail}


def schema(template: Template) -> dict[str, Any]:
    """The JSON Schema (2020-12) of `inputs`."""
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
        "maxLength": hole.max_length,
        "enum": list(hole.choices) or None,
    }
    return {**_TYPES[hole.type].schema, **{key: value for key, value in optional.items() if value is not None}}


# Declaration -------------------------------------------------------------------------------------------------------

_KEYS = frozenset({"type", "node", "description", "default", "optional"})
_LIMITS = frozenset({"minimum", "maximum", "choices", "max_length"})

_FORMS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "description": (_is_text, "text"),
    "optional": (lambda value: isinstance(value, bool), "true or false"),
    "minimum": (_is_number, "a number"),
    "maximum": (_is_number, "a number"),
    "max_length": (lambda value: _is_whole(value) and value > 0, "a whole number above 0"),
    "choices": (_is_list_of_texts, "a list of different texts"),
}
"""Which value each key takes."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_INPUT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


def parse(name: str, workflow: object, declaration: Mapping[str, Any]) -> Template:
    """A template from a workflow (parsed JSON) and its declaration (parsed TOML).

    Raises TemplateError, which lists every problem.
    """
    problems = [] if _NAME.fullmatch(name) else [f"its name must match {_NAME.pattern}"]
    try:
        graph = check(workflow)
    except InvalidWorkflow as fault:
        raise TemplateError(name, [*problems, fault.detail]) from None
    title, description = declaration.get("title", name), declaration.get("description", "")
    tables = declaration.get("inputs", {})
    problems += [f"{key}: is not known" for key in declaration if key not in ("title", "description", "inputs")]
    problems += ["title: must be text"] * (not isinstance(title, str))
    problems += ["description: must be text"] * (not isinstance(description, str))
    if not isinstance(tables, dict):
        raise TemplateError(name, [*problems, "inputs: must be a table"])
    holes = []
    for key, table in tables.items():
        found = [f"inputs.{key}{problem}" for problem in _find_problems(key, table, graph)]
        problems += found
        if not found:
            holes.append(_build(key, table, graph))
    places = [place for hole in holes for place in hole.places]
    problems += [f"{'.'.join(place)}: is filled twice" for place in sorted(set(places)) if places.count(place) > 1]
    if problems:
        raise TemplateError(name, problems)
    return Template(name, title, description, graph, tuple(holes))


def _find_problems(name: str, table: object, graph: Graph) -> Iterator[str]:
    """What is wrong with one input's table, each with the key that it is about in front."""
    if not _INPUT_NAME.fullmatch(name):
        yield f": its name must match {_INPUT_NAME.pattern}"
    if not isinstance(table, dict):
        yield ": must be a table"
        return
    kind = table.get("type")
    if not isinstance(kind, str) or kind not in _TYPES:
        yield f".type: must be one of {', '.join(_TYPES)}"
        return
    limits = _LIMITS - _TYPES[kind].limits
    yield from (f".{key}: is not known" for key in table if key not in _KEYS | _LIMITS)
    yield from (f".{key}: does not apply to {kind}" for key in table if key in limits)
    yield from _find_unset(kind, table)
    wrong = [f".{key}: must be {_FORMS[key][1]}" for key in table if key in _FORMS and not _FORMS[key][0](table[key])]
    if kind in ("integer", "seed"):
        parts = [key for key in ("minimum", "maximum") if _is_number(table.get(key)) and not _is_whole(table[key])]
        wrong += [f".{key}: must be a whole number" for key in parts]
    wrong += _find_lost(table.get("node"), graph)
    yield from wrong
    if not wrong and not limits & table.keys():
        hole = _build(name, table, graph)
        if hole.minimum is not None and hole.maximum is not None and hole.minimum > hole.maximum:
            yield ".minimum: is above the maximum"
        elif hole.default is not None and (objection := _object_to(hole, hole.default)):
            yield f".default: {objection}"


def _find_unset(kind: str, table: Mapping[str, Any]) -> Iterator[str]:
    """Keys that are missing, or that contradict each other."""
    if kind == "choice" and "choices" not in table:
        yield ".choices: is missing"
    if kind == "seed":
        yield from (
            f".{key}: does not apply to a seed, which is drawn" for key in ("default", "optional") if key in table
        )
    elif table.get("optional") is True and "default" in table:
        yield ".optional: says nothing beside a default"


def _find_lost(node: object, graph: Graph) -> list[str]:
    targets = node if isinstance(node, list) else [node]
    if not targets or not all(map(_is_text, targets)):
        return [".node: must be text like 3.seed, or a list of them"]
    places = {str(target): _find_place(str(target), graph) for target in targets}
    lost = [f".node: {target}: the workflow has no such input" for target, place in places.items() if place is None]
    found = (place for place in places.values() if place is not None)
    linked = [f".node: {node_id}.{key}: is linked" for node_id, key in found if is_link(graph[node_id]["inputs"][key])]
    return lost + linked


def _find_place(target: str, graph: Graph) -> Place | None:
    """The input that `node.input` names; both parts may have dots of their own."""
    cuts = (dot.start() for dot in re.finditer(r"\.", target))
    places = ((target[:cut], target[cut + 1 :]) for cut in cuts)
    return next((place for place in places if place[1] in graph.get(place[0], {}).get("inputs", {})), None)


def _build(name: str, table: Mapping[str, Any], graph: Graph) -> Input:
    targets = table["node"] if isinstance(table["node"], list) else [table["node"]]
    seed = table["type"] == "seed"
    return Input(
        name=name,
        type=table["type"],
        places=tuple(filter(None, (_find_place(target, graph) for target in targets))),
        description=table.get("description", ""),
        default=table.get("default"),
        optional=table.get("optional", False),
        minimum=table.get("minimum", 0 if seed else None),
        maximum=table.get("maximum", MAX_SEED if seed else None),
        choices=tuple(table.get("choices", ())),
        max_length=table.get("max_length"),
    )
