"""What every dialect makes of every fault: for the test that nothing is left out, and for the table that shows it."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from converter import errors
from converter.api.answers import render
from converter.api.bodies import Bounds
from converter.api.comfyui import open_passthrough
from converter.api.dialects import SPOKEN, Hall, open_dialects
from converter.errors import Fault, InvalidRequest

DETAIL = "why it is so"


def _descend(kind: type[Fault]) -> Iterator[type[Fault]]:
    for below in kind.__subclasses__():
        yield below
        yield from _descend(below)


FAULTS = [kind for kind in _descend(Fault) if kind not in (errors.Refusal, errors.Unavailable)]
"""Every fault that has a code of its own."""


def make(kind: type[Fault]) -> Fault:
    """A fault of this kind."""
    if issubclass(kind, InvalidRequest):
        return kind([{"pointer": "/a", "detail": DETAIL}])
    return kind(DETAIL, retry_after=7 if kind.retry == "later" else None)


def render_all(fault: Fault) -> Mapping[str, web.Response]:
    """The answer of each dialect, by its name."""

    async def collect() -> dict[str, web.Response]:
        # Opening a dialect asks nothing of its hall, and rendering less.
        nothing: Any = None
        hall = Hall(nothing, nothing, {}, dict, Bounds(1, 1.0), 1.0, 1.0, 1.0, 1, "", nothing, nothing, nothing)
        async with open_dialects(tuple(SPOKEN), hall) as dialects, open_passthrough(hall, root=False) as passthrough:
            own = {**dict(zip(SPOKEN, dialects, strict=True)), "ComfyUI": passthrough}
            return {"native": render(fault, "the-id")} | {
                name: dialect.render(fault, "the-id") for name, dialect in own.items()
            }

    return asyncio.run(collect())


def code_of(response: web.Response) -> str:
    """The word by which programs tell the fault: `code`, else `type`, wherever in the body it is."""
    assert isinstance(response.body, bytes)
    document = json.loads(response.body)
    return next((found for name in ("code", "type") for found in _find(document, name)), "")


def _find(document: Any, name: str) -> Iterator[str]:
    if isinstance(document, dict):
        if isinstance(document.get(name), str):
            yield document[name]
        for value in document.values():
            yield from _find(value, name)
