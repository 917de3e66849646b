"""The workflows that are measured: no work, so that nothing but the way to the engine and back takes time.

Invariant: each call makes a graph that no cache of an engine has seen, unless it is asked for the same `tag` twice.
"""

from collections.abc import Mapping
from itertools import count
from typing import Any
from uuid import uuid4

Graph = Mapping[str, Any]

SIDE = 64
"""Pixels."""

_run = uuid4().hex[:8]
_colors = count(1)


def paint(tag: str) -> Graph:
    """A picture of a colour that was not there before. `tag` names the folder: engines look through it at each save."""
    return _save(_empty(next(_colors)), tag)


def repeat(tag: str) -> Graph:
    """A picture that is the same for the same tag: the engine answers from its cache, with the same file."""
    return _save(_empty(0xFFFFFF), tag)


def pass_on(tag: str, image: object) -> Graph:
    """A picture that comes with the request, saved as it is."""
    return _save({"1": _node("LoadImage", image=image)}, tag)


def paint_beside(workflow: Graph) -> Graph:
    """The workflow, and beside it a small picture that was not there before and is not answered: something is run."""
    empty = _empty(next(_colors))["1"]
    return {**workflow, "11": empty, "12": _node("PreviewImage", images=["11", 0])}


def sleep(tag: str, seconds: float) -> Graph:
    """A picture that takes `seconds` and reports a step each 0.01 s, two messages a step."""
    graph = _empty(next(_colors)) | {"2": _node("TestSleep", value=["1", 0], seconds=seconds)}
    return _save(graph, tag)


def doze(tag: str, seconds: float) -> Graph:
    """The same without steps: nothing is told while it takes its `seconds`."""
    graph = _empty(next(_colors)) | {"2": _node("TestSleepDeaf", value=["1", 0], seconds=seconds)}
    return _save(graph, tag)


def _empty(color: int) -> dict[str, object]:
    return {"1": _node("EmptyImage", width=SIDE, height=SIDE, batch_size=1, color=color % 0x1000000)}


def _save(graph: dict[str, object], tag: str) -> Graph:
    last = max(graph)
    return {**graph, "9": _node("SaveImage", images=[last, 0], filename_prefix=f"bench/{_run}/{tag}/p")}


def _node(class_type: str, **inputs: object) -> dict[str, object]:
    return {"class_type": class_type, "inputs": inputs}
