"""Offers: a template as one engine can run it.

For: the choices that callers see, and whether a template would run. Leaves what is learned of an engine to `catalog`,
and declarations that contradict it to `misfits`. Invariant: what is not known of an engine is never held against a
template.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from converter.core.catalog import Catalog
from converter.core.media import FOLDERS, LOADERS
from converter.core.misfits import find_misfits
from converter.core.template import MEDIA, Input, Template
from converter.core.template_toml import find_folder
from converter.core.workflow import MAX_ECHO, clip

MAX_REASONS = 3
"""Nodes, choices and misfits that a reason names."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A template as this engine can run it, with the engine's choices in it.

    available: whether it would run as it stands, with what it has by default; None while that is not known. reason:
    what is lacking.
    """

    template: Template
    available: bool | None = None
    reason: str = ""


def offer(template: Template, catalog: Catalog) -> Offer:
    """The template with the engine's choices, and whether it would run."""
    holes = tuple(replace(hole, choices=_choose(hole, template, catalog) or hole.choices) for hole in template.inputs)
    shown = replace(template, inputs=holes)
    if not {node["class_type"] for node in template.workflow.values()} <= catalog.kinds.keys():
        return Offer(shown)
    misfits = [clip(str(misfit.problem)) for misfit in find_misfits(template, catalog) if misfit.fatal]
    lacks = [*tell_lacks(template, catalog), *([_list(misfits)] if misfits else [])]
    return Offer(shown, not lacks, "; ".join(lacks))


def tell_lacks(template: Template, catalog: Catalog) -> list[str]:
    """What the template needs and the engine is known not to have: nodes, and then choices."""
    classes = sorted({node["class_type"] for node in template.workflow.values()} & catalog.kinds.keys())
    missing = [clip(name, MAX_ECHO) for name in classes if catalog.kinds[name] is None]
    found = list(_find_lacks(template, catalog))
    return [
        *([f"the engine has no node {_list(missing)}"] if missing else []),
        *([f"the engine does not have {_list(found)}"] if found else []),
    ]


def _list(words: list[str]) -> str:
    return ", ".join(words[:MAX_REASONS]) + (" and more" if len(words) > MAX_REASONS else "")


def _choose(hole: Input, template: Template, catalog: Catalog) -> tuple[str, ...]:
    """The choices that the engine has for a hole, as far as they are known."""
    folder = find_folder(hole.source)
    if folder is not None:
        return catalog.folders.get(folder) or ()
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
