"""Outputs under links: whoever has one fetches the bytes, without a key.

Leaves to others: what a link is (`core.references`), where the bytes come from (`jobs`), how they are sent (`files`).
"""

from contextlib import AsyncExitStack

from aiohttp import web

from converter.api.files import send_file
from converter.jobs import Jobs
from converter.media.links import PATH

ROUTE = PATH + "{reference}"


class Outputs:
    """The handler."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        return [web.get(ROUTE, self.show)]

    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET` and `HEAD /v1/outputs/REFERENCE`."""
        async with AsyncExitStack() as stack:
            item, seconds = await self._jobs.follow(request.match_info["reference"], stack)
            output, headers = item.output, {"Cache-Control": f"private, max-age={seconds}"}
            return await send_file(request, item, item.size, output.content_type, output.name, headers)
