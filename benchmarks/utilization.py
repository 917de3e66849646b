"""How busy a GPU is, as NVIDIA's own `nvidia-smi` tells.

For: the share of time in which some kernel ran. Leaves what it was busy with to who asks. Invariant: what is asked for
in the block is all that is counted, but for the sample that was being taken when it began.
"""

import asyncio
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import fmean

_INTERVAL = 100
"""Milliseconds."""

_COMMAND = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"--loop-ms={_INTERVAL}")


@dataclass(slots=True)
class Busy:
    """Samples of the first GPU in per cent."""

    samples: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Without the first second, in which what the driver tells is still of the time before. Raises ValueError."""
        settled = self.samples[1000 // _INTERVAL :]
        if not settled:
            raise ValueError("the GPU was watched for less than a second")
        return fmean(settled)


@asynccontextmanager
async def watch_gpu() -> AsyncIterator[Busy]:
    """Take samples until the block ends. Raises OSError where there is no nvidia-smi."""
    busy = Busy()
    process = await asyncio.create_subprocess_exec(*_COMMAND, "--id=0", stdout=PIPE)
    reading = asyncio.create_task(_read(process, busy))
    try:
        yield busy
    finally:
        process.terminate()
        await process.wait()
        await reading


async def _read(process: Process, busy: Busy) -> None:
    if process.stdout is not None:
        async for line in process.stdout:
            busy.samples.append(float(line))
