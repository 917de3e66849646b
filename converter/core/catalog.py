"""What an engine has for templates: the nodes that they use, what these take, and files of models.

For: reading the engine's descriptions of nodes. Leaves asking to others, and judging templates by it to `offers` and
`misfits`. Invariant: what can't be read is left out, as what is not known.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from converter.core.template import MEDIA, Place, is_number


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
    """What was learned of an engine. What it does not have, of classes and folders, is None; what is not here is not
    known.
    """

    kinds: Mapping[str, Kind | None] = field(default_factory=dict)
    folders: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)

    def port(self, graph: Mapping[str, Mapping[str, Any]], place: Place) -> Port | None:
        """What is known of an input of a node of the graph."""
        kind = self.kinds.get(graph[place[0]]["class_type"])
        return None if kind is None else kind.ports.get(place[1])


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
