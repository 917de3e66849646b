"""One caller's connection: what aiohttp itself says on it, said as the public contract has it.

For: what comes before a request is one (bytes that are no HTTP, broken framing, a head that does not end) and after an
answer was begun. Leaves requests to the doors. Invariant: a caller's broken bytes are answered 400 and are nowhere in
our log, least of all as errors; no head takes longer than its time; an answer that was begun is never followed by
another.
"""

import asyncio
import logging
import uuid
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from aiohttp import web

from converter.api.answers import render
from converter.errors import Fault, Internal, InvalidRequest, RequestTimeout

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """What is granted to callers: seconds for an idle connection and for a head, bytes for a line of the head."""

    keep_alive: float
    head_seconds: float
    head_line: int


class Connection(web.RequestHandler):
    """aiohttp's connection, whose own answers and log lines are replaced by ours, and whose heads have a time limit.

    It begins with the first bytes: load balancers may open connections before they have a use for them.
    """

    __slots__ = ("_alarm", "_head_seconds")

    def __init__(self, server: web.Server, terms: Terms, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # None is how aiohttp is told to write none
            keepalive_timeout=terms.keep_alive,
            max_line_size=terms.head_line,
            max_field_size=terms.head_line,
        )
        self._head_seconds = terms.head_seconds
        self._alarm: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """The caller has gone."""
        self._drop_alarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come: of a head, if aiohttp waits for a request and none is whole with them."""
        known = self._request_count
        waits = not known or (self._waiter is not None and not self._waiter.done())
        super().data_received(data)
        if self._request_count > known:
            self._drop_alarm()
        elif waits and self._alarm is None:
            self._alarm = self._loop.call_later(self._head_seconds, self._end_wait)

    def _drop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _end_wait(self) -> None:
        if self.transport is not None:
            self.transport.write(_write(RequestTimeout(f"the head did not arrive within {self._head_seconds:g} s")))
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer where a handler raised or there is no request at all; the connection ends with it.

        Raises ConnectionError, which aiohttp takes as the caller's leaving, where nobody can be answered any more.
        """
        if isinstance(exc, ConnectionError) or request.writer.output_size:
            raise ConnectionError("the answer can't be ended")
        request_id = uuid.uuid4().hex
        fault: InvalidRequest | Internal
        if status < 500:
            log.debug("not HTTP: %s", type(exc).__name__)  # the message quotes what was sent
            fault = InvalidRequest(
                [{"pointer": "", "detail": "the request can't be read: it is not valid HTTP, or longer than is taken"}]
            )
        else:
            log.error("a connection failed", exc_info=exc, extra={"request": request_id})
            fault = Internal("the service made a mistake")
        response = render(fault, request_id)
        response.headers.update({"X-Request-Id": request_id, "Server": "converter"})
        response.force_close()
        return response

    def log_exception(self, *args: Any, **named: Any) -> None:
        """What aiohttp would log; a body that can't be read has been answered, if anybody wanted it."""
        if not isinstance(named.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **named)


def _write(fault: Fault) -> bytes:
    """An answer where there is no request that it could be the answer to."""
    request_id = uuid.uuid4().hex
    response = render(fault, request_id)
    body = response.body if isinstance(response.body, bytes) else b""
    headers = {**response.headers, "X-Request-Id": request_id, "Server": "converter"}
    headers |= {"Content-Length": str(len(body)), "Connection": "close"}
    head = [f"HTTP/1.1 {fault.status} {HTTPStatus(fault.status).phrase}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*head, "", ""]).encode() + body
