"""What an engine has for templates: the nodes that they use, what these take, and files of models.

For: reading the engine's descriptions of nodes, the choices that callers see, and whether a template would run. Leaves
asking to others. Invariant: what is not known of an engine is never held against a template.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from converter.core.media import FOLDERS, LOADERS
from converter.core.template import MEDIA, Input, Place, Template, is_number
from converter.core.template_toml import find_folder
from converter.core.workflow import MAX_ECHO, clip

MAX_REASONS = 3
"""Nodes, and choices, that a reason names."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input of a class of nodes.

    type: ComfyUI's word, "COMBO" where it takes one of `choices`. step: by how much the editor changes a number. media:
    image, video or audio where it takes the name of an uploaded file, whose choices are not listed.
    """

    type: str
    choices: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    media: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """A class of nodes; `title` is how the editor shows it."""

    ports: Mapping[str, Port]
    title: str = ""
    is_output: bool = False


@dataclass(frozen=True, slots=True)
class Catalog:
    """What was learned of an engine. A class that it does not have is None; what is not here is not known."""

    kinds: Mapping[str, Kind | None] = field(default_factory=dict)
    folders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def port(self, graph: Mapping[str, Mapping[str, Any]], place: Place) -> Port | None:
        """What is known of an input of a node of the graph."""
        kind = self.kinds.get(graph[place[0]]["class_type"])
        return None if kind is None else kind.ports.get(place[1])


@dataclass(frozen=True, slots=True)
class Offer:
    """A template as this engine can run it, with the engine's choices in it.

    available: whether it would run as it stands, with what it has by default; None while that is not known. reason:
    what is lacking.
    """

    template: Template
    available: bool | None = None
    reason: str = ""


# Reading -----------------------------------------------------------------------------------------------------------


def read_kind(described: object) -> Kind | None:
    """A class of nodes, from its entry in `/object_info`; None where there is none. Odd inputs are left out."""
    if not isinstance(described, dict):
        return None
    groups = described.get("input")
    ports = {}
    for group in ("required", "optional"):
        inputs = groups.get(group) if isinstance(groups, dict) else None
        for name, spec in inputs.items() if isinstance(inputs, dict) else ():
            port = _read_port(spec)
            if port is not None:
                ports[name] = port
    title = described.get("display_name")
    return Kind(ports, title if isinstance(title, str) else "", bool(described.get("output_node")))


def _read_port(spec: object) -> Port | None:
    """`[type, options]`; a COMBO has a list of choices in place of the type, or as an option (ComfyUI's V3 schema)."""
    if not isinstance(spec, list) or not spec:
        return None
    options = spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    media = next((kind for kind in MEDIA if options.get(f"{kind}_upload")), "")
    if isinstance(spec[0], list) or spec[0] == "COMBO":
        listed = spec[0] if isinstance(spec[0], list) else options.get("options")
        if media or not isinstance(listed, list) or not all(isinstance(choice, str) for choice in listed):
            return Port("COMBO", media=media)
        return Port("COMBO", tuple(listed))
    if not isinstance(spec[0], str):
        return None
    low, high, step = (value if is_number(value := options.get(key)) else None for key in ("min", "max", "step"))
    return Port(spec[0], None, low, high, step, media)


# Judging -----------------------------------------------------------------------------------------------------------


def offer(template: Template, catalog: Catalog) -> Offer:
    """The template with the engine's choices, and whether it would run."""
    holes = tuple(replace(hole, choices=_choose(hole, template, catalog) or hole.choices) for hole in template.inputs)
    shown = replace(template, inputs=holes)
    classes = {node["class_type"] for node in template.workflow.values()}
    if not classes <= catalog.kinds.keys():
        return Offer(shown)
    missing = sorted(name for name in classes if catalog.kinds[name] is None)
    lacks = [
        *([f"the engine has no node {_list([clip(name, MAX_ECHO) for name in missing])}"] if missing else []),
        *([f"the engine does not have {_list(found)}"] if (found := list(_find_lacks(template, catalog))) else []),
    ]
    return Offer(shown, not lacks, "; ".join(lacks))


def _list(words: list[str]) -> str:
    return ", ".join(words[:MAX_REASONS]) + (" and more" if len(words) > MAX_REASONS else "")


def _choose(hole: Input, template: Template, catalog: Catalog) -> tuple[str, ...]:
    """The choices that the engine has for a hole, as far as they are known."""
    folder = find_folder(hole.source)
    if folder is not None:
        return catalog.folders.get(folder, ())
    port = catalog.port(template.workflow, hole.places[0]) if hole.source else None
    return (port and port.choices) or ()


def _find_lacks(template: Template, catalog: Catalog) -> Iterator[str]:
    """Choices that the workflow makes by itself or by default, and the engine does not have."""
    given = {place: hole for hole in template.inputs for place in hole.places}
    for node_id, node in template.workflow.items():
        for name, value in node["inputs"].items():
            hole = given.get((node_id, name))
            place = (node["class_type"], name)
            if place in LOADERS | FOLDERS or (hole and (hole.required or hole.type in MEDIA)):
                continue
            value = hole.default if hole and hole.default is not None else value
            port = catalog.port(template.workflow, (node_id, name))
            if port is not None and port.choices is not None and isinstance(value, str) and value not in port.choices:
                about = f"input {hole.name}" if hole else f"{name} of node {node_id}, {node['class_type']}"
                yield f"{clip(value, MAX_ECHO)} ({clip(about, MAX_ECHO)})"
