"""Guarded downloads: what a caller's URL leads to, taken without being led anywhere else.

For: inputs given as http(s) URLs. Leaves to `core.address` which URLs and addresses may be asked for.

Invariant: a connection is made to an address that was vetted and to no other. A host is resolved once for each
request, by ourselves, and the connection gets what was vetted of the answer; the name stays for TLS and `Host`. Every
redirect is vetted anew. Nothing of the caller's request goes along: no header, cookie or credential. Proxies that the
environment names are not used: they would resolve anew.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    ServerTimeoutError,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from converter.core.address import Refused, Target, is_public, vet
from converter.media.spool import Content, Spool

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The IP addresses of a host; raises OSError where there are none."""

CONNECT = 10.0
"""Seconds for a connection, TLS included."""

STALL = 20.0
"""Seconds between two pieces of a download."""

LOOKUPS = 8
"""Hosts that are resolved at once: each takes a thread for as long as the name servers let it wait."""

_MOVED = (301, 302, 303, 307, 308)
_HEADERS = {"User-Agent": "converter", "Accept": "*/*", "Accept-Encoding": "identity"}


class Unfetched(Exception):
    """There is nothing usable behind a URL. The text goes on from "the URL", and repeats nothing of it."""


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
        self._resolve = resolve or self._look_up
        self._tls = tls
        self._threads = ThreadPoolExecutor(LOOKUPS, "lookup")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def fetch(self, url: str, spool: Spool, allowance: Allowance) -> Content:
        """What the URL leads to; raises Unfetched, and Refused for a URL that is not to be asked for."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._follow(vet(url, self.trusted), spool, allowance)
        except ServerTimeoutError:
            raise Unfetched("has a host that does not answer, or stalls") from None
        except TimeoutError:
            raise Unfetched(f"was not fetched within {self._timeout:g} s") from None
        except (ClientError, OSError, ValueError) as error:  # ValueError: what yarl says of a URL
            raise Unfetched(_explain(error)) from error

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
        addresses = [target.host] if target.is_literal else await self._vetted(target)
        connector = TCPConnector(
            resolver=_Pinned(addresses), use_dns_cache=False, force_close=True, ssl=self._tls or True
        )
        timeout = ClientTimeout(total=None, sock_connect=CONNECT, sock_read=STALL)
        session = ClientSession(
            connector=connector, timeout=timeout, cookie_jar=DummyCookieJar(), trust_env=False, auto_decompress=False
        )
        await stack.enter_async_context(session)
        url = URL(target.url, encoded=target.url.isascii())
        if (url.scheme, url.host, url.port) != (target.scheme, target.host, target.port):
            raise Unfetched("can be read in two ways")
        return await stack.enter_async_context(session.get(url, headers=_HEADERS, allow_redirects=False))

    async def _vetted(self, target: Target) -> list[str]:
        # A dot at the end keeps the search list of the machine out of it: `redis.default` is no public name.
        name = target.host if target.trusted else f"{target.host}."
        found = await self._resolve(name, target.port)
        vetted = [address for address in found if target.trusted or is_public(address)]
        if not vetted:
            raise Unfetched("leads to an address that is not public")
        return vetted

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        def ask() -> Sequence[str]:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return list(dict.fromkeys(str(place[0]) for *_, place in found))

        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)


class _Pinned(AbstractResolver):
    """Resolves every host to the same addresses."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""


async def _read(response: ClientResponse, spool: Spool, allowance: Allowance) -> Content:
    """The body, within the allowance; a body that breaks off before its announced end raises ClientError."""
    if response.status != 200:
        raise Unfetched(f"is answered with status {response.status}")
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Unfetched("is answered with an encoding that was not asked for")
    if response.content_length is not None:
        allowance.take(response.content_length, 0)
    async for chunk in response.content.iter_any():
        allowance.take(spool.size + len(chunk), len(chunk))
        await spool.write(chunk)
    return await spool.end()


def _explain(error: Exception) -> str:
    """Without names and addresses: what is behind a name is nothing that a caller is told."""
    causes = (error, error.__cause__)
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return "has a host whose certificate or TLS is not valid"
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return "has a host that is not known"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "has a host that refuses connections"
    return "has a connection that failed or broke off"
