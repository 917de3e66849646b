"""The server around the doors: request ids, faults as answers, the access log.

Invariant: whatever a handler raises becomes exactly one answer of the public contract, or the caller has left.
"""

import asyncio
import logging
import re
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Self, cast

from aiohttp import web

from converter.api.answers import JOB_ID, KEY_NAME, REPLAYED, REQUEST_ID, break_off, render
from converter.api.bodies import expect
from converter.api.connections import Connection
from converter.errors import Fault, Internal, InvalidRequest, MethodNotAllowed, NotFound, TooLarge

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

BEGUN = web.RequestKey("begun", bool)
"""Whether the head of an answer has been made: after that there can't be another."""

_SANE_ID = re.compile(r"[A-Za-z0-9._:+/=@-]{1,128}")


def make_app(routes: Iterable[web.RouteDef], closing: Callable[[], bool]) -> web.Application:
    """The application of all doors. While `closing`, connections are not kept: their callers go elsewhere."""

    async def sign(request: web.Request, response: web.StreamResponse) -> None:
        request[BEGUN] = True
        response.headers["X-Request-Id"] = request.get(REQUEST_ID) or uuid.uuid4().hex
        response.headers["Server"] = "converter"
        if request.get(REPLAYED):
            response.headers["Idempotency-Replayed"] = "true"
        if closing():
            response.force_close()
            response.headers["Connection"] = "close"  # aiohttp has decided on this header before the hook runs

    app = web.Application(middlewares=[_answer_always])
    app.add_routes(
        web.route(route.method, route.path, route.handler, expect_handler=expect, **route.kwargs) for route in routes
    )
    app.on_response_prepare.append(sign)
    return app


@web.middleware
async def _answer_always(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Name the request, and turn whatever is raised into the answer that the contract has for it."""
    given = request.headers.get("X-Request-Id", "")
    request[REQUEST_ID] = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
    begun = asyncio.get_running_loop().time()
    status = 499
    try:
        response = await _respond(request, handler)
        status = response.status
        return response
    finally:
        if log.isEnabledFor(logging.INFO):
            seconds = round(asyncio.get_running_loop().time() - begun, 4)
            fields = {"method": request.method, "path": request.path, "status": status, "seconds": seconds}
            about = {name: request[key] for name, key in (("job", JOB_ID), ("key", KEY_NAME)) if key in request}
            log.log(_level(request.path), "request", extra={**fields, **about, "request": request[REQUEST_ID]})


def _level(path: str) -> int:
    """Probes come all the time and say nothing."""
    return logging.DEBUG if path.endswith(("z", "/metrics", "/live", "/ready")) else logging.INFO


async def _respond(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Fault as error:
        fault = error
    except web.HTTPException as error:
        fault = _translate(error)
    except ConnectionResetError:  # the caller has left, or the answer was aborted
        raise
    except Exception:  # a boundary: a mistake of ours is one answer, and never the replica's end
        log.exception("a request failed", extra={"request": request[REQUEST_ID]})
        fault = Internal("the service made a mistake")
    if request.get(BEGUN):
        raise break_off(request)
    return render(fault, request[REQUEST_ID])


def _translate(error: web.HTTPException) -> Fault:
    """What aiohttp itself refuses, in our words."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return MethodNotAllowed(f"{error.method} is not allowed here; allowed: {allowed}", allow=allowed)
    if isinstance(error, web.HTTPNotFound):
        return NotFound("there is no such path")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return TooLarge("the body is larger than the server takes")
    return InvalidRequest([{"pointer": "", "detail": "the request can't be read"}])


class Door:
    """An address that is taken while this is entered, which raises OSError; nobody is served there before `open`."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: self._connect(), self._host, self._port, backlog=1024, start_serving=False
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def open(self, connect: Callable[[], asyncio.Protocol]) -> str:
        """Take connections; the address. Raises OSError where somebody else was quicker."""
        self._connect = connect
        await self._listener.start_serving()
        return _address(self._listener.sockets[0])

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()


@asynccontextmanager
async def listen(app: web.Application, door: Door, keep_alive: float) -> AsyncIterator[str]:
    """Serve the application; the address at which it listens. A caller who leaves cancels its handler."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=5.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        server = cast("web.Server", runner.server)  # there is one between setup and cleanup
        options: dict[str, Any] = {"loop": loop, "access_log": None, "keepalive_timeout": keep_alive}
        stack.callback(door.close)
        yield await door.open(lambda: Connection(server, **options))


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
