"""Small Python programs to supervise, and what the tests of supervision ask about their processes."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from converter.core.restarts import Policy
from converter.link.supervisor import Event, Exited, Started, Supervisor

PATIENCE = 20.0
"""Seconds that a test waits for what must come at last, on a machine however busy."""

QUICK = Policy(first_delay=0.01, max_delay=0.04, budget=4, window=600.0, settled=0.0)
FOREVER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {FOREVER}"
POLITE = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); {FOREVER}"
FAMILY = f"""
import os, subprocess, sys
grandchild = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], stdout=subprocess.PIPE)
grandchild.stdout.readline()
print("grandchild", grandchild.pid, flush=True)
"""


class Watched(Supervisor):
    """A supervisor of a Python program whose events can be awaited."""

    def __init__(self, program: str, *, policy: Policy = QUICK, patience: float = 5.0) -> None:
        self.events = asyncio.Queue[Event]()
        super().__init__(python(program), dict(os.environ), policy, self.events.put_nowait, patience=patience)

    async def next(self) -> Event:
        async with asyncio.timeout(PATIENCE):
            return await self.events.get()

    async def started(self) -> Started:
        event = await self.next()
        assert isinstance(event, Started)
        return event

    async def exited(self) -> Exited:
        event = await self.next()
        assert isinstance(event, Exited)
        return event

    async def printed(self, line: str) -> None:
        await until(lambda: line in self.tail)


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def guard_of(pid: int) -> int:
    return psutil.Process(pid).ppid()


def grandchild_of(supervisor: Supervisor) -> int | None:
    return next((int(line.split()[1]) for line in supervisor.tail if line.startswith("grandchild ")), None)


@contextmanager
def nothing_left(test: str) -> Iterator[None]:
    """No test leaves a file descriptor behind, or a process: pytest names the test in the environment of each."""
    before = psutil.Process().num_fds()
    yield
    assert psutil.Process().num_fds() <= before
    assert [process for process in psutil.process_iter() if origin(process).startswith(test)] == []


def origin(process: psutil.Process) -> str:
    try:
        return process.environ().get("PYTEST_CURRENT_TEST", "")
    except (psutil.Error, OSError):
        return ""
