"""Outputs under links: whoever has one fetches the bytes, without a key.

Leaves to others: what a link is (`core.references`) and where the bytes come from (`jobs`). Invariant: what is sent
can do nothing in the reader's name, whatever it is: pictures may be programs (SVG).
"""

from contextlib import AsyncExitStack

from aiohttp import web

from converter.api.answers import send_item
from converter.jobs import Jobs
from converter.media.links import PATH

ROUTE = PATH + "{reference}"

HARMLESS = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}
"""For browsers: a page of its own origin, without scripts, that is what it says it is."""


class Outputs:
    """The handler."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        return [web.get(ROUTE, self.show, allow_head=False)]

    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/outputs/REFERENCE`."""
        async with AsyncExitStack() as stack:
            item, seconds = await self._jobs.follow(request.match_info["reference"], stack)
            headers = HARMLESS | {"Cache-Control": f"private, max-age={seconds}"}
            return await send_item(request, item, headers)
