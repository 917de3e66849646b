"""A receiver of webhooks on a real socket, which verifies them with the official library.

    async with Receiver() as receiver, converter(engine.url, **receiver.settings) as caller:
        ...
        notice = await receiver.next()

`answers` are given in their order, None hangs up; after them every notice is taken. Invariant: what is in `notices` was
signed.
"""

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from standardwebhooks import Webhook

PATIENCE = 30.0
"""Seconds after which a wait for anything fails."""

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes, ok").decode()


@dataclass(frozen=True)
class Notice:
    """One notice as it came, whatever was answered."""

    id: str
    body: bytes
    document: Any
    headers: Mapping[str, str]

    @property
    def type(self) -> str:
        return str(self.document["type"])

    @property
    def data(self) -> Any:
        return self.document["data"]


class Receiver:
    """See the module."""

    def __init__(self, *answers: web.Response | None) -> None:
        self.answers = list(answers)
        self.notices: list[Notice] = []
        self.port = 0
        self._signer = Webhook(SECRET)
        self._came = asyncio.Event()
        self._seen = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/hook?token=planted-token"

    @property
    def settings(self) -> dict[str, Any]:
        """A converter's, so that it may tell this receiver."""
        return {"webhook_secret": SECRET, "webhook_origins": self.origin}

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**28)
        app.router.add_post("/hook", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self._signer.verify(body, dict(request.headers))
        self.notices.append(Notice(request.headers["webhook-id"], body, json.loads(body), dict(request.headers)))
        self._came.set()
        answer = self.answers.pop(0) if self.answers else web.Response(status=204)
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
        return answer or web.Response()

    async def until(self, count: int) -> list[Notice]:
        """All notices, once there are so many."""
        async with asyncio.timeout(PATIENCE):
            while len(self.notices) < count:
                self._came.clear()
                await self._came.wait()
        return self.notices

    async def next(self) -> Notice:
        """The next notice."""
        self._seen += 1
        return (await self.until(self._seen))[self._seen - 1]
