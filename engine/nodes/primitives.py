"""Primitives: nodes that hold one value, for several others to take.

For: PrimitiveString, PrimitiveStringMultiline, PrimitiveInt, PrimitiveFloat and PrimitiveBoolean of ComfyUI 0.3.64.
Leaves converting and checking the value to `graph`, as for every widget.
Invariant: what goes in comes out.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from engine.nodes.spec import Context, Input, Node, Output


def give(context: Context, value: object) -> tuple[object]:
    """The value."""
    return (value,)


def _declare(name: str, type: str, options: Mapping[str, object], display_name: str, description: str) -> Node:
    return Node(
        f"Primitive{name}",
        give,
        "utils/primitive",
        required={"value": Input(type, options)},
        outputs=(Output(type),),
        display_name=display_name,
        description=description,
    )


_RANGE = {"min": -sys.maxsize, "max": sys.maxsize}

NODES = (
    _declare("String", "STRING", {"multiline": False}, "String", "Gives a line of text."),
    _declare("StringMultiline", "STRING", {"multiline": True}, "String (Multiline)", "Gives a text of several lines."),
    _declare("Int", "INT", {**_RANGE, "control_after_generate": True}, "Int", "Gives a whole number."),
    _declare("Float", "FLOAT", _RANGE, "Float", "Gives a number."),
    _declare("Boolean", "BOOLEAN", {}, "Boolean", "Gives true or false."),
)
