"""The scripted engine as a process of its own, for who starts, watches and stops engines.

    python -m tests.fakes.process PORT FILE

In its first life, which is when FILE is not there yet, its worker dies of the second prompt: HTTP goes on, and nothing
else. In every later life it is healthy.
"""

import asyncio
import signal
import sys
from pathlib import Path

from tests.fakes.engine import FakeEngine


async def live(port: int, *, first: bool) -> None:
    """Serve until the process is told to end."""
    async with FakeEngine(port=port) as engine:
        if first:
            await engine.until(lambda: engine.finished_prompts)
            engine.faults.dead_worker = "running"
        await asyncio.Event().wait()


def main(port: int, mark: Path) -> None:
    """One life; it ends in order at SIGTERM, so that its files are removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    first = not mark.exists()
    mark.touch()
    asyncio.run(live(port, first=first))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
