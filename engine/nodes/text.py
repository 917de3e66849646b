"""Nodes of text.

For: PreviewAny, which shows any value as text, as ComfyUI 0.3.64 does. Leaves pictures to `images`.
Invariant: whatever it is given, it shows exactly one text.
"""

from __future__ import annotations

import json

from engine.nodes.spec import Context, Input, Node, Result


def show(context: Context, source: object = None) -> Result:
    """Text as it is, numbers and truth values as Python writes them, JSON values as JSON, all else by its own text."""
    if isinstance(source, str):
        return Result(ui={"text": [source]})
    if source is None or isinstance(source, bool | int | float):
        return Result(ui={"text": [str(source)]})
    try:
        text = json.dumps(source)
    except (TypeError, ValueError, RecursionError):
        text = str(source)
    return Result(ui={"text": [text]})


NODES = (
    Node(
        "PreviewAny",
        show,
        "utils",
        required={"source": Input("*")},
        output_node=True,
        display_name="Preview Any",
        description="Shows any value as text.",
    ),
)
