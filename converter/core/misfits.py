"""Misfits: where a template's declaration contradicts what the engine says of its nodes.

For: telling authors what can't be right, and which of it keeps the template from running. Leaves what the engine lacks
to `offers`. Invariant: only what is certain is told. Types that are not ComfyUI's own, lists that the engine does not
show and inputs that it does not declare fit anything, and so does text a number, which engines write out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from converter.core.catalog import Catalog, Port
from converter.core.template import MEDIA, Input, Place, Template
from converter.core.template_toml import ENGINE, Problem, find_folder
from converter.core.workflow import MAX_ECHO, clip

_WORDS: Mapping[str, str] = {"INT": "a whole number", "FLOAT": "a number", "BOOLEAN": "true or false", "STRING": "text"}
"""ComfyUI's own types of values, as people are told them."""

_VALUES = ("integer", "number", "boolean", "seed")
"""Types of inputs whose values are no texts."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """What does not fit. fatal: the engine would refuse a call that gives no more than it has to."""

    problem: Problem
    fatal: bool = False


def find_misfits(template: Template, catalog: Catalog) -> Iterator[Misfit]:
    """All that does not fit, as far as the engine is known."""
    yield from _judge_outputs(template, catalog)
    for hole in template.inputs:
        folder = find_folder(hole.source)
        if folder is not None and catalog.folders.get(folder, ()) is None:
            yield _tell(hole, "choices", f"the engine has no folder of models {folder}")
        for place in hole.places:
            port = catalog.port(template.workflow, place)
            if port is not None:
                found = _contradict(hole, place, port)
                yield from [found] if found is not None else _compare(hole, place, port)


def _judge_outputs(template: Template, catalog: Catalog) -> Iterator[Misfit]:
    for output in template.outputs:
        name = template.workflow[output.node_id]["class_type"]
        kind = catalog.kinds.get(name)
        if kind is not None and not kind.is_output:
            detail = f"{clip(name, MAX_ECHO)} is no output node of the engine"
            yield Misfit(Problem(("outputs", output.name, "node"), detail), fatal=True)
    kinds = [catalog.kinds.get(node["class_type"]) for node in template.workflow.values()]
    if all(kind is not None and not kind.is_output for kind in kinds):
        yield Misfit(Problem((), "the workflow has no output node, so the engine would run nothing", ""), fatal=True)


def _contradict(hole: Input, place: Place, port: Port) -> Misfit | None:
    """What is wrong with the type of a hole for a place that it fills."""
    takes = f"{_name(place)} takes {_WORDS.get(port.type, 'one of a list of texts')}"
    if hole.type in _VALUES and port.type == "COMBO" and (port.choices or port.media):
        return _tell(hole, "type", f"{takes}, no {hole.type}", fatal=not hole.optional)
    if hole.type in ("string", *MEDIA) and port.type in ("INT", "FLOAT", "BOOLEAN"):
        return _tell(hole, "type", f"{takes}, no {hole.type}", fatal=_is_always_refused(hole, port))
    if hole.type != "choice":
        return None
    if hole.source == ENGINE and port.type in _WORDS and place == hole.places[0]:
        detail = f"{takes}, and the engine has no list for it"
        return _tell(hole, "choices", detail, fatal=_is_always_refused(hole, port))
    stray = next((choice for choice in hole.choices if not _converts(choice, port)), None)
    if find_folder(hole.source) is not None and port.type in ("INT", "FLOAT", "BOOLEAN"):
        return _tell(hole, "choices", f"{takes}, no file's name", fatal=_is_always_refused(hole, port))
    if stray is not None:
        detail = f"{takes}, which {clip(stray, MAX_ECHO)} is not"
        return _tell(hole, "choices", detail, fatal=hole.default is not None and not _converts(hole.default, port))
    return None


def _is_always_refused(hole: Input, port: Port) -> bool:
    """Whether no text, or that by default, is one that the engine takes: it reads numbers out of texts."""
    if hole.default is not None:
        return not _converts(hole.default, port)
    return not hole.optional and port.type in ("INT", "FLOAT")


def _converts(text: str, port: Port) -> bool:
    """Whether the engine makes a value of a text. Any text is a truth to it."""
    if port.type not in ("INT", "FLOAT"):
        return True
    try:
        int(text) if port.type == "INT" else float(text)
    except ValueError:
        return False
    return True


def _compare(hole: Input, place: Place, port: Port) -> Iterator[Misfit]:
    """Limits of a hole, and its default, beyond those of a place that it fills."""
    if hole.type not in ("integer", "number", "seed") or port.type not in ("INT", "FLOAT"):
        return
    least, most = port.minimum, port.maximum
    told: Mapping[str, Any] = {"minimum": hole.minimum, "maximum": hole.maximum, "default": hole.default}
    for key, value in told.items():
        if value is None:
            continue
        if least is not None and value < least:
            yield _tell(hole, key, f"must be at least {least}, by the engine's {_name(place)}", key == "default")
        elif most is not None and value > most:
            yield _tell(hole, key, f"must be at most {most}, by the engine's {_name(place)}", key == "default")


def _tell(hole: Input, key: str, detail: str, fatal: bool = False) -> Misfit:
    return Misfit(Problem(("inputs", hole.name, key), detail), fatal)


def _name(place: Place) -> str:
    return clip(".".join(place), MAX_ECHO)
