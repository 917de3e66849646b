"""Guarded downloads: what a caller's URL leads to, taken without being led anywhere else.

For: inputs given as http(s) URLs. Leaves to `core.address` which URLs may be asked for, and to `vetted` where a
connection is made to. Invariant: every redirect is vetted anew; nothing of the caller's request goes along: no header,
cookie or credential.
"""

import asyncio
import socket
import ssl
from collections.abc import Collection
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

from aiohttp import ClientError, ClientResponse, ClientTimeout, ServerTimeoutError

from converter.core.address import Refused, Target, vet
from converter.media.spool import Content, Spool
from converter.media.vetted import Closed, Dialer, Resolve

CONNECT = 10.0
"""Seconds for a connection, TLS included."""

STALL = 20.0
"""Seconds between two pieces of a download."""

_MOVED = (301, 302, 303, 307, 308)
PASSING = frozenset({408, 425, 429})
"""Statuses below 500 after which another attempt may help (RFC 9110, 8470, 6585)."""

_PASSING = PASSING | {500, 502, 503, 504}
_HEADERS = {"User-Agent": "converter", "Accept": "*/*", "Accept-Encoding": "identity"}


class Unfetched(Exception):
    """There is nothing usable behind a URL. The text goes on from "the URL", and repeats nothing of it.

    `passing`: another try may find more.
    """

    def __init__(self, reason: str, *, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


class Allowance:
    """How many bytes the inputs of one request may have: each alone, and what is left for all together."""

    def __init__(self, each: int, together: int) -> None:
        self.each = each
        self.left = together

    def take(self, size: int, count: int) -> None:
        """`count` more bytes of an input that has `size` with them; raises Unfetched."""
        self.left -= count
        if size > self.each:
            raise Unfetched(f"has more than the {self.each} bytes that an input may have")
        if self.left < 0:
            raise Unfetched("has more bytes than are left for the inputs of one request")


class Fetcher:
    """Downloads, as an async context manager. `timeout` is in seconds, for one input, redirects included.

    trusted: origins that may be private, by the operator's word. tls: for https, the system's roots unless given.
    """

    def __init__(
        self,
        timeout: float,
        redirects: int,
        trusted: Collection[str] = (),
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.trusted = frozenset(trusted)
        self._timeout = timeout
        self._redirects = redirects
        self._dialer = Dialer(resolve=resolve, tls=tls)

    async def __aenter__(self) -> Self:
        await self._dialer.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._dialer.__aexit__(kind, error, trace)

    async def fetch(self, url: str, spool: Spool, allowance: Allowance) -> Content:
        """What the URL leads to; raises Unfetched, and Refused for a URL that is not to be asked for."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._follow(vet(url, self.trusted), spool, allowance)
        except ServerTimeoutError:
            raise Unfetched("has a host that does not answer, or stalls", passing=True) from None
        except TimeoutError:
            raise Unfetched(f"was not fetched within {self._timeout:g} s", passing=True) from None
        except (ClientError, OSError, ValueError) as error:  # ValueError: what yarl says of a URL
            raise Unfetched(explain(error), passing=_passes(error)) from error

    async def _follow(self, target: Target, spool: Spool, allowance: Allowance) -> Content:
        for _ in range(self._redirects + 1):
            async with AsyncExitStack() as stack:
                response = await self._ask(target, stack)
                if response.status not in _MOVED:
                    return await _read(response, spool, allowance)
                place = response.headers.get("Location")
            if place is None:
                raise Unfetched("is answered with a redirect that leads nowhere")
            target = self._redirect(target, place)
        raise Unfetched(f"is redirected more than {self._redirects} times")

    def _redirect(self, target: Target, place: str) -> Target:
        try:
            following = vet(urljoin(target.url, place), self.trusted)
        except (Refused, ValueError) as error:
            raise Unfetched(f"is redirected to one that {error}") from error
        if target.scheme == "https" and following.scheme == "http":
            raise Unfetched("is redirected from https to http")
        return following

    async def _ask(self, target: Target, stack: AsyncExitStack) -> ClientResponse:
        """The answer's head, from an address that was vetted."""
        timeout = ClientTimeout(total=None, sock_connect=CONNECT, sock_read=STALL)
        try:
            session, url = await stack.enter_async_context(self._dialer.dial(target, timeout))
        except Closed as error:
            raise Unfetched(str(error)) from error
        return await stack.enter_async_context(session.get(url, headers=_HEADERS, allow_redirects=False))


async def _read(response: ClientResponse, spool: Spool, allowance: Allowance) -> Content:
    """The body, within the allowance; a body that breaks off before its announced end raises ClientError."""
    if response.status != 200:
        raise Unfetched(f"is answered with status {response.status}", passing=response.status in _PASSING)
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Unfetched("is answered with an encoding that was not asked for")
    if response.content_length is not None:
        allowance.take(response.content_length, 0)
    async for chunk in response.content.iter_any():
        allowance.take(spool.size + len(chunk), len(chunk))
        await spool.write(chunk)
    return await spool.end()


def explain(error: Exception) -> str:
    """Without names and addresses: what is behind a name is nothing that a caller is told."""
    causes = (error, error.__cause__)
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return "has a host whose certificate or TLS is not valid"
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return "has a host that is not known"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "has a host that refuses connections"
    return "has a connection that failed or broke off"


def _passes(error: Exception) -> bool:
    """Whether another try may get further: not where a name is known not to exist, or TLS or the URL is wrong."""
    lasting = any(
        isinstance(cause, ssl.SSLError | ValueError)
        or (isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN)
        for cause in (error, error.__cause__)
    )
    return not lasting
