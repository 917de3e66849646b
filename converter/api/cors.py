"""CORS: what browsers are told of which web pages may call (WHATWG Fetch, section 3.2).

Own code, since a service with explicit origins needs four headers and one answer, while aiohttp-cors would have every
route registered again and answer in words of its own. Leaves to `core.origins` which origins are trusted. Invariant: no
page hears from us that it may, but those whose origin is named.
"""

from collections.abc import Collection

from aiohttp import hdrs, web

from converter.api.operations import HEADERS, PARAMETERS
from converter.core.origins import Verdict, judge, origin_of
from converter.core.workflow import clip
from converter.errors import Forbidden

MAX_AGE = 600
"""Seconds for which browsers may remember the answer to a preflight."""

_METHODS = "GET, HEAD, POST, DELETE"
_ASKED = ("Authorization", "Content-Type", *(name for name, each in PARAMETERS.items() if each["in"] == "header"))


class Cors:
    """`named`: the origins whose pages may call. `public_url`: our own address, "" where it is not known."""

    def __init__(self, named: Collection[str], public_url: str) -> None:
        self._named = named
        self._own = origin_of(public_url) if public_url else None

    def check(self, request: web.Request, *, guarded: bool) -> web.Response | None:
        """The answer to a preflight, None where the request is none.

        Raises Forbidden for a preflight of a page that may not call; and for a page's request, unless the service is
        `guarded` by keys: no browser adds one by itself.
        """
        marks = {hdrs.ORIGIN, hdrs.ACCESS_CONTROL_REQUEST_METHOD}
        preflight = request.method == hdrs.METH_OPTIONS and all(mark in request.headers for mark in marks)
        if self._judge(request) is Verdict.FOREIGN and (preflight or not guarded):
            origin = clip(request.headers[hdrs.ORIGIN], 100)
            raise Forbidden(f"web pages of {origin} may not call; the setting cors_origins names those that may")
        if not preflight:
            return None
        headers = {
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: ", ".join(_ASKED),
            hdrs.ACCESS_CONTROL_MAX_AGE: str(MAX_AGE),
        }
        return web.Response(status=204, headers=headers)

    async def sign(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let pages whose origin is named read the answer, and caches know that others may not."""
        if not self._named:
            return
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        if self._judge(request) is Verdict.NAMED:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = request.headers[hdrs.ORIGIN]
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = ", ".join(HEADERS)

    def _judge(self, request: web.Request) -> Verdict:
        return judge(request.headers.get(hdrs.ORIGIN), request.host, self._named, self._own)
