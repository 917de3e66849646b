"""Graphs and declarations that tests of the engine share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.nodes.spec import Context, Folders, Input, Node, Output

Graph = dict[str, Any]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """One node of a graph."""
    return {"class_type": class_type, "inputs": inputs}


def picture(color: int = 0, *, prefix: str = "test", **more: Any) -> Graph:
    """EmptyImage to SaveImage."""
    return {
        "1": node("EmptyImage", **{"width": 8, "height": 8, "batch_size": 1, "color": color} | more),
        "2": node("SaveImage", images=["1", 0], filename_prefix=prefix),
    }


def through(class_type: str, *, color: int = 0, save: str = "PreviewImage", **inputs: Any) -> Graph:
    """EmptyImage through a node for tests to an output."""
    return {
        "1": node("EmptyImage", width=8, height=8, batch_size=1, color=color),
        "3": node(class_type, value=["1", 0], **inputs),
        "2": node(save, images=["3", 0]),
    }


def make_folders(base: Path) -> Folders:
    """Four empty folders under `base`."""
    folders = Folders(base / "models", base / "input", base / "output", base / "temp")
    for path in (folders.models, folders.input, folders.output, folders.temp):
        path.mkdir(parents=True)
    return folders


def _pass(context: Context, **inputs: object) -> tuple[object, ...]:
    return tuple(inputs.values())


# A registry in miniature for the pure modules: SOURCE gives an INT, MIX takes two, SINK shows what it gets.
SOURCE = Node("Source", _pass, "test", {"value": Input("INT", {"min": 0, "max": 99})}, outputs=(Output("INT"),))
MIX = Node(
    "Mix",
    _pass,
    "test",
    {"a": Input("INT")},
    {"b": Input("INT"), "note": Input("STRING")},
    outputs=(Output("INT"), Output("TEXT")),
)
SINK = Node("Sink", _pass, "test", {"value": Input("INT")}, output_node=True)
UNIQUE = Node("Unique", _pass, "test", {"a": Input("INT")}, hidden={"id": "UNIQUE_ID"}, outputs=(Output("INT"),))
TINY = {declared.class_type: declared for declared in (SOURCE, MIX, SINK, UNIQUE)}
