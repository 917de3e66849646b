"""One caller's connection: what aiohttp itself says on it, said as the public contract has it.

For: what comes before a request is one (bytes that are no HTTP, broken framing) and after an answer was begun. Leaves
requests to the doors. Invariant: a caller's broken bytes are answered 400 and are no errors in our log; an answer that
was begun is never followed by another.
"""

import logging
import uuid
from typing import Any

from aiohttp import web

from converter.api.answers import render
from converter.errors import Internal, InvalidRequest

log = logging.getLogger(__name__)


class Connection(web.RequestHandler):
    """aiohttp's connection, whose own answers and log lines are replaced by ours."""

    __slots__ = ()

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
