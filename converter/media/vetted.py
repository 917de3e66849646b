"""Vetted connections: to where a caller's URL leads, and to no other address.

For: whoever asks or tells a service that a caller has named. Leaves to `core.address` which URLs and addresses may be
connected to. Invariant: a connection is made to an address that was vetted. A host is resolved once for each, by
ourselves, and the connection gets what was vetted of the answer; the name stays for TLS and `Host`. Proxies that the
environment names are not used: they would resolve anew.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from converter.core.address import Target, is_public

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The IP addresses of a host; raises OSError where there are none."""

LOOKUPS = 64
"""Hosts that are resolved at once: each takes a thread for as long as the name servers let it wait."""


class Closed(Exception):
    """A target is not connected to. The text goes on from "the URL", and repeats nothing of it."""


class Dialer:
    """Connections to targets, as an async context manager. `tls`: for https, the system's roots unless given."""

    def __init__(self, *, resolve: Resolve | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._resolve = resolve or self._look_up
        self._tls = tls
        self._threads = ThreadPoolExecutor(LOOKUPS, "lookup")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def dial(self, target: Target, timeout: ClientTimeout) -> AsyncIterator[tuple[ClientSession, URL]]:
        """A session that reaches vetted addresses alone, and the URL to ask it for.

        Raises Closed, OSError where the host can't be resolved, and ValueError where yarl can't read the URL.
        """
        addresses = [target.host] if target.is_literal else await self._vetted(target)
        connector = TCPConnector(
            resolver=_Pinned(addresses), use_dns_cache=False, force_close=True, ssl=self._tls or True
        )
        async with ClientSession(
            connector=connector, timeout=timeout, cookie_jar=DummyCookieJar(), trust_env=False, auto_decompress=False
        ) as session:
            url = URL(target.url, encoded=target.url.isascii())
            if (url.scheme, url.raw_host, url.port) != (target.scheme, target.host, target.port):
                raise Closed("can be read in two ways")
            yield session, url

    async def _vetted(self, target: Target) -> list[str]:
        # A dot at the end keeps the search list of the machine out of it: `redis.default` is no public name.
        name = target.host if target.trusted else f"{target.host}."
        found = await self._resolve(name, target.port)
        vetted = [address for address in found if target.trusted or is_public(address)]
        if not vetted:
            raise Closed("leads to an address that is not public")
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
