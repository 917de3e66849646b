"""A web server that takes PUTs, as object storage does for presigned URLs: well or badly, by how the path begins.

`/ok/...` takes all; `/STATUS/...` answers that status; `/twice/...` fails at first; `/moved/...` redirects;
`/silent/...` never answers; `/rude/...` breaks off. Invariant: what is in `taken` came whole, by its path.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from aiohttp import web


@dataclass(frozen=True)
class Taken:
    """One body that came whole."""

    headers: Mapping[str, str]
    body: bytes


class Taker:
    """Listens on the loopback."""

    def __init__(self) -> None:
        self.taken: dict[str, Taken] = {}
        self.asked: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**40)
        app.router.add_route("*", "/{mood}/{rest:.*}", self._take)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        assert request.method == "PUT"
        mood = request.match_info["mood"]
        self.asked[request.path] += 1
        if mood == "silent":
            await asyncio.Future()
        if mood == "rude":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        body = await request.read()
        if mood.isdigit():
            return web.Response(status=int(mood), text="a secret reason")
        if mood == "moved":
            raise web.HTTPTemporaryRedirect(f"{self.url}/ok/moved")
        if mood == "twice" and self.asked[request.path] < 2:
            return web.Response(status=503)
        self.taken[request.path] = Taken(request.headers, body)
        return web.Response(status=201)
