"""Callers of a fleet: each asks, hears the answer, and asks again, for as long as the crowd is there.

They are plain callers, who take what they get. Leaves judging to the tests.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from tests.deploy.ladder import ladder
from tests.e2e.fleet.waiting import eventually

_COLORS = count(1)


def graph(seconds: float, node: str = "TestSleepDeaf") -> dict[str, Any]:
    """A picture that no cache has, and that takes so long."""
    color = next(_COLORS) % 0x1000000
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": color}},
        "2": {"class_type": node, "inputs": {"value": ["1", 0], "seconds": seconds}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "fleet"}},
    }


@dataclass(frozen=True)
class Call:
    """One answer. `status` 0: the connection ended without one. `begun` by the monotonic clock; `seconds` it took."""

    status: int
    begun: float
    seconds: float
    retry_after: str | None = None
    document: Any = None


async def ask_once(session: ClientSession, url: str, body: dict[str, Any], **headers: str) -> Call:
    """A plain call of `/v1/run`."""
    begun = time.monotonic()
    try:
        async with session.post(f"{url}/v1/run", json=body, headers=headers) as response:
            document = await response.json(content_type=None) if "json" in response.content_type else None
            retry_after = response.headers.get("Retry-After")
            return Call(response.status, begun, time.monotonic() - begun, retry_after, document)
    except ClientError:
        return Call(0, begun, time.monotonic() - begun)


@dataclass
class Crowd:
    """What its callers have heard so far."""

    calls: list[Call] = field(default_factory=list)

    def failed(self) -> list[Call]:
        """Answers other than 200."""
        return [call for call in self.calls if call.status != 200]

    async def hears(self, answers: int) -> None:
        """Wait until it has heard so many more answers."""
        wanted = len(self.calls) + answers
        await eventually(lambda: len(self.calls) >= wanted)


@asynccontextmanager
async def crowd(url: str, callers: int, seconds: float) -> AsyncIterator[Crowd]:
    """So many callers, whose jobs take so long; at the end of the block each hears its last answer."""
    seen = Crowd()
    ended = False

    async def call_again_and_again(session: ClientSession) -> None:
        while not ended:
            seen.calls.append(await ask_once(session, url, {"workflow": graph(seconds)}))

    async with callers_session() as session, asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call_again_and_again(session))
        try:
            yield seen
        finally:
            ended = True


@asynccontextmanager
async def callers_session() -> AsyncIterator[ClientSession]:
    """Without a bound on connections; as patient as the ladder has callers."""
    timeout = ClientTimeout(total=ladder()["caller"])
    async with ClientSession(connector=TCPConnector(limit=0), timeout=timeout) as session:
        yield session
