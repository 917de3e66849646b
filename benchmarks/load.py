"""Load in a closed loop: so many callers, each of whom asks again as soon as the answer is there.

Invariant: a slot is measured to the end of its last answer, so that nothing which was asked is left out.
"""

import asyncio
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from statistics import median
from time import perf_counter

from benchmarks.clients import Client, Unexpected
from benchmarks.workflows import Graph


@dataclass(frozen=True, slots=True)
class Slot:
    """What was measured in one slot; seconds."""

    latencies: Sequence[float]
    wall: float

    @property
    def median(self) -> float:
        return median(self.latencies)

    @property
    def throughput(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.wall


async def load(
    client: Client, make: Callable[[], Graph], concurrency: int, seconds: float, size: int | None = None
) -> Slot:
    """Ask for so long. Every answer must be a picture, of `size` bytes where that is known."""
    latencies: list[float] = []
    with _collected():
        begun = perf_counter()

        async def ask() -> None:
            while (asked := perf_counter()) < begun + seconds:
                data = await client.run(make())
                latencies.append(perf_counter() - asked)
                if not data.startswith(b"\x89PNG") or (size is not None and len(data) != size):
                    raise Unexpected(f"not the picture that was expected: {len(data)} bytes, {data[:16]!r}")

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(ask())
        return Slot(latencies, perf_counter() - begun)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so great a share does not exceed (nearest rank)."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


@contextmanager
def _collected() -> Iterator[None]:
    """Garbage is collected before and not during."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
