"""Assignments: `name=value` as people type it, read as the type that an input has.

For: a command line. Leaves files to others: it says which are wanted. Invariant: a value that is given out is of the
input's type, or Wrong was raised; a text is never taken for a file where none can go.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from converter.core.guesses import suggest
from converter.core.template import MEDIA

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class Wrong(ValueError):
    """An assignment that can't be made; the text says why, without the assignment itself."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that is to be sent in place of a value."""

    path: str


def split(text: str) -> tuple[str, str]:
    """Name and value."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise Wrong("must be NAME=VALUE")
    return name, value


def read_input(inputs: Mapping[str, Any], name: str, text: str) -> Any:
    """A value for a template's input, by the JSON Schema of its inputs: an Upload for `@path` where a file can go."""
    known = _properties(inputs)
    schema = known.get(name)
    if not isinstance(schema, dict):
        raise Wrong(_suggest(name, list(known)))
    if takes_file(inputs, name):
        return Upload(text[1:]) if text.startswith("@") else text
    return _read(schema.get("type"), text)


def takes_file(inputs: Mapping[str, Any], name: str) -> bool:
    """Whether a file can be sent as the template's input, by the JSON Schema of its inputs."""
    schema = _properties(inputs).get(name)
    return isinstance(schema, dict) and schema.get("x-type") in MEDIA


def _properties(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = inputs.get("properties")
    return properties if isinstance(properties, dict) else {}


def read_place(graph: Mapping[str, Any], place: str, text: str) -> tuple[tuple[str, str], Any]:
    """Node id and input name of `node.input`, and its value: of the type that is there.

    `@path` is an Upload where there is text; `@@` begins a text with a single `@`.
    """
    found = [
        ((node_id, key), value)
        for node_id, node in graph.items()
        for key, value in (node.get("inputs") or {}).items()
        if f"{node_id}.{key}" == place
    ]
    if not found:
        known = [f"{node_id}.{key}" for node_id, node in graph.items() for key in node.get("inputs") or {}]
        raise Wrong(_suggest(place, known))
    target, value = found[0]
    kind = next((name for name, kind in _KINDS.items() if type(value) is kind), None)
    if kind == "string" and text.startswith("@@"):
        return target, text[1:]
    if kind == "string" and text.startswith("@"):
        return target, Upload(text[1:])
    return target, _read(kind, text)


_KINDS = {"string": str, "integer": int, "number": float, "boolean": bool}


def _read(kind: object, text: str) -> Any:
    """A value of a JSON type; JSON itself where the type is another."""
    match kind:
        case "string":
            return text
        case "boolean":
            if text.lower() not in _WORDS:
                raise Wrong("must be true or false")
            return _WORDS[text.lower()]
        case "integer":
            return _read_whole(text)
        case "number":
            return _read_number(text)
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Wrong("must be JSON") from None


def _read_whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        number = _read_number(text, "a whole number")
    if not number.is_integer():
        raise Wrong("must be a whole number")
    return int(number)


def _read_number(text: str, wanted: str = "a number") -> float:
    try:
        number = float(text)
    except ValueError:
        raise Wrong(f"must be {wanted}") from None
    if not math.isfinite(number):
        raise Wrong(f"must be {wanted}")
    return number


def _refuse(word: str) -> Any:
    raise ValueError(word)


def _suggest(name: str, known: list[str]) -> str:
    return f"there is no such input{suggest(name, known)}" if known else "there are no inputs"
