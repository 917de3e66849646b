"""Callers who obey `Retry-After`, under a load that is steady: a burst of twice what there is room for, each time that
the one before has been served.

Whether a caller who comes back is admitted depends on how many come at all: where more come than can ever be served,
nothing that a service says to one of them can help all. So the load is what it can bear, and comes at once.
"""

import asyncio
import time
from itertools import count

from tests.e2e.chaos.callers import Callers
from tests.e2e.chaos.orders import Order
from tests.e2e.chaos.records import Answer
from tests.e2e.chaos.scene import CAPACITY, CONCURRENCY, Scene

SECONDS = 0.5
"""What the engine works on an order: so long that whole seconds of `Retry-After` are no coarse measure."""

BURST = 2 * CAPACITY
"""Orders that come at once."""

SHARE = 0.8
"""Of its time, that the engine is busy."""

TRIES = 5
"""Requests of one caller at most."""

FIRST = 0xC00000
"""Number of the first order."""


async def burst(scene: Scene, bursts: int) -> list[list[Answer]]:
    """For each caller the answers that it got, the last of which is its picture, unless it gave up.

    A burst that is not counted comes first: the service measures how long orders take.
    """
    numbers = count(FIRST)
    answers: list[list[Answer]] = []
    period = BURST * SECONDS / CONCURRENCY / SHARE
    async with Callers(scene.url, []) as callers, asyncio.TaskGroup() as group:

        async def obey(own: list[Answer]) -> None:
            for attempt in range(TRIES):
                order = Order(next(numbers), "json", 0.0, SECONDS)
                own.append(await callers.run(order, f"-{attempt}"))
                if own[-1].status != 429:
                    return
                await asyncio.sleep(int(own[-1].retry_after or 0))

        begun = time.monotonic()
        for turn in range(bursts + 1):
            await asyncio.sleep(max(0.0, begun + turn * period - time.monotonic()))
            for _ in range(BURST):
                own: list[Answer] = []
                group.create_task(obey(own))
                if turn:
                    answers.append(own)
    return answers
