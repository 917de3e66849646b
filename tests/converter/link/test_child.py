"""One life of a child: it starts clean, and all of its family ends with it, or with its guard."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from converter.core.restarts import Policy
from converter.link import child
from converter.link.supervisor import Event, Exited, Started, Supervisor
from tests.converter.link.family import (
    FAMILY,
    FOREVER,
    PATIENCE,
    STUBBORN,
    Watched,
    grandchild_of,
    guard_of,
    lives,
    nothing_left,
    python,
    until,
)


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    with nothing_left(request.node.nodeid):
        yield


@pytest.mark.parametrize("end", ["pass", FOREVER], ids=["after a death", "at the end"])
async def test_grandchild_is_killed(end: str) -> None:
    async with Watched(f"{FAMILY}\n{end}", policy=Policy(first_delay=600.0, max_delay=600.0)) as supervisor:
        await supervisor.started()
        await until(lambda: grandchild_of(supervisor) is not None)
        if end == "pass":
            await supervisor.exited()
    grandchild = grandchild_of(supervisor)
    assert grandchild is not None
    assert not lives(grandchild)


async def test_daemon_that_holds_the_output_is_killed() -> None:
    program = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}])"
    async with Watched(program) as supervisor:
        await supervisor.started()
        assert (await supervisor.exited()).status == 0
        assert (await supervisor.started()).generation == 2


async def test_guard_that_is_killed_takes_the_child_with_it() -> None:
    async with Watched(FAMILY + FOREVER) as supervisor:
        first = await supervisor.started()
        await until(lambda: grandchild_of(supervisor) is not None)
        grandchild = grandchild_of(supervisor)
        os.kill(guard_of(first.pid), signal.SIGKILL)
        exited = await supervisor.exited()
        assert (exited.status, exited.reason) == (None, "lost its guard, which was killed")
        assert not lives(first.pid)
        assert grandchild is not None
        assert not lives(grandchild)
        assert (await supervisor.started()).generation == 2


async def test_guard_that_is_stopped_does_not_stop_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "MARGIN", 0.1)
    async with Watched(FOREVER, patience=0.1) as supervisor:
        started = await supervisor.started()
        os.kill(guard_of(started.pid), signal.SIGSTOP)
    assert (await supervisor.exited()).status is None
    assert not lives(started.pid)


async def test_signal_to_the_group_reaches_the_child_once() -> None:
    program = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"term\\n"))
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(5))
os.write(1, b"up\\n")
while True:
    signal.pause()
"""
    async with Watched(program, policy=Policy(budget=0)) as supervisor:
        started = await supervisor.started()
        await supervisor.printed("up")
        os.killpg(os.getpgid(started.pid), signal.SIGTERM)
        await supervisor.printed("term")
        os.kill(guard_of(started.pid), signal.SIGTERM)
        os.kill(started.pid, signal.SIGUSR1)
        assert (await supervisor.exited()).status == 5
        assert supervisor.tail == ("up", "term")


@pytest.fixture
def own_input() -> Iterator[None]:
    """Gives the test process a standard input that its children must not read."""
    saved = os.dup(0)
    outlet, inlet = os.pipe()
    os.dup2(outlet, 0)
    yield
    os.dup2(saved, 0)
    for number in (saved, outlet, inlet):
        os.close(number)


@pytest.mark.usefixtures("own_input")
async def test_child_has_a_clean_start() -> None:
    program = """
import json, os, signal
def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
print(json.dumps({
    "open": [fd for fd in range(256) if is_open(fd)],
    "null": os.path.sameopenfile(0, os.open(os.devnull, os.O_RDONLY)),
    "session": os.getsid(0), "group": os.getpgrp(), "parent": os.getppid(), "environment": os.environ["MARK"],
    "ignored": [s for s in (1, 2, 3, 15) if signal.getsignal(s) is signal.SIG_IGN],
    "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
}))
"""
    events = asyncio.Queue[Event]()
    environment = {"MARK": "one"}
    async with Supervisor(python(program), environment, Policy(budget=0), events.put_nowait) as supervisor:
        async with asyncio.timeout(PATIENCE):
            started, exited = await events.get(), await events.get()
    assert isinstance(started, Started)
    assert isinstance(exited, Exited)
    assert exited.status == 0
    found: dict[str, Any] = json.loads(supervisor.tail[-1])
    assert found["open"] == [0, 1, 2]
    assert found["null"]
    assert found["group"] == found["session"] == found["parent"]
    assert found["session"] != os.getsid(0)
    assert found["environment"] == "one"
    assert found["ignored"] == found["blocked"] == []
