"""Files that have an address of their own: whole, in part, or only described.

For: `send_file`. Leaves to others: which file an address names, and who may have it. Invariant: what is sent can do
nothing in the reader's name, whatever it is: pictures may be programs (SVG).
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from aiohttp import hdrs, web

from converter.api.answers import send
from converter.core.order import Content
from converter.core.ranges import read_range
from converter.media.deliver import disposition
from converter.media.outputs import Broken

_HARMLESS = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}
"""For browsers: a page of its own origin, without scripts, that is what it says it is."""


PIECE = 2**18
"""Bytes of an upload that are read at a time."""


class Source(Protocol):
    """What can be read once, from its beginning."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The content in pieces; raises Broken."""


class Upload:
    """Content that a caller has sent, as something to be sent."""

    def __init__(self, content: Content) -> None:
        self._content = content

    async def chunks(self) -> AsyncIterator[bytes]:
        """The content in pieces."""
        with self._content.open() as stream:
            while piece := await asyncio.to_thread(stream.read, PIECE):
                yield piece


async def send_file(
    request: web.Request, source: Source, size: int, content_type: str, name: str, headers: Mapping[str, str]
) -> web.StreamResponse:
    """The `size` bytes of a file, or the range of them that is asked for; raises RangeNotSatisfiable and EngineFailed.

    Players of videos ask for ranges, as do downloads that go on. A HEAD has none (RFC 9110 section 14.2). Files have no
    validator, so that nothing is known to be unchanged: with `If-Range` comes the whole (section 13.1.5).
    """
    about = {"Content-Type": content_type, "Content-Disposition": disposition(name), "Accept-Ranges": "bytes"}
    sent = {**_HARMLESS, **about, **headers}
    part = None
    if request.method == hdrs.METH_GET and hdrs.IF_RANGE not in request.headers:
        part = read_range(request.headers.get(hdrs.RANGE), size)
    if part is None:
        return await send(request, _Part(source, 0, size), sent)
    begin, end = part
    sent[hdrs.CONTENT_RANGE] = f"bytes {begin}-{end - 1}/{size}"
    return await send(request, _Part(source, begin, end), sent, status=206)


class _Part:
    """The bytes from `begin` to `end`, exclusive, of a source; what lies before them is read, too, and dropped."""

    def __init__(self, source: Source, begin: int, end: int) -> None:
        self._source = source
        self._begin = begin
        self._end = end

    def __len__(self) -> int:
        return self._end - self._begin

    async def __aiter__(self) -> AsyncIterator[bytes]:
        place = 0
        async for chunk in self._source.chunks():
            piece = chunk[max(0, self._begin - place) : self._end - place]
            place += len(chunk)
            if piece:
                yield piece
            if place >= self._end:
                return
        if place < self._end:
            raise Broken("the content is shorter than it was")
