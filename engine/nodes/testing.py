"""Nodes for tests and operators; the engine has them only when started with --test-nodes.

For: making an engine slow, broken, full or dead on purpose. Each passes an input of any type through, so that they can
be put anywhere into a workflow. Leaves everything useful to the other families.
Invariant: what a node here does wrong is what its name says, and nothing else.
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
from PIL import Image

from engine.nodes.spec import Context, Folders, Input, Node, Output, Preview, Result

_INTERVAL = 0.01  # seconds between steps, as in the test nodes of ComfyUI


class OutOfMemoryError(RuntimeError):
    """Stands for an accelerator without memory; named as torch names it."""


class Unprintable(RuntimeError):
    """Ends the thread that prints it, if that lets it."""

    def __str__(self) -> str:
        raise SystemExit


class Shapeless:
    """Fails whoever looks at it."""

    @property
    def shape(self) -> object:
        raise SystemExit


_KINDS: dict[str, type[BaseException]] = {
    "RuntimeError": RuntimeError,
    "ValueError": ValueError,
    "OutOfMemoryError": OutOfMemoryError,
    "SystemExit": SystemExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "Unprintable": Unprintable,
}


def sleep(context: Context, value: object, seconds: float, interval: float = _INTERVAL) -> tuple[object]:
    """Sleep, and report progress in seconds each `interval`. Stops when interrupted."""
    start = time.monotonic()
    while (elapsed := time.monotonic() - start) < seconds:
        context.progress(elapsed, seconds)
        time.sleep(min(interval, seconds - elapsed))
    context.progress(seconds, seconds)
    return (value,)


def sleep_deaf(context: Context, value: object, seconds: float) -> tuple[object]:
    """Sleep without progress, and without looking whether it is interrupted."""
    time.sleep(seconds)
    return (value,)


def preview(context: Context, value: object, steps: int, size: int = 64, interval: float = 0.0) -> tuple[object]:
    """Report `steps` steps, each with a JPEG of size x size pixels."""
    for step in range(1, steps + 1):
        buffer = io.BytesIO()
        Image.new("RGB", (size, size), (255 * step // steps, 0, 0)).save(buffer, "jpeg")
        context.progress(step, steps, Preview("jpeg", buffer.getvalue()))
        time.sleep(interval)
    return (value,)


def fail(context: Context, value: object, kind: str, message: str = "raised on purpose") -> tuple[object]:
    """Raise."""
    raise _KINDS[kind](message)


def exit_process(context: Context, value: object, code: int) -> tuple[object]:
    """End the whole process at once, as a crash does."""
    os._exit(code)


def allocate(context: Context, value: object, megabytes: int, seconds: float = 0.0) -> tuple[object]:
    """Hold memory for some seconds."""
    held = np.ones(megabytes << 20, np.uint8)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        context.check()
        time.sleep(min(_INTERVAL, seconds))
    del held
    return (value,)


def return_junk(context: Context, value: object, kind: str) -> Any:
    """Return what the declaration does not allow, or what cannot be shown."""
    return _JUNK[kind](value)


_JUNK: dict[str, Callable[[object], object]] = {
    "none": lambda value: None,
    "list": lambda value: [value],
    "too few": lambda value: (),
    "too many": lambda value: (value, value),
    "NaN picture": lambda value: (np.full((1, 8, 8, 3), np.nan, np.float32),),
    "NaN in ui": lambda value: Result((value,), {"text": [float("nan")]}),
    "object in ui": lambda value: Result((value,), {"text": [object()]}),
    "number as ui": lambda value: Result((value,), cast("Any", 7)),
    "text as ui list": lambda value: Result((value,), {"text": "text"}),
    "endless number": lambda value: (10**5000,),
    "shapeless": lambda value: (Shapeless(),),
    "endless text": lambda value: Result((value,), {"text": [_nest(sys.getrecursionlimit() * 2)]}),
}


def _nest(depth: int) -> list[object]:
    nested: list[object] = []
    for _ in range(depth):
        nested = [nested]
    return nested


def give_text(context: Context, text: str) -> tuple[str]:
    """A text as a value."""
    return (text,)


def make_list(context: Context, **values: object) -> tuple[list[object]]:
    """All inputs as the elements of one list output."""
    return (list(values.values()),)


def change_always(context: Context, value: object) -> tuple[object]:
    """Pass the value on, and never let it be cached."""
    return (value,)


def _never(folders: Folders, constants: Mapping[str, object]) -> object:
    return float("nan")


_ANY = Input("*")
_SECONDS = Input("FLOAT", {"default": 1.0, "min": 0.0, "max": 9999.0, "step": 0.01})
_STEP_SECONDS = Input("FLOAT", {"default": _INTERVAL, "min": 0.0, "max": 60.0, "step": 0.001})


def _declare(name: str, function: Callable[..., Any], required: dict[str, Input], **more: Any) -> Node:
    return Node(name, function, "testing", {"value": _ANY} | required, outputs=(Output("*"),), **more)


NODES = (
    _declare("TestSleep", sleep, {"seconds": _SECONDS}, optional={"interval": _STEP_SECONDS}),
    _declare("TestSleepDeaf", sleep_deaf, {"seconds": _SECONDS}),
    _declare(
        "TestPreview",
        preview,
        {"steps": Input("INT", {"default": 4, "min": 1, "max": 10_000})},
        optional={"size": Input("INT", {"default": 64, "min": 1, "max": 4096}), "interval": _STEP_SECONDS},
    ),
    _declare(
        "TestRaise",
        fail,
        {"kind": Input(choices=tuple(_KINDS))},
        optional={"message": Input("STRING", {"default": "raised on purpose"})},
    ),
    _declare("TestExit", exit_process, {"code": Input("INT", {"default": 1, "min": 0, "max": 255})}),
    _declare(
        "TestAllocate",
        allocate,
        {"megabytes": Input("INT", {"default": 64, "min": 0, "max": 1 << 20})},
        optional={"seconds": _SECONDS},
    ),
    _declare("TestReturnJunk", return_junk, {"kind": Input(choices=tuple(_JUNK))}),
    _declare("TestChangeAlways", change_always, {}, is_changed=_never),
    Node(
        "TestText",
        give_text,
        "testing",
        required={"text": Input("STRING", {"default": "", "multiline": True})},
        outputs=(Output("STRING"),),
    ),
    Node(
        "TestMakeListNode",
        make_list,
        "testing",
        required={"value1": _ANY},
        optional={f"value{index}": _ANY for index in range(2, 6)},
        outputs=(Output("*", is_list=True),),
    ),
)
