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
from collections.abc import Callable, Iterator, Mapping
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
    """A template that can't be used, with everything that is wrong."""

    def __init__(self, name: str, problems: list[Problem]) -> None:
        super().__init__(f"template {name}: {'; '.join(map(str, problems))}")
        self.name = name
        self.problems = tuple(problems)


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

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
INPUT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
"""What an input or an output may be called."""


# Reading -----------------------------------------------------------------------------------------------------------


def parse(name: str, workflow: object, declaration: Mapping[str, Any]) -> Template:
    """A template from a workflow (parsed JSON) and its declaration (parsed TOML).

    Raises TemplateError, which lists every problem.
    """
    problems = [] if _NAME.fullmatch(name) else [Problem((), f"its name must match {_NAME.pattern}")]
    try:
        graph = check(workflow)
    except InvalidWorkflow as fault:
        raise TemplateError(name, problems + list(_explain(fault))) from None
    texts = {"title": declaration.get("title", name), "description": declaration.get("description", "")}
    problems += [
        Problem((key,), "is not known") for key in declaration if key not in ("title", "description", *_TABLES)
    ]
    problems += [Problem((key,), "must be text") for key, value in texts.items() if not is_text(value)]
    tables = {key: declaration.get(key, {}) for key in _TABLES}
    problems += [Problem((key,), "must be a table") for key, table in tables.items() if not isinstance(table, dict)]
    inputs, outputs = (tables[key] if isinstance(tables[key], dict) else {} for key in _TABLES)
    holes = []
    for key, table in inputs.items():
        found = [Problem(("inputs", key, *where), detail) for where, detail in _find_problems(key, table, graph)]
        problems += found
        if not found:
            holes.append(_build(key, table, graph))
    problems += _find_doubles(holes)
    for key, table in outputs.items():
        problems += [Problem(("outputs", key, *where), detail) for where, detail in _judge_output(key, table, graph)]
    if problems:
        raise TemplateError(name, problems)
    named = tuple(NamedOutput(key, table["node"], table.get("description", "")) for key, table in outputs.items())
    return Template(name, texts["title"], texts["description"], graph, tuple(holes), named)


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


def _find_doubles(holes: list[Input]) -> Iterator[Problem]:
    owners: dict[Place, str] = {}
    for hole in holes:
        for place in hole.places:
            if place in owners:
                yield Problem(("inputs", hole.name, "node"), f"{'.'.join(place)} is filled by {owners[place]} already")
            owners.setdefault(place, hole.name)


def _find_problems(name: str, table: object, graph: Graph) -> Iterator[Complaint]:
    """What is wrong with one input's table."""
    if not INPUT_NAME.fullmatch(name):
        yield (), f"its name must match {INPUT_NAME.pattern}"
    if not isinstance(table, dict):
        yield (), "must be a table"
        return
    kind = table.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        yield ("type",), f"must be one of {', '.join(TYPES)}"
        return
    limits = _LIMITS - TYPES[kind].limits
    yield from (((key,), "is not known") for key in table if key not in _KEYS | _LIMITS)
    yield from (((key,), f"does not apply to {kind}") for key in table if key in limits)
    yield from _find_unset(kind, table)
    wrong = [((key,), f"must be {_FORMS[key][1]}") for key in table if key in _FORMS and not _FORMS[key][0](table[key])]
    if kind in ("integer", "seed"):
        parts = [key for key in ("minimum", "maximum") if is_number(table.get(key)) and not is_whole(table[key])]
        wrong += [((key,), "must be a whole number") for key in parts]
    wrong += [(("node",), detail) for detail in _find_lost(table.get("node"), graph)]
    yield from wrong
    if not wrong and not limits & table.keys():
        hole = _build(name, table, graph)
        if hole.minimum is not None and hole.maximum is not None and hole.minimum > hole.maximum:
            yield ("minimum",), "is above the maximum"
        elif hole.minimum is not None and hole.step is not None and int(hole.minimum) % hole.step:
            yield ("minimum",), "is no multiple of the step"
        elif hole.default is not None and (objection := object_to(hole, hole.default)):
            yield ("default",), objection
        elif hole.example is not None and (objection := object_to(hole, hole.example)):
            yield ("example",), objection


def _find_unset(kind: str, table: Mapping[str, Any]) -> Iterator[Complaint]:
    """Keys that are missing, or that contradict each other."""
    if kind == "choice" and "choices" not in table:
        yield ("choices",), "is missing"
    if kind == "seed":
        yield from (
            ((key,), "does not apply to a seed, which is drawn") for key in ("default", "optional") if key in table
        )
    elif table.get("optional") is True and "default" in table:
        yield ("optional",), "says nothing beside a default"


def _find_lost(node: object, graph: Graph) -> list[str]:
    targets = node if isinstance(node, list) else [node]
    if not targets or not all(map(is_text, targets)):
        return ["must be text like 3.seed, or a list of them"]
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


def _build(name: str, table: Mapping[str, Any], graph: Graph) -> Input:
    targets = table["node"] if isinstance(table["node"], list) else [table["node"]]
    seed = table["type"] == "seed"
    choices = table.get("choices", ())
    return Input(
        name=name,
        type=table["type"],
        places=tuple(filter(None, (_find_place(target, graph) for target in targets))),
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


def _judge_output(name: str, table: object, graph: Graph) -> Iterator[Complaint]:
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
    if not isinstance(node, str) or node not in graph:
        yield ("node",), "must be the id of a node of the workflow"
    if name in graph and name != node:
        yield (), "is the id of another node"
