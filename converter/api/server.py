"""The server around the doors: request ids, faults as answers, the access log.

Invariant: whatever a handler raises becomes exactly one answer of the public contract, or the caller has left.
"""

import asyncio
import logging
import re
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from aiohttp import web

from converter.api.answers import JOB_ID, KEY_NAME, REPLAYED, REQUEST_ID, TIMES, break_off, render
from converter.api.bodies import expect
from converter.api.connections import Connection, Terms
from converter.api.dialects import Dialect
from converter.core.timing import overhead, server_timing
from converter.errors import Fault, Internal, InvalidRequest, MethodNotAllowed, NotFound, TooLarge
from converter.media.links import PATH

if TYPE_CHECKING:
    from converter.spans import RequestSpan, Tracing

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CAME_AT = web.RequestKey("came_at", float)
"""Where the moment at which a request's head was read is kept, by the loop's clock."""

BEGUN = web.RequestKey("begun", bool)
"""Whether the head of an answer has been made: after that there can't be another."""

PROBES = ("z", "/metrics", "/live", "/ready", "/health", "/status")
"""How the paths of probes end."""

TRACING = web.AppKey["Tracing | None"]("tracing")

DIALECTS = web.AppKey("dialects", Sequence[Dialect])

_SANE_ID = re.compile(r"[A-Za-z0-9._:+/=@-]{1,128}")


def make_app(
    routes: Iterable[web.RouteDef],
    closing: Callable[[], bool],
    tracing: "Tracing | None" = None,
    dialects: Sequence[Dialect] = (),
) -> web.Application:
    """The application of all doors. While `closing`, connections are not kept: their callers go elsewhere.

    `dialects` have words of their own for what goes wrong; their routes are among the others.
    """
    now = asyncio.get_running_loop().time

    async def sign(request: web.Request, response: web.StreamResponse) -> None:
        request[BEGUN] = True
        response.headers["X-Request-Id"] = request.get(REQUEST_ID) or uuid.uuid4().hex
        response.headers["Server"] = "converter"
        response.headers["Server-Timing"] = server_timing(now() - request.get(CAME_AT, now()), request.get(TIMES))
        if request.get(REPLAYED):
            response.headers["Idempotency-Replayed"] = "true"
        if closing():
            response.force_close()
            response.headers["Connection"] = "close"  # aiohttp has decided on this header before the hook runs

    app = web.Application(middlewares=[_answer_always])
    app[TRACING] = tracing
    app[DIALECTS] = dialects
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
    request[CAME_AT] = asyncio.get_running_loop().time()
    with _span(request) as span:
        status = 499
        try:
            response = await _respond(request, handler)
            status = response.status
            return response
        finally:
            if span is not None:
                span.answered(status, request[REQUEST_ID], request.get(JOB_ID))
            if log.isEnabledFor(_level(request)):
                _log_access(request, status, None if span is None else span.trace_id)


def _span(request: web.Request) -> AbstractContextManager["RequestSpan | None"]:
    """The request as a part of a trace, where traces are wanted and it is no probe."""
    tracing = request.app[TRACING]
    if tracing is None or _level(request) < logging.INFO:
        return nullcontext()
    resource = request.match_info.route.resource
    return tracing.request(request.method, resource.canonical if resource else None, request.headers)


def _log_access(request: web.Request, status: int, trace_id: str | None) -> None:
    seconds = asyncio.get_running_loop().time() - request[CAME_AT]
    fields: dict[str, Any] = {"method": request.method, "path": _name_path(request), "status": status}
    fields["seconds"] = round(seconds, 4)
    if TIMES in request:
        times = request[TIMES]
        fields |= {part: round(value, 4) for part, value in times.items()}
        fields["overhead"] = round(overhead(times, seconds), 4)
    named = {
        "job": request.get(JOB_ID),
        "request": request[REQUEST_ID],
        "key": request.get(KEY_NAME),
        "trace": trace_id,
    }
    fields |= {name: value for name, value in named.items() if value is not None}
    log.log(_level(request), "request", extra=fields)


def _name_path(request: web.Request) -> str:
    """The path; but a link to an output is a secret, also where it is asked for in a wrong way."""
    return f"{PATH}{{reference}}" if request.path.startswith(PATH) else request.path


def _level(request: web.Request) -> int:
    """Probes come all the time and say nothing."""
    return logging.DEBUG if request.path.endswith(PROBES) else logging.INFO


async def _respond(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Fault as error:
        fault = error.detached()
    except web.HTTPException as error:
        fault = _translate(error)
    except ConnectionResetError:  # the caller has left, or the answer was aborted
        raise
    except Exception:  # a boundary: a mistake of ours is one answer, and never the replica's end
        log.exception("a request failed", extra={"request": request[REQUEST_ID]})
        fault = Internal("the service made a mistake")
    if request.get(BEGUN):
        raise break_off(request)
    own = next((dialect for dialect in request.app[DIALECTS] if dialect.owns(request.path)), None)
    return (render if own is None else own.render)(fault, request[REQUEST_ID])


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

    def __init__(self, host: str, port: int, terms: Terms, tls: ssl.SSLContext | None = None) -> None:
        self.host = host
        self.port = port
        self.terms = terms
        self._tls = tls

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: self._connect(),
            self.host,
            self.port,
            backlog=1024,
            start_serving=False,
            ssl=self._tls,
            ssl_handshake_timeout=self.terms.head_seconds if self._tls else None,
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
        host, port = self._listener.sockets[0].getsockname()[:2]
        scheme = "https" if self._tls else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()


@asynccontextmanager
async def listen(app: web.Application, door: Door) -> AsyncIterator[str]:
    """Serve the application; the address at which it listens. A caller who leaves cancels its handler."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=5.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        server = cast("web.Server", runner.server)  # there is one between setup and cleanup
        stack.callback(door.close)
        yield await door.open(lambda: Connection(server, door.terms, loop))
