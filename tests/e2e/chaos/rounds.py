"""Rounds: a load, with or without strikes, on one scene, from which a log comes.

Leaves the parts to the other modules. Invariant: a round ends with the service idle, or its log says what is left.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import psutil

from tests.e2e.chaos import orders
from tests.e2e.chaos.callers import Callers
from tests.e2e.chaos.mischief import Mischief
from tests.e2e.chaos.orders import Order
from tests.e2e.chaos.records import Answer, Log, Sample
from tests.e2e.chaos.scene import ODDS, Scene
from tests.e2e.chaos.strikes import Strike
from tests.e2e.service import PATIENCE, POLL, ask, open_session

OVERLOAD = 1.5
"""Orders that come, in orders that can be served."""

CLOSED = 12
"""Callers who measure the capacity, in a closed loop: enough to keep the engine busy, too few to be refused."""

MEASURED = 0x800000
"""Number of the first order by which the capacity is measured."""

LAST = 0xE00000
"""Number of the order that shows at the end that all is well."""

SAMPLING = 0.5
"""Seconds between two samples."""

SPARE = 2
"""Files that may be open more at the end: connections that wait for their next use."""


async def measure(scene: Scene, count: int) -> float:
    """The capacity: orders that take as long as those of a load, served a second; none of them is refused."""
    answers: list[Answer] = []
    load = iter(orders.draw(0, count, first=MEASURED))
    async with Callers(scene.url, answers) as callers:

        async def call() -> None:
            for order in load:  # each is taken by one caller
                await callers.ask(Order(order.number, "json", 0.0, order.seconds))

        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(CLOSED):
                group.create_task(call())
        seconds = time.monotonic() - begun
    return sum(answer.status == 200 for answer in answers) / seconds


async def play(scene: Scene, load: Sequence[Order], rate: float, strikes: Sequence[Strike] = ()) -> Log:
    """Ask for the orders at `rate` a second while the strikes fall; the log, once all is over."""
    log = Log(orders=load)
    mischief = Mischief(scene, log.struck)
    scene.relay.chance = ODDS if strikes else None
    async with asyncio.TaskGroup() as group:
        sampling = group.create_task(_sample(scene.converter, log))
        striking = group.create_task(mischief.strike_all(strikes))
        async with Callers(scene.url, log.answers, mischief.hear) as callers:
            await callers.ask_all(load, rate)
        await striking
        sampling.cancel()
    scene.relay.chance = None
    await _settle(scene, log)
    scene.fill(log)
    return log


async def _sample(converter: psutil.Process, log: Log) -> None:
    while True:
        log.samples.append(Sample(time.time(), converter.memory_info().rss, converter.num_fds()))
        await asyncio.sleep(SAMPLING)


async def _settle(scene: Scene, log: Log) -> None:
    """Wait until nothing is left of the load, end the service, and note what still is there."""
    converter, staged = scene.converter, scene.folder / "input" / "converter"
    async with open_session() as session:
        status: dict[str, Any] = {}

        async def is_idle() -> bool:
            status.update((await ask(session, "GET", f"{scene.url}/status")).document)
            queue = status["queue"]
            return status["state"] == "READY" and not queue["running"] + queue["waiting"] + queue["strangers"]

        if not await _becomes(is_idle):
            log.left.append(f"a service that is not idle: {status}")
    await _ask_once_more(scene, log)

    async def is_lean() -> bool:
        scene.relay.cut("http")  # connections that wait for their next use
        return converter.num_fds() <= scene.files + SPARE

    if not await _becomes(is_lean):
        log.left.append(f"{converter.num_fds()} open files, of {scene.files} before: {converter.net_connections()}")

    async def is_clean() -> bool:
        return scene.way == "attached" or not any(staged.glob("*"))

    if not await _becomes(is_clean):
        log.left.append(f"{len(list(staged.iterdir()))} staged inputs")
    scene.service.signal(signal.SIGTERM)
    with suppress(TimeoutError):
        if await scene.service.ends() == 0:
            return
    log.left.append("a converter that does not end in peace")


async def _ask_once_more(scene: Scene, log: Log) -> None:
    answers: list[Answer] = []
    async with Callers(scene.url, answers) as callers:
        await callers.ask(Order(LAST, "json", 0.0))
    if answers[0].picture != LAST:
        log.left.append(f"a service that does not work: {answers[0]}")


async def _becomes(condition: Callable[[], Awaitable[bool]]) -> bool:
    """Whether it does, within patience."""
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while True:
                if await condition():
                    return True
                await asyncio.sleep(POLL * 5)
    return False
