"""Allowance: how many orders one key may have under way at once, and begin a minute.

An order counts from its headers to its end, the time that it goes on without its caller included. Leaves to others: who
has a key (`door`), and whether the replica has a place (`gate`). Invariant: what an order held is given back once,
whatever becomes of it; an order that is refused has cost its key nothing.
"""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from aiohttp import web
from aiolimiter import AsyncLimiter

from converter.api.answers import RUN
from converter.core import admission
from converter.core.holdings import Holdings
from converter.errors import RateLimited
from converter.telemetry import Metrics

MINUTE = 60.0

ANOTHER = web.RequestKey[Callable[[], AbstractAsyncContextManager[None]]]("another")
"""Where a request that turns out to be several orders finds what carries one more; absent where there are no keys."""


class Allowance:
    """What each key may have. `service`: the measured seconds of an order, None while they are not known."""

    def __init__(
        self, concurrency: int | None, rate: int | None, service: Callable[[], float | None], metrics: Metrics
    ) -> None:
        self._concurrency = concurrency
        self._rate = rate
        self._service = service
        self._metrics = metrics
        self._orders = Holdings(concurrency)
        self._buckets: dict[str, AsyncLimiter] = {}

    @asynccontextmanager
    async def order(self, request: web.Request, key: str) -> AsyncIterator[None]:
        """Carry an order of the key for as long as this is entered, and for as long as its job goes on; raises
        RateLimited.
        """
        place = object()
        if not self._orders.take(key, place):
            seconds = self._service() or admission.UNMEASURED
            raise self._refuse(f"the key may have {self._concurrency} orders under way at once, and has", seconds)
        try:
            await self._count(key)
            request[ANOTHER] = lambda: self.order(request, key)
            yield
        finally:
            run = request.get(RUN)
            if run is not None and not run.outcome.done():
                self._orders.keep(key, run)
                run.outcome.add_done_callback(lambda _: self._orders.give_back(key, run))
            self._orders.give_back(key, place)

    async def _count(self, key: str) -> None:
        """One order more within this minute."""
        if self._rate is None:
            return
        bucket = self._buckets.setdefault(key, AsyncLimiter(self._rate, MINUTE))
        if not bucket.has_capacity():
            # One drop of a full bucket takes so long to leak.
            raise self._refuse(f"the key may begin {self._rate} orders a minute, and has", MINUTE / self._rate)
        await bucket.acquire()  # which does not wait, since there is room

    def _refuse(self, detail: str, seconds: float) -> RateLimited:
        self._metrics.refusals.labels(reason=RateLimited.code).inc()
        return RateLimited(detail, retry_after=admission.retry_after(seconds, random.random()))
