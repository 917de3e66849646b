"""The client: one service, and the calls to it.

Leaves a call's life to `stream`, and what is sent to `requests`. Invariant: whatever becomes of calls, no connection of
theirs is open when the client has been left.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, Unpack

import aiohttp

from converter.client.answers import Result
from converter.client.lookup import look_up
from converter.client.places import Places
from converter.client.requests import Options, Template
from converter.client.stream import Stream, Terms
from converter.core.address import parse_url
from converter.core.window import Window

URL = "http://127.0.0.1:3000"
TIMEOUT = 95.0
LIMIT = 64

_WAITS = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=60.0)
"""Seconds without any sign of life; a stream has comments at least every 15 s."""


class Client:
    """Calls one converter, or the load balancer before several, while it is entered.

    url: its address, with the path before `/v1` if there is one. api_key: sent as `Authorization: Bearer`. timeout:
    seconds for a whole call, from the wait for a place to the last byte; it is the order's timeout too, and None leaves
    that to the service. patience: seconds after its first failure in which a call is sent again, None for as long as
    its timeout. limit: calls that are ever in flight at once; how many are, follows from what the service refuses.
    on_retry: told what failed, and the seconds up to the next try. sleep: how that time is waited. Raises ValueError.
    """

    def __init__(
        self,
        url: str = URL,
        *,
        api_key: str | None = None,
        timeout: float | None = TIMEOUT,
        patience: float | None = None,
        limit: int = LIMIT,
        on_retry: Callable[[Exception, float], None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if api_key is not None and not re.fullmatch(r"[!-~]+", api_key):
            raise ValueError("an API key is printable ASCII without spaces")
        try:
            self._url = parse_url(url, example=URL)
        except ValueError as error:
            raise ValueError(f"url {error}") from None
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._terms = Terms(timeout, patience, on_retry, sleep)
        self._window = Window.open(limit)
        self._means: tuple[aiohttp.ClientSession, Places] | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0)
        session = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=_WAITS)
        self._means = session, Places(self._window)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, _ = self._require()
        self._means = None
        await session.close()

    @property
    def room(self) -> int:
        """How many calls may be in flight at present; more of them wait, in the order of asking."""
        _, places = self._require()
        return places.room

    async def describe(self, name: str) -> Mapping[str, Any]:
        """What the service says of a template: `title`, `description`, the JSON Schema of its `inputs`, `outputs`.

        Raises the faults of `converter.errors`, CallError, and RuntimeError for a client that is not entered.
        """
        session, _ = self._require()
        return await look_up(session, self._url, self._terms, name)

    def stream(self, work: Mapping[str, Any] | Template, **options: Unpack[Options]) -> Stream:
        """Run a workflow (in API format) or a template, and follow it; to be entered. See `Options`.

        Raises RuntimeError for a client that is not entered.
        """
        session, places = self._require()
        terms = replace(self._terms, timeout=options["timeout"]) if "timeout" in options else self._terms
        return Stream(session, self._url, places, terms, work, options)

    async def run(self, work: Mapping[str, Any] | Template, **options: Unpack[Options]) -> Result:
        """Run a workflow (in API format) or a template. See `Options`.

        Raises the faults of `converter.errors`; CallError; OSError for a file that can't be read; ValueError and
        TypeError for what can't be sent; RuntimeError for a client that is not entered. Who cancels this cancels the
        job.
        """
        async with self.stream(work, **options) as events:
            return await events.result()

    def _require(self) -> tuple[aiohttp.ClientSession, Places]:
        if self._means is None:
            raise RuntimeError("a client calls while it is entered: use it in `async with Client(...) as client:`")
        return self._means
