"""Declarations of templates: what `workflows/NAME.toml` may say, checked against the workflow beside it.

For: making a template from the values of a TOML file. Leaves reading the files, and their lines, to others. Invariant:
what `parse` accepts, `template.fill` can fill; what it refuses, it names whole.

    title = "Text to image"
    description = "..."

    [inputs.width]
    type = "integer"            # string, integer, number, boolean, choice, image, video, audio or seed
    node = "5.width"            # node.input, or a list of them
    default = 512               # without it the input is required, or with `optional = true` the workflow's value stays
    minimum = 16                # integer, number and seed; choice has `choices`, string `max_length`, `example`
    maximum = 2048
    step = 8                    # integer: what the value, and `minimum`, is a multiple of
    description = "Width of the picture in pixels."

    [outputs.picture]
    node = "9"                  # a node's id
    description = "The picture."
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from converter.core.template import (
    MAX_SEED,
    TYPES,
    Input,
    NamedOutput,
    Place,
    Template,
    is_number,
    is_text,
    is_whole,
    object_to,
)
from converter.core.workflow import Graph, check, is_link
from converter.errors import InvalidWorkflow

ENGINE = "engine"
"""What `choices` says for those that the engine has for the input of the node."""

_FOLDER = re.compile(r"models/([A-Za-z0-9_.-]{1,100})")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `keys` lead to it in the declaration.

    node: the node that is at fault where it is in the workflow, "" for the workflow as a whole.
    """

    keys: tuple[str, ...]
    detail: str
    node: str | None = None

    def __str__(self) -> str:
        return f"{'.'.join(self.keys)}: {self.detail}" if self.keys else self.detail


class TemplateError(Exception):
    """A template that can't be used, with everything that is wrong.

    rest: what is right of it, for those who look for more; None where the workflow is no workflow. Its workflow lacks
    what inputs that are wrong would fill.
    """

    def __init__(self, name: str, problems: list[Problem], rest: Template | None) -> None:
        super().__init__(f"template {name}: {'; '.join(map(str, problems))}")
        self.name = name
        self.problems = tuple(problems)
        self.rest = rest


def find_folder(source: str) -> str | None:
    """The engine's folder of models in `models/FOLDER`; None where it is no such source."""
    found = _FOLDER.fullmatch(source)
    return found[1] if found else None


# Forms -------------------------------------------------------------------------------------------------------------


def _are_choices(value: object) -> bool:
    if isinstance(value, str):
        return value == ENGINE or find_folder(value) is not None
    return isinstance(value, list) and value != [] and all(map(is_text, value)) and len(set(value)) == len(value)


_KEYS = frozenset({"type", "node", "description", "default", "optional"})
_LIMITS = frozenset({"minimum", "maximum", "step", "choices", "max_length", "example"})

_COUNT: tuple[Callable[[Any], bool], str] = (lambda value: is_whole(value) and value > 0, "a whole number above 0")

_FORMS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "description": (is_text, "text"),
    "optional": (lambda value: isinstance(value, bool), "true or false"),
    "minimum": (is_number, "a number"),
    "maximum": (is_number, "a number"),
    "step": _COUNT,
    "max_length": _COUNT,
    "example": (is_text, "text"),
    "choices": (_are_choices, 'a list of different texts, "models/FOLDER" or "engine"'),
}
"""Which value each key takes."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a template may be called."""

INPUT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
"""What an input or an output may be called."""


# Reading -----------------------------------------------------------------------------------------------------------


def parse(name: str, workflow: object, declaration: Mapping[str, Any]) -> Template:
    """A template from a workflow (parsed JSON) and its declaration (parsed TOML).

    Raises TemplateError, which lists every problem.
    """
    problems = [] if NAME.fullmatch(name) else [Problem((), f"its name must match {NAME.pattern}")]
    graph: Graph | None = None
    try:
        graph = check(workflow)
    except InvalidWorkflow as fault:
        problems += _explain(fault)
    texts = {"title": declaration.get("title", name), "description": declaration.get("description", "")}
    problems += [
        Problem((key,), "is not known") for key in declaration if key not in ("title", "description", *_TABLES)
    ]
    problems += [Problem((key,), "must be text") for key, value in texts.items() if not is_text(value)]
    tables = {key: declaration.get(key, {}) for key in _TABLES}
    problems += [Problem((key,), "must be a table") for key, table in tables.items() if not isinstance(table, dict)]
    inputs, outputs = (tables[key] if isinstance(tables[key], dict) else {} for key in _TABLES)
    wrong = [
        *(("inputs", key, *each) for key, table in inputs.items() for each in _find_problems(key, table, graph)),
        *(("outputs", key, *each) for key, table in outputs.items() for each in _judge_output(key, table, graph)),
    ]
    problems += [Problem((kind, key, *where), detail) for kind, key, where, detail in wrong]
    places = {key: _find_places(table, graph or {}) for key, table in inputs.items()}
    problems += _find_doubles(places)
    if graph is None:
        raise TemplateError(name, problems, None)
    bad = {(kind, key) for kind, key, _, _ in wrong}
    holes = tuple(_build(key, table, places[key]) for key, table in inputs.items() if ("inputs", key) not in bad)
    named = tuple(
        NamedOutput(key, table["node"], table.get("description", ""))
        for key, table in outputs.items()
        if ("outputs", key) not in bad
    )
    if problems:
        lost = {place for key, found in places.items() if ("inputs", key) in bad for place in found}
        raise TemplateError(name, problems, Template(name, name, "", _leave_out(graph, lost), holes, named))
    return Template(name, texts["title"], texts["description"], graph, holes, named)


_TABLES = ("inputs", "outputs")

Complaint = tuple[tuple[str, ...], str]
"""The keys below a table to what is wrong with it, and what that is."""


def _explain(fault: InvalidWorkflow) -> Iterator[Problem]:
    """What is wrong with the workflow, by node where there are nodes."""
    nodes = fault.extensions["node_errors"]
    for node_id, entry in nodes.items():
        for error in entry["errors"]:
            details = f" ({error['details']})" if error["details"] else ""
            yield Problem((), f"node {node_id}: {error['message']}{details}", node_id)
    if not nodes:
        yield Problem((), fault.detail, "")


def _leave_out(graph: Graph, places: Collection[Place]) -> Graph:
    """The workflow without some inputs of its nodes."""
    return {
        node_id: {
            **node,
            "inputs": {key: value for key, value in node["inputs"].items() if (node_id, key) not in places},
        }
        for node_id, node in graph.items()
    }


def _find_doubles(places: Mapping[str, tuple[Place, ...]]) -> Iterator[Problem]:
    owners: dict[Place, str] = {}
    for name, found in places.items():
        for place in found:
            if place in owners:
                yield Problem(("inputs", name, "node"), f"{'.'.join(place)} is filled by {owners[place]} already")
            owners.setdefault(place, name)


def _find_problems(name: str, table: object, graph: Graph | None) -> Iterator[Complaint]:
    """What is wrong with one input's table; places are not looked for without a workflow."""
    if not INPUT_NAME.fullmatch(name):
        yield (), f"its name must match {INPUT_NAME.pattern}"
    if not isinstance(table, dict):
        yield (), "must be a table"
        return
    kind = table.get("type")
    known = TYPES.get(kind) if isinstance(kind, str) else None
    if known is None:
        yield ("type",), f"must be one of {', '.join(TYPES)}"
    limits = frozenset() if known is None else _LIMITS - known.limits
    yield from (((key,), "is not known") for key in table if key not in _KEYS | _LIMITS)
    yield from (((key,), f"does not apply to {kind}") for key in table if key in limits)
    yield from _find_unset(kind, table)
    wrong = {key: f"must be {_FORMS[key][1]}" for key in table if key in _FORMS and not _FORMS[key][0](table[key])}
    if kind in ("integer", "seed"):
        parts = [key for key in ("minimum", "maximum") if is_number(table.get(key)) and not is_whole(table[key])]
        wrong |= dict.fromkeys(parts, "must be a whole number")
    yield from (((key,), detail) for key, detail in wrong.items())
    yield from ((("node",), detail) for detail in _find_lost(table.get("node"), graph))
    if known is not None:
        fit = {key: value for key, value in table.items() if key not in limits and key not in wrong}
        yield from _find_contradictions(_build(name, fit, ()))


def _find_contradictions(hole: Input) -> Iterator[Complaint]:
    """What of a hole can't be right beside the rest of it."""
    empty = hole.minimum is not None and hole.maximum is not None and hole.minimum > hole.maximum
    if empty:
        yield ("minimum",), "is above the maximum"
    elif hole.minimum is not None and hole.step is not None and int(hole.minimum) % hole.step:
        yield ("minimum",), "is no multiple of the step"
    for key, value in (("default", hole.default), ("example", hole.example)):
        # No value lies between limits that are upside down.
        if value is not None and not empty and hole.type != "seed" and (objection := object_to(hole, value)):
            yield (key,), objection


def _find_unset(kind: object, table: Mapping[str, Any]) -> Iterator[Complaint]:
    """Keys that are missing, or that contradict each other."""
    if kind == "choice" and "choices" not in table:
        yield ("choices",), "is missing"
    if kind == "seed":
        yield from (
            ((key,), "does not apply to a seed, which is drawn") for key in ("default", "optional") if key in table
        )
    elif table.get("optional") is True and "default" in table:
        yield ("optional",), "says nothing beside a default"


def _find_lost(node: object, graph: Graph | None) -> list[str]:
    targets = node if isinstance(node, list) else [node]
    if not targets or not all(map(is_text, targets)):
        return ["must be text like 3.seed, or a list of them"]
    if graph is None:
        return []
    places = {str(target): _find_place(str(target), graph) for target in targets}
    lost = [f"{target}: {_explain_loss(target, graph)}" for target, place in places.items() if place is None]
    found = (place for place in places.values() if place is not None)
    linked = [f"{node_id}.{key}: is linked" for node_id, key in found if is_link(graph[node_id]["inputs"][key])]
    return lost + linked


def _explain_loss(target: str, graph: Graph) -> str:
    node = graph.get(target.partition(".")[0])
    if node is None:
        return "the workflow has no such input"
    there = ", ".join(key for key, value in node["inputs"].items() if not is_link(value))
    return f"the workflow has no such input; {node['class_type']} has {there or 'none that is not linked'}"


def _find_place(target: str, graph: Graph) -> Place | None:
    """The input that `node.input` names; both parts may have dots of their own."""
    cuts = (dot.start() for dot in re.finditer(r"\.", target))
    places = ((target[:cut], target[cut + 1 :]) for cut in cuts)
    return next((place for place in places if place[1] in graph.get(place[0], {}).get("inputs", {})), None)


def _find_places(table: object, graph: Graph) -> tuple[Place, ...]:
    """The places that an input's table names and the workflow has, whatever else is wrong with it."""
    node = table.get("node") if isinstance(table, dict) else None
    targets = node if isinstance(node, list) else [node]
    return tuple(filter(None, (_find_place(target, graph) for target in targets if isinstance(target, str))))


def _build(name: str, table: Mapping[str, Any], places: tuple[Place, ...]) -> Input:
    seed = table["type"] == "seed"
    choices = table.get("choices", ())
    return Input(
        name=name,
        type=table["type"],
        places=places,
        description=table.get("description", ""),
        default=table.get("default"),
        optional=table.get("optional", False),
        minimum=table.get("minimum", 0 if seed else None),
        maximum=table.get("maximum", MAX_SEED if seed else None),
        step=None if "step" not in table else int(table["step"]),
        choices=() if isinstance(choices, str) else tuple(choices),
        source=choices if isinstance(choices, str) else "",
        max_length=table.get("max_length"),
        example=table.get("example"),
    )


def _judge_output(name: str, table: object, graph: Graph | None) -> Iterator[Complaint]:
    """What is wrong with one output's table. A name that is another node's id could not be told from it."""
    if not INPUT_NAME.fullmatch(name):
        yield (), f"its name must match {INPUT_NAME.pattern}"
    if not isinstance(table, dict):
        yield (), "must be a table"
        return
    yield from (((key,), "is not known") for key in table if key not in ("node", "description"))
    if not is_text(table.get("description", "")):
        yield ("description",), "must be text"
    node = table.get("node")
    if not isinstance(node, str) or (graph is not None and node not in graph):
        yield ("node",), "must be the id of a node of the workflow"
    if graph is not None and name in graph and name != node:
        yield (), "is the id of another node"
