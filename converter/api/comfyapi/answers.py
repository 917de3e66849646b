"""Answers of this dialect: JSON, and content in whole or in part.

Invariant: every answer names its request, in the header that the API has for that.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import web

from converter.api.answers import REQUEST_ID, send
from converter.api.comfyapi.outputs import Source
from converter.core.ranges import Unsatisfiable, read_range
from converter.media.deliver import disposition
from converter.media.outputs import Broken


def answer(request: web.Request, document: Mapping[str, Any], status: int = 200) -> web.Response:
    """A JSON answer."""
    headers = {"X-Comfy-Request-Id": request[REQUEST_ID]}
    return web.json_response(document, status=status, headers=headers)


def origin(request: web.Request, public_url: str) -> str:
    """What addresses of ours begin with, as this caller sees them."""
    return public_url or f"{request.scheme}://{request.host}"


async def send_content(
    request: web.Request, source: Source, size: int, content_type: str, name: str
) -> web.StreamResponse:
    """Content, or the range of it that is asked for (RFC 9110 section 14); `size` in bytes."""
    headers = {
        "X-Comfy-Request-Id": request[REQUEST_ID],
        "Content-Type": content_type,
        "Content-Disposition": disposition(name),
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",  # for browsers: whatever it is, it does nothing here
    }
    try:
        part = read_range(request.headers.get("Range"), size)
    except Unsatisfiable:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
    if part is None:
        return await send(request, Piece(source, 0, size), headers)
    begin, end = part
    headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
    return await send(request, Piece(source, begin, end), headers, status=206)


class Piece:
    """The bytes from `begin` to `end`, exclusive, of a source."""

    def __init__(self, source: Source, begin: int, end: int) -> None:
        self._source = source
        self._begin = begin
        self._end = end

    def __len__(self) -> int:
        """Bytes."""
        return self._end - self._begin

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The bytes in pieces; raises Broken where the source is shorter."""
        place = 0
        async for chunk in self._source.chunks():
            piece = chunk[max(0, self._begin - place) : self._end - place] if place < self._end else b""
            place += len(chunk)
            if piece:
                yield piece
            if place >= self._end:
                return
        if place < self._end:
            raise Broken("the content is shorter than it was")
