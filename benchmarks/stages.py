"""Where faults are measured: a converter, the scripted engine, a relay between them, and orders whose time is known.

Leaves what goes wrong to `mishaps`. Invariant: between two rounds of one stage nothing is wrong, and nothing runs.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from aiohttp import ClientSession

from converter.app import run_replica
from converter.settings import load
from tests.converter.faults.graphs import Graph, passed_through
from tests.converter.faults.replica import Caller, Reply, converter
from tests.fakes.engine import FakeEngine
from tests.fakes.faults import Faults
from tests.fakes.relay import Relay

RUN = 0.2
"""Seconds that the one slow node of an order takes; it is silent meanwhile."""

ROOT = Path(__file__).parent.parent


class Wrong(Exception):
    """An answer is not what it should be: what was measured means nothing."""


@dataclass
class Orders:
    """Makes orders that no cache knows, and compares their pictures with what they should be."""

    caller: Caller
    _colors: "count[int]" = field(default_factory=lambda: count(1))

    async def timed(self, strike: Callable[[], Awaitable[None]] | None = None) -> float:
        """Seconds of one order from its request to its answer; `strike` is what happens as soon as it is sent."""
        color = next(self._colors)
        begun = perf_counter()
        reply = self.caller.start(passed_through("TestSleepDeaf", color, seconds=RUN))
        if strike is not None:
            await strike()
        check(await reply, color)
        return perf_counter() - begun


def check(reply: Reply, color: int) -> None:
    """Raises Wrong unless the reply has the one picture of that colour."""
    if reply.status != 200 or reply.colors != [color]:
        raise Wrong(f"{reply.status}: {reply.body[:300]!r}")


@dataclass
class Stage:
    """An engine in this process, with everything that a fault may touch."""

    engine: FakeEngine
    relay: Relay
    caller: Caller
    orders: Orders

    async def taken(self, strike: Callable[[], object]) -> None:
        """Wait until the engine runs a prompt that it was not running before; then strike."""
        before = len(self.engine.executed_prompts)
        await self.engine.until(lambda: len(self.engine.executed_prompts) > before)
        done = strike()
        if isinstance(done, Awaitable):
            await done

    async def hold(self, graph: Graph, **request: Any) -> "asyncio.Task[Reply]":
        """An order that stands in the engine until `release`."""
        self.engine.hold()
        order = self.caller.start(graph, **request)
        await self.engine.until_held()
        return order

    async def heal(self) -> None:
        """Nothing is wrong any more."""
        for fault in fields(Faults):
            setattr(self.engine.faults, fault.name, fault.default)
        self.relay.script.clear()
        self.relay.resume()
        self.engine.release()
        await self.caller.until_empty()
        await self.caller.until(lambda: self.caller.ready and self.caller.hears)
        await self.engine.until_idle()


@asynccontextmanager
async def attached(*, relayed: bool = False, **settings: Any) -> AsyncIterator[Stage]:
    """A converter attached to an engine in this process, through the relay or not."""
    async with (
        FakeEngine() as engine,
        Relay(engine.url) as relay,
        converter(relay.url if relayed else engine.url, **settings) as caller,
    ):
        yield Stage(engine, relay, caller, Orders(caller))


@asynccontextmanager
async def supervised(*, healthy: bool, **settings: Any) -> AsyncIterator[Orders]:
    """A converter that has started the scripted engine as a process; in its first life it may be sick."""
    with TemporaryDirectory(prefix="benchmark-") as folder:
        mark = Path(folder) / "lived"
        if healthy:
            mark.touch()
        command = f"{sys.executable} -m tests.fakes.process {{port}} {mark}"
        loaded = load({"engine_command": command, "port": 0, **settings}, {})
        environment: Mapping[str, str] = {"PYTHONPATH": str(ROOT)}
        async with run_replica(loaded, environment) as replica, ClientSession() as session:
            caller = Caller(replica, session)
            await caller.until_ready()
            yield Orders(caller)
            await caller.until_empty()
