"""Real processes under the supervisor: they start, die, are restarted and stopped, and never outlive it."""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from converter.core.restarts import Policy
from converter.link import child
from converter.link.loopback import free_port
from converter.link.supervisor import TAIL, BudgetSpent, Event, Exited, Started, Supervisor

ROOT = Path(__file__).parents[3]
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


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a file descriptor behind, or a process: pytest names the test in the environment of each."""
    before = psutil.Process().num_fds()
    yield
    assert psutil.Process().num_fds() <= before
    assert [process for process in psutil.process_iter() if origin(process).startswith(request.node.nodeid)] == []


def origin(process: psutil.Process) -> str:
    try:
        return process.environ().get("PYTEST_CURRENT_TEST", "")
    except (psutil.Error, OSError):
        return ""


async def test_child_runs_until_the_context_is_left() -> None:
    async with Watched(FOREVER) as supervisor:
        started = await supervisor.started()
        assert started == Started(pid=started.pid, generation=1)
        pid = supervisor.pid
        assert pid == started.pid
        await supervisor.printed("up")
        guard = guard_of(started.pid)
    assert await supervisor.exited() == Exited(1, -signal.SIGTERM, "stop", "was killed by SIGTERM", None)
    assert supervisor.events.empty()
    assert supervisor.pid is None
    assert not lives(started.pid)
    assert not lives(guard)


async def test_child_may_end_in_its_own_way() -> None:
    async with Watched(POLITE) as supervisor:
        await supervisor.started()
        await supervisor.printed("up")
    assert await supervisor.exited() == Exited(1, 7, "stop", "exited with status 7", None)


async def test_context_may_be_left_before_the_child_runs() -> None:
    async with Watched(FOREVER):
        pass


async def test_context_may_be_left_between_two_lives() -> None:
    async with Watched("", policy=Policy(first_delay=600.0, max_delay=600.0)) as supervisor:
        await supervisor.started()
        exited = await supervisor.exited()
        assert exited.restart_in is not None
        assert exited.restart_in >= 300.0
    assert supervisor.events.empty()


@pytest.mark.parametrize(
    ("program", "status", "reason"),
    [
        ("", 0, "exited with status 0"),
        ("raise SystemExit(3)", 3, "exited with status 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, "was killed by SIGKILL"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGHUP)", -1, "was killed by SIGHUP"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -15, "was killed by SIGTERM"),
        pytest.param(
            *("import os; os.kill(os.getpid(), 36)", -36, "was killed by signal 36"),
            marks=pytest.mark.skipif(sys.platform != "linux", reason="real-time signals"),
        ),
    ],
)
async def test_every_exit_is_a_death(program: str, status: int, reason: str) -> None:
    async with Watched(program) as supervisor:
        await supervisor.started()
        exited = await supervisor.exited()
        assert (exited.status, exited.cause, exited.reason) == (status, "death", reason)
        assert exited.restart_in is not None
        assert (await supervisor.started()).generation == 2


async def test_crash_loop_spends_the_budget() -> None:
    async with Watched("print('boom'); raise SystemExit(1)") as supervisor:
        for generation in range(1, QUICK.budget + 2):
            assert (await supervisor.started()).generation == generation
            exited = await supervisor.exited()
            assert exited.generation == generation
            assert (exited.restart_in is None) == (generation == QUICK.budget + 1)
        assert await supervisor.next() == BudgetSpent()
        await supervisor.restart("nothing is left to restart")
        assert supervisor.pid is None
    assert supervisor.events.empty()
    assert supervisor.tail == ("boom",) * (QUICK.budget + 1)


async def test_warm_engine_that_lived_is_forgiven() -> None:
    async with Watched(FOREVER) as supervisor:
        for _ in range(QUICK.budget + 2):
            started = await supervisor.started()
            supervisor.confirm_warm(started.generation)
            os.kill(started.pid, signal.SIGKILL)
            exited = await supervisor.exited()
            assert exited.restart_in is not None
            assert exited.restart_in <= QUICK.first_delay


async def test_late_warm_up_of_an_earlier_life_does_not_count() -> None:
    async with Watched("input()", policy=Policy(first_delay=0.01, budget=1, settled=0.0)) as supervisor:
        await supervisor.started()
        await supervisor.exited()
        await supervisor.started()
        supervisor.confirm_warm(1)
        assert (await supervisor.exited()).restart_in is None
        assert await supervisor.next() == BudgetSpent()


async def test_command_that_does_not_exist() -> None:
    events = asyncio.Queue[Event]()
    async with Supervisor(["/no/such/engine"], {}, Policy(budget=0), events.put_nowait):
        async with asyncio.timeout(PATIENCE):
            exited, spent = await events.get(), await events.get()
    reason = "could not be started: No such file or directory: /no/such/engine"
    assert exited == Exited(1, None, "death", reason, None)
    assert spent == BudgetSpent()


async def test_guard_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    events = asyncio.Queue[Event]()
    async with Supervisor(["engine"], {}, Policy(budget=0), events.put_nowait):
        async with asyncio.timeout(PATIENCE):
            assert isinstance(await events.get(), Exited)


async def test_restart_on_request() -> None:
    async with Watched(POLITE) as supervisor:
        first = await supervisor.started()
        await supervisor.printed("up")
        await asyncio.gather(supervisor.restart("the worker is dead"), supervisor.restart("again"))
        assert not lives(first.pid)
        exited = await supervisor.exited()
        assert (exited.status, exited.cause) == (7, "restart")
        assert exited.reason == "exited with status 7 (restart: the worker is dead)"
        second = await supervisor.started()
        assert second.generation == 2
        assert second.pid != first.pid


async def test_restart_counts_in_the_budget() -> None:
    async with Watched(FOREVER, policy=Policy(budget=0)) as supervisor:
        await supervisor.started()
        await supervisor.restart("wanted")
        assert (await supervisor.exited()).restart_in is None
        assert await supervisor.next() == BudgetSpent()


async def test_restart_meant_for_an_earlier_life_is_ignored() -> None:
    async with Watched(FOREVER) as supervisor:
        started = await supervisor.started()
        await supervisor.restart("late", generation=started.generation - 1)
        assert supervisor.pid == started.pid
        assert supervisor.events.empty()


@pytest.mark.parametrize("how", ["restart", "stop"])
async def test_stubborn_child_is_killed(how: str) -> None:
    async with Watched(STUBBORN, patience=0.1) as supervisor:
        started = await supervisor.started()
        await supervisor.printed("up")
        if how == "restart":
            await supervisor.restart("it hangs")
            assert not lives(started.pid)
    exited = await supervisor.exited()
    assert (exited.status, exited.cause) == (-signal.SIGKILL, how)
    assert not lives(started.pid)


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


async def test_output_is_logged_and_its_end_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    program = """
import sys
for number in range(60):
    print("line", number)
print("x" * 9000, file=sys.stderr)
sys.stdout.write("the last words")
"""
    with caplog.at_level(logging.INFO, logger="converter.engine"):
        async with Watched(program, policy=Policy(budget=0)) as supervisor:
            await supervisor.started()
            await supervisor.exited()
    logged = [record.getMessage() for record in caplog.records if record.name == "converter.engine"]
    assert len(logged) == 62
    assert sorted(logged)[:2] == ["line 0", "line 1"]
    assert max(map(len, logged)) < 2100
    assert supervisor.tail == tuple(logged[-TAIL:])
    assert "the last words" in supervisor.tail


async def test_error_in_the_callback_ends_the_context_and_the_child() -> None:
    seen: list[Event] = []

    def refuse(event: Event) -> None:
        seen.append(event)
        raise LookupError("a bug of the caller")

    with pytest.raises(ExceptionGroup) as caught:
        async with Supervisor(python(FOREVER), dict(os.environ), QUICK, refuse):
            await asyncio.Event().wait()
    assert caught.group_contains(LookupError)
    (started,) = seen
    assert isinstance(started, Started)
    assert not lives(started.pid)


async def test_error_of_the_body_passes_as_it_is() -> None:
    supervisor = Watched(FOREVER)

    async def body() -> None:
        async with supervisor:
            await supervisor.started()
            raise KeyError

    with pytest.raises(KeyError):
        await body()
    assert (await supervisor.exited()).cause == "stop"


async def test_canceled_body_stops_the_child_in_order() -> None:
    supervisor = Watched(POLITE)

    async def body() -> None:
        async with supervisor:
            await supervisor.started()
            await asyncio.Event().wait()

    task = asyncio.create_task(body())
    await supervisor.printed("up")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await supervisor.exited()).status == 7


async def test_second_cancellation_ends_at_once() -> None:
    supervisor = Watched(STUBBORN, patience=600.0)

    async def body() -> None:
        async with supervisor:
            await supervisor.started()
            await supervisor.printed("up")

    task = asyncio.create_task(body())
    await supervisor.printed("up")
    pid = supervisor.pid
    assert pid is not None
    await until(lambda: supervisor._closing.is_set())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not lives(pid)


PARENT = f"""
import asyncio, os, sys
from converter.core.restarts import Policy
from converter.link.supervisor import Supervisor

async def main():
    command = [sys.executable, "-c", {FAMILY + STUBBORN!r}]
    async with Supervisor(command, dict(os.environ), Policy(), lambda event: None, patience=0.2) as supervisor:
        while "up" not in supervisor.tail:
            await asyncio.sleep(0.005)
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_killed_converter_leaves_nothing(number: signal.Signals) -> None:
    parent = await asyncio.create_subprocess_exec(*python(PARENT), cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await parent.stdout.readline() == b"ready\n"
    family = [process.pid for process in psutil.Process(parent.pid).children(recursive=True)]
    assert len(family) == 3  # guard, child, grandchild
    parent.send_signal(number)
    assert await parent.wait() == -number
    await until(lambda: not any(lives(pid) for pid in family))


@pytest.mark.skipif(sys.platform != "linux", reason="adopting orphans is asked for as Linux does it")
def test_adopted_orphans_are_reaped() -> None:
    """As process 1 of a container the converter inherits what its guard leaves; a subreaper does, too."""
    adopt = "import ctypes; assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0\n"  # PR_SET_CHILD_SUBREAPER
    program = (
        adopt
        + PARENT.replace("await asyncio.Event().wait()", "break_off = True")
        + ("try:\n    print(os.waitpid(-1, os.WNOHANG))\nexcept ChildProcessError:\n    print('no children')\n")
    )
    done = subprocess.run(python(program), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.split("\n") == ["ready", "no children", ""]


async def test_guard_without_a_group_of_its_own_refuses() -> None:
    guard = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", child.GUARD, "0", "1", "true", stderr=asyncio.subprocess.PIPE
    )
    _, said = await guard.communicate()
    assert guard.returncode == 1
    assert b"started by the converter only" in said


async def test_guard_does_not_start_anything_for_a_dead_converter(tmp_path: Path) -> None:
    mark = tmp_path / "started"
    lifeline, guarded = socket.socketpair()
    with lifeline, guarded:
        lifeline.shutdown(socket.SHUT_WR)
        guard = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", child.GUARD, str(guarded.fileno()), "1", "touch", str(mark)),
            pass_fds=(guarded.fileno(),),
            start_new_session=True,
        )
        assert await guard.wait() == -signal.SIGKILL
        assert lifeline.recv(100) == b"error the converter is gone\n"
    assert not mark.exists()


async def test_guard_is_small() -> None:
    async with Watched(FOREVER) as supervisor:
        started = await supervisor.started()
        guard = psutil.Process(guard_of(started.pid))
        assert guard.memory_info().rss < 16_000_000
        assert guard.num_threads() == 1


async def test_free_port_can_be_listened_on() -> None:
    ports = {free_port() for _ in range(5)}
    for port in ports:
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", port):
            assert 1024 <= port <= 65535
