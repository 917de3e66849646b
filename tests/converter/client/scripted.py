"""A small real server that plays the public contract by script: events, refusals, answers that break off.

    async with serving([refusal, playing(("result", result()))]) as server:
        ...  # call server.url; server.asked has what came

Invariant: each handler answers one request, in their order, and the last one all that follow.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from multidict import CIMultiDictProxy

from converter.core import sse

PICTURE = b"\x89PNG picture"
OUTPUT = {
    "node_id": "9",
    "class_type": "SaveImage",
    "name": "ComfyUI_00001_.png",
    "kind": "image",
    "content_type": "image/png",
    "size": len(PICTURE),
    "data": base64.b64encode(PICTURE).decode(),
}
STATUS = {"state": "waiting", "position": 2, "estimated_seconds": 12.3}
PROGRESS = {
    "value": 0.25,
    "nodes_done": 1,
    "nodes_total": 4,
    "node_id": "3",
    "class_type": "KSampler",
    "step": 5,
    "steps": 20,
}
WORKFLOW = {"9": {"class_type": "SaveImage", "inputs": {}}}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Asked:
    """A request, read whole before it was answered."""

    path: str
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Scripted:
    """A server that runs. `gone` is set when a caller has left before its answer was whole."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def keys(self) -> list[str]:
        """The idempotency key of each request."""
        return [asked.headers["Idempotency-Key"] for asked in self.asked]


@asynccontextmanager
async def serving(handlers: Handler | Sequence[Handler], prefix: str = "") -> AsyncIterator[Scripted]:
    """A server of the doors that run work, under `prefix`."""
    script = [handlers] if callable(handlers) else list(handlers)
    scripted = Scripted()

    async def answer(request: web.Request) -> web.StreamResponse:
        body = b"".join([chunk async for chunk in request.content.iter_any()])
        handler = script[min(len(scripted.asked), len(script) - 1)]
        scripted.asked.append(Asked(request.path_qs, request.headers, body))
        scripted.came.set()
        try:
            return await handler(request)
        except asyncio.CancelledError:
            scripted.gone.set()
            raise

    app = web.Application()
    app.router.add_post(f"{prefix}/v1/run", answer)
    app.router.add_route("*", f"{prefix}/v1/workflows/{{name}}", answer)
    async with TestServer(app) as server:
        await server.start_server(handler_cancellation=True)
        scripted.url = str(server.make_url(prefix)).rstrip("/")
        yield scripted


def playing(*events: tuple[str, Any], then: Callable[[web.Request], Awaitable[None]] | None = None) -> Handler:
    """A handler that sends these events, does what comes `then`, and ends."""

    async def play(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(sse.comment())
        for event, data in events:
            await response.write(sse.encode(event, data if isinstance(data, str) else json.dumps(data), "7"))
        if then is not None:
            await then(request)
        return response

    return play


async def hang(request: web.Request) -> None:
    """Say nothing more, until the caller leaves."""
    await asyncio.Event().wait()


async def cut(request: web.Request) -> None:
    """Reset the connection."""
    assert request.transport
    request.transport.abort()


async def reset(request: web.Request) -> web.StreamResponse:
    """A handler that resets the connection before it answers."""
    await cut(request)
    return web.Response()


def result(*outputs: dict[str, Any], **members: Any) -> dict[str, Any]:
    """The data of the event `result`."""
    return {"id": "j1", "status": "succeeded", "outputs": outputs, "timings": {"total": 0.1}, "engine": {}, **members}


def document(status: int, code: str, **members: Any) -> dict[str, Any]:
    """A problem document."""
    return {"title": "Title", "status": status, "code": code, "detail": "detail", "request_id": "r1", **members}


def problem(status: int, code: str, headers: dict[str, str] | None = None, **members: Any) -> Handler:
    """A handler that answers with a problem document."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(
            document(status, code, **members), status=status, headers=headers, content_type="application/problem+json"
        )

    return answer


def telling(document: object) -> Handler:
    """A handler that answers with JSON."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(document)

    return answer


def saying(text: str = "", status: int = 200, headers: dict[str, str] | None = None) -> Handler:
    """A handler that answers as no converter would."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=status, headers=headers)

    return answer
