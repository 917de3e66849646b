"""The entrance: the ports of a replica, and what stands before them, made of the settings.

For: callers' port and that of the probes, TLS, keys, pages that may call. Leaves to others: what the doors answer
(`api`), and when files are read again (`renewal`). Invariant: ports are taken, and keys and certificates are known to
be usable, before anything else is started; nobody is served before all is there.
"""

import errno
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aiohttp import web

from converter.api.allowance import Allowance
from converter.api.connections import Terms
from converter.api.cors import Cors
from converter.api.dialects import Dialect, Probed
from converter.api.door import Doorkeeper, Keyring
from converter.api.openapi import OpenApi
from converter.api.operations import OPERATIONS
from converter.api.outputs import ROUTE
from converter.api.page import open_pages
from converter.api.server import Door, listen, make_app
from converter.api.tls import Certificate
from converter.causes import tell_cause
from converter.core.offers import Offer
from converter.errors import CannotStart
from converter.gate import Gate
from converter.renewal import Source
from converter.settings import Settings
from converter.telemetry import Metrics

if TYPE_CHECKING:
    from converter.spans import Tracing


@dataclass(frozen=True, slots=True)
class Doors:
    """What is served: the native dialect's routes, the other dialects, the probes, and templates to describe."""

    native: Sequence[web.RouteDef]
    dialects: Sequence[Dialect]
    probes: Sequence[web.RouteDef]
    offers: Callable[[], Mapping[str, Offer]]


class Entrance:
    """A replica's ports, taken while this is entered. Raises CannotStart, as entering and `open` do."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._certificate: Certificate | None = None
        self._keyring: Keyring | None = None
        if settings.tls_cert is not None:
            key = "" if settings.tls_key is None else f" with --tls-key {settings.tls_key}"
            with _reading(f"--tls-cert {settings.tls_cert}{key}"):
                self._certificate = Certificate(settings.tls_cert, settings.tls_key)
        if settings.api_keys is not None or settings.api_keys_file is not None:
            with _reading("the API keys"):
                self._keyring = Keyring(settings.api_keys, settings.api_keys_file)
        tls = None if self._certificate is None else self._certificate.context
        terms = Terms(settings.keep_alive, settings.header_timeout, settings.max_header)
        self._doors = [(Door(settings.host, settings.port, terms, tls), "--port")]
        if settings.probes_port is not None:
            self._doors.append((Door(settings.host, settings.probes_port, terms), "--probes-port"))

    @property
    def sources(self) -> Sequence[Source]:
        """What is to be read again when its files change."""
        known: tuple[Source | None, ...] = (self._certificate, self._keyring)
        return [source for source in known if source is not None]

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for door, flag in self._doors:
                with _listening(door, flag):
                    await stack.enter_async_context(door)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def open(
        self, doors: Doors, gate: Gate, metrics: Metrics, tracing: "Tracing | None"
    ) -> AsyncIterator[list[str]]:
        """Serve the doors, and the document about the native one; the addresses of callers' port and of the probes'."""
        apart = len(self._doors) > 1
        probes = [] if apart else doors.probes
        routes = [*doors.native, *probes]
        address = self._settings.public_url or ""
        openapi = OpenApi(routes, doors.offers, address, guarded=self._keyring is not None)
        page = open_pages() if self._settings.page else []
        routes += [*openapi.routes(), *page, *(route for dialect in doors.dialects for route in dialect.routes())]
        apps = [make_app(routes, lambda: gate.closed, tracing, doors.dialects)]
        self._make_doorkeeper([*page, *probes], doors.dialects, gate, metrics).guard(apps[0])
        if apart:
            apps.append(make_app(doors.probes, lambda: gate.closed))
        async with AsyncExitStack() as stack:
            addresses = []
            for app, (door, flag) in zip(apps, self._doors, strict=True):
                with _listening(door, flag):
                    addresses.append(await stack.enter_async_context(listen(app, door)))
            yield addresses

    def _make_doorkeeper(
        self, opened: Sequence[web.RouteDef], dialects: Sequence[Dialect], gate: Gate, metrics: Metrics
    ) -> Doorkeeper:
        settings = self._settings
        probed = [dialect.opened for dialect in dialects if isinstance(dialect, Probed)]
        native = {route for route, operation in OPERATIONS.items() if operation.body is not None}
        return Doorkeeper(
            self._keyring,
            Cors(settings.cors_origins, settings.public_url or ""),
            Allowance(settings.key_concurrency, settings.key_rate, lambda: gate.service, metrics),
            opened={ROUTE, *(route.path for route in opened)}.union(*probed),
            orders=native.union(*(dialect.orders for dialect in dialects)),
        )


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Say in one line why files can't be used."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise CannotStart(f"{what} can't be used: {error}") from None


@contextmanager
def _listening(door: Door, flag: str) -> Iterator[None]:
    """Say in one line why there is no listening; `flag` gives the port."""
    try:
        yield
    except OSError as error:
        advice = f" (another port: {flag} N)" if error.errno in (errno.EADDRINUSE, errno.EACCES) else ""
        raise CannotStart(f"can't listen on {door.host}, port {door.port}: {tell_cause(error)}{advice}") from None
