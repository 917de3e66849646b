"""How every dialect begins an order and waits for its end.

Leaves to others: what requests and answers look like (each dialect), and everything about jobs (`jobs`). Invariant: a
job that was begun here is known to the access log and to the limits of API keys; what was open for a caller is closed
when the caller is done or has left.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace

from aiohttp import web

from converter.api.allowance import ANOTHER
from converter.api.answers import JOB_ID, KEY_NAME, REQUEST_ID, RUN, TIMES
from converter.core.order import Order
from converter.errors import EngineFailed, Fault
from converter.gate import Ticket
from converter.jobs import Jobs
from converter.media.outputs import Broken, Item
from converter.runner import Run

LONG_TIMEOUT = 3600.0
"""Seconds that a job has by default whose caller need not wait for it."""

MAX_SEED = 2**32
"""Drawn seeds are below it, so that every sampler and every JSON reader can hold them."""


def draw_seed() -> int:
    """A seed for a template that was given none."""
    return random.randrange(MAX_SEED)


def begin(request: web.Request, jobs: Jobs, order: Order, ticket: Ticket, *, alone: bool) -> Run:
    """Begin the job of an order; `alone`: it goes on without its caller. Raises what `Jobs.begin` raises."""
    order = replace(order, scope=request.get(KEY_NAME, ""), request=request[REQUEST_ID])
    run = jobs.begin(replace(order, foreseen=jobs.foresee(order) or ()), ticket, alone=alone)
    request[JOB_ID] = run.id
    request[RUN] = run
    return run


@asynccontextmanager
async def more_orders(request: web.Request, count: int) -> AsyncIterator[None]:
    """Let a request count as so many orders more of its key as long as this is entered; raises RateLimited."""
    async with AsyncExitStack() as stack:
        for _ in range(count if ANOTHER in request else 0):
            await stack.enter_async_context(request[ANOTHER]())
        yield


@contextmanager
def served(run: Run) -> Iterator[None]:
    """Want the job as long as this is entered; what was open for its caller is closed after that."""
    with run.interested():
        try:
            yield
        finally:
            run.delivered()


async def outputs(request: web.Request, run: Run) -> Sequence[Item]:
    """The outputs of a job, once it has ended; raises its fault."""
    outcome = await asyncio.shield(run.outcome)
    request[TIMES] = run.times
    run.told.set()
    if isinstance(outcome, Fault):
        raise outcome
    return run.items


async def all_outputs(request: web.Request, jobs: Jobs, runs: Sequence[Run]) -> Sequence[Item]:
    """The outputs of several jobs that are kept, in their order and in memory, once all have ended; raises the fault of
    the first that fails.
    """
    pending = {run.outcome for run in runs}
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for run in runs:
            if run.outcome in done:
                await outputs(request, run)
    return [item for run in runs for item in await _hold(jobs, run)]


async def _hold(jobs: Jobs, run: Run) -> list[Item]:
    """The outputs of a job, in memory: one that kept them open while it waited for others could wait for itself."""
    async with AsyncExitStack() as stack:
        items = await jobs.reopen(run, stack)
        try:
            return [replace(item, content=await _read(item)) for item in items]
        except Broken as error:
            raise EngineFailed("an output could not be read from the engine") from error


async def _read(item: Item) -> bytes | None:
    if item.content is None or isinstance(item.content, bytes):
        return item.content
    return b"".join([chunk async for chunk in item.chunks()])


@asynccontextmanager
async def result(request: web.Request, run: Run) -> AsyncIterator[Sequence[Item]]:
    """The outputs of a job that only this caller waits for, once it has ended; raises its fault."""
    with served(run):
        yield await outputs(request, run)
