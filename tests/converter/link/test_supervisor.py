"""Real processes under the supervisor: they start, die, are restarted and stopped."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from converter.core.restarts import Policy
from converter.link.supervisor import TAIL, BudgetSpent, Event, Exited, Started, Supervisor
from tests.converter.link.family import (
    FOREVER,
    PATIENCE,
    POLITE,
    QUICK,
    STUBBORN,
    Watched,
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


async def test_child_runs_until_the_context_is_left() -> None:
    async with Watched(FOREVER) as supervisor:
        started = await supervisor.started()
        assert started == Started(pid=started.pid, generation=1)
        pid = supervisor.pid
        assert pid == started.pid
        await supervisor.printed("up")
        guard = guard_of(started.pid)
    assert await supervisor.exited() == Exited(1, -signal.SIGTERM, "stop", "was killed by SIGTERM", None, "up")
    assert supervisor.events.empty()
    assert supervisor.pid is None
    assert not lives(started.pid)
    assert not lives(guard)


async def test_child_may_end_in_its_own_way() -> None:
    async with Watched(POLITE) as supervisor:
        await supervisor.started()
        await supervisor.printed("up")
    assert await supervisor.exited() == Exited(1, 7, "stop", "exited with status 7", None, "up")


async def test_one_that_is_retired_goes_on_and_has_no_successor() -> None:
    async with Watched(FOREVER) as supervisor:
        started = await supervisor.started()
        supervisor.retire()
        assert lives(started.pid)
        os.kill(started.pid, signal.SIGKILL)
        assert (await supervisor.exited()).restart_in is None
    assert supervisor.events.empty()


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


async def test_what_a_child_wrote_last_is_its_own() -> None:
    program = "import sys; sys.stderr.write('because\\nwhy\\n\\n'); raise SystemExit(2)"
    async with Watched(program) as supervisor:
        await supervisor.started()
        assert (await supervisor.exited()).last_line == "why"
    async with Watched("", policy=Policy(budget=0)) as supervisor:
        await supervisor.started()
        assert (await supervisor.exited()).last_line == ""


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
