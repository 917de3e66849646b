"""What goes wrong on a stage, and how long it takes until the caller has what it should.

Leaves the stages to `stages`, and to `faults` what is measured how often. Invariant: what is measured is an answer that
was right, or the refusal that the fault should bring.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import psutil

from benchmarks.stages import RUN, Stage, Wrong, attached, check, supervised
from tests.converter.faults.graphs import picture
from tests.converter.faults.replica import Reply, give_up
from tests.e2e import service
from tests.fakes.engine import FakeEngine
from tests.fakes.relay import Fate

Measure = Callable[[int], Awaitable[Sequence[float]]]
"""Takes a number of rounds, and gives the seconds of each."""

PATIENCE = 2.0
"""Seconds of `stall_patience` where stalls are measured."""


def later(strike: Callable[[Stage, int], Awaitable[None]], **settings: Any) -> Measure:
    """Seconds by which an order is answered later than others that took turns with it."""

    async def measure(rounds: int) -> Sequence[float]:
        usual, struck = [], []
        async with attached(**settings) as stage:
            for number in range(rounds):
                usual.append(await stage.orders.timed())
                struck.append(await stage.orders.timed(partial(strike, stage, number)))
                await stage.heal()
        return [seconds - median(usual) for seconds in struck]

    return measure


def lasting(act: Callable[[Stage, int], Awaitable[float]], **settings: Any) -> Measure:
    """Seconds that the act itself tells."""

    async def measure(rounds: int) -> Sequence[float]:
        found = []
        async with attached(**settings) as stage:
            for number in range(rounds):
                found.append(await act(stage, number))
                await stage.heal()
        return found

    return measure


def expect(reply: Reply, code: str) -> None:
    """Raises Wrong unless the reply is that fault."""
    if reply.status < 400 or reply.code != code:
        raise Wrong(f"{reply.status}: {reply.body[:300]!r}")


# The websocket and submissions ---------------------------------------------------------------------------------------


async def cut_at_a_message(stage: Stage, number: int) -> None:
    stage.engine.faults.drop_socket_at = 1 + number % 14


async def cut_while_running(stage: Stage, number: int) -> None:
    await stage.taken(lambda: stage.relay.cut("websocket"))


async def hold_messages_up(stage: Stage, number: int) -> None:
    stage.relay.stall("to_client", "websocket")


async def deafen(stage: Stage, number: int) -> None:
    stage.engine.deafen()


async def take_no_socket(stage: Stage, number: int) -> None:
    stage.relay.script = [("websocket", Fate("refuse"))] * 10_000
    stage.relay.cut("websocket")


async def lose_answer(stage: Stage, number: int) -> None:
    stage.engine.faults.answer_lost = 1


async def answer_500(stage: Stage, number: int) -> None:
    stage.engine.faults.post_500 = 1


async def hold_submission_up(stage: Stage, number: int) -> None:
    """The next connection, which is that of the submission, brings nothing through."""
    stage.relay.cut("http")
    stage.relay.script = [("http", Fate("stall", after=50, direction="to_engine"))]


async def delay_record(stage: Stage, number: int) -> None:
    stage.engine.faults.late_history = 0.5
    await stage.taken(stage.engine.drop_sockets)


# The engine ----------------------------------------------------------------------------------------------------------


async def restart_while_running(stage: Stage, number: int) -> None:
    async def restart() -> None:
        await stage.engine.crash()
        await stage.engine.restart()

    await stage.taken(restart)


async def restart_idle(stage: Stage, number: int) -> float:
    watch = stage.caller.replica.watch
    before, begun = watch.instance, perf_counter()
    await stage.engine.crash()
    await stage.engine.restart()
    await stage.caller.until(lambda: watch.instance not in (before, None) and stage.caller.ready)
    return perf_counter() - begun


async def kill_process(rounds: int) -> Sequence[float]:
    """Each round has processes of its own, since pauses between restarts grow."""
    found = []
    for _ in range(rounds):
        async with supervised(healthy=True) as orders:
            usual = [await orders.timed() for _ in range(3)]
            found.append(await orders.timed(_kill_engine) - median(usual))
    return found


async def _kill_engine() -> None:
    await asyncio.sleep(RUN / 2)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.cmdline()[1:3] == ["-m", "tests.fakes.process"]:
                process.kill()


async def restart_dead_worker(rounds: int) -> Sequence[float]:
    """The engine is sick in its first life only; a run without the fault is measured in the next."""
    found = []
    for _ in range(rounds):
        async with supervised(healthy=False, stall_patience=PATIENCE) as orders:
            seconds = await orders.timed()
            found.append(seconds - median([await orders.timed() for _ in range(3)]))
    return found


async def lose_worker(stage: Stage, number: int) -> float:
    stage.engine.faults.dead_worker = "running"
    begun, order = perf_counter(), stage.caller.start(picture(1 + number))
    await stage.caller.until(lambda: "no progress" in stage.caller.replica.gate.view().reason)
    seconds = perf_counter() - begun
    stage.engine.faults.dead_worker = ""
    await stage.engine.crash()
    await stage.engine.restart()
    check(await order, 1 + number)
    return seconds


async def take_nothing(stage: Stage, number: int) -> float:
    stage.engine.faults.dead_worker = "pending"
    begun, order = perf_counter(), stage.caller.start(picture(1 + number))
    await stage.caller.until(lambda: "pending" in stage.caller.replica.gate.view().reason)
    seconds = perf_counter() - begun
    stage.engine.faults.dead_worker = ""
    stage.engine.release()
    check(await order, 1 + number)
    return seconds


async def fall_silent(stage: Stage, number: int) -> float:
    begun = perf_counter()
    stage.engine.faults.held_path = "/queue"
    await stage.caller.until(lambda: not stage.caller.ready)
    return perf_counter() - begun


async def come_while_away(stage: Stage, number: int) -> float:
    await stage.engine.crash()
    await stage.caller.until(lambda: stage.caller.state == "FAILED")
    begun = perf_counter()
    expect(await stage.caller.run(picture(1)), "engine_down")
    seconds = perf_counter() - begun
    await stage.engine.restart()
    return seconds


async def stay_away(stage: Stage, number: int) -> float:
    begun, order = perf_counter(), await stage.hold(picture(1 + number), timeout=3.0)
    await stage.engine.crash()
    expect(await order, "deadline_exceeded")
    seconds = perf_counter() - begun - 3.0
    await stage.engine.restart()
    return seconds


async def interrupt_ours(stage: Stage, number: int) -> float:
    order = await stage.hold(picture(1 + number))
    begun = perf_counter()
    stage.engine.interrupt()
    expect(await order, "canceled")
    return perf_counter() - begun


async def clear_queue(stage: Stage, number: int) -> float:
    _, pending = await _hold_two(stage, number)
    begun = perf_counter()
    stage.engine.clear_queue()
    expect(await pending, "canceled")
    return perf_counter() - begun


# Files and callers ---------------------------------------------------------------------------------------------------


async def lose_file(stage: Stage, number: int) -> float:
    graph = picture(1 + number)
    check(await stage.caller.run(graph), 1 + number)
    for path in (stage.engine.folders.root / "output").iterdir():
        if path.is_file():
            path.unlink()
    begun = perf_counter()
    check(await stage.caller.run(graph), 1 + number)
    return perf_counter() - begun


async def break_file_off(stage: Stage, number: int) -> None:
    stage.engine.faults.view_truncated = 1


async def _hold_two(stage: Stage, number: int) -> "tuple[asyncio.Task[Reply], asyncio.Task[Reply]]":
    """One order that runs, and one that is pending in the engine."""
    running = await stage.hold(picture(1 + 2 * number))
    pending = stage.caller.start(picture(2 + 2 * number))
    await stage.engine.until(lambda: stage.engine.prompts.pending)
    return running, pending


async def leave_running(stage: Stage, number: int) -> float:
    order = await stage.hold(picture(1 + number))
    begun = perf_counter()
    await give_up(order)
    await stage.engine.until(lambda: not stage.engine.prompts.remaining)
    return perf_counter() - begun


async def leave_pending(stage: Stage, number: int) -> float:
    _, pending = await _hold_two(stage, number)
    begun = perf_counter()
    await give_up(pending)
    await stage.engine.until(lambda: not stage.engine.prompts.pending)
    return perf_counter() - begun


async def run_out_of_time(stage: Stage, number: int) -> float:
    stage.engine.hold()
    begun = perf_counter()
    expect(await stage.caller.run(picture(1 + number), timeout=0.5), "deadline_exceeded")
    return perf_counter() - begun - 0.5


async def cancel(stage: Stage, number: int) -> float:
    order = await stage.hold(picture(1 + number), id=f"canceled-{number}")
    begun = perf_counter()
    await stage.caller.cancel(f"canceled-{number}")
    expect(await order, "canceled")
    return perf_counter() - begun


async def burst(stage: Stage, number: int) -> float:
    """The slowest of eight refusals, of 24 orders that come at once to 16 places."""
    stage.engine.hold()

    async def order(color: int) -> float:
        begun = perf_counter()
        reply = await stage.caller.run(picture(color))
        if reply.status == 200:
            return 0.0
        expect(reply, "queue_full")
        return perf_counter() - begun

    orders = [asyncio.create_task(order(24 * number + color)) for color in range(24)]
    await stage.caller.until(lambda: sum(task.done() for task in orders) == 8)
    slowest = max(task.result() for task in orders if task.done())
    stage.engine.release()
    await asyncio.gather(*orders)
    return slowest


async def come_too_late(stage: Stage, number: int) -> float:
    for _ in range(2):  # the first one after a start is not what prompts take
        await stage.orders.timed()
    await stage.hold(picture(1 + number))
    begun = perf_counter()
    expect(await stage.caller.run(picture(1), timeout=RUN / 2), "deadline_unmeetable")
    return perf_counter() - begun


async def ask_again(stage: Stage, number: int) -> float:
    headers = {"Idempotency-Key": f"again-{number}"}
    check(await stage.caller.run(picture(1 + number), headers), 1 + number)
    begun = perf_counter()
    check(await stage.caller.run(picture(1 + number), headers), 1 + number)
    return perf_counter() - begun


async def drain(rounds: int, *, moment: str) -> Sequence[float]:
    """A converter process that is told to end while an order runs: until it is not ready, or until it has ended."""
    return [(await _drain())[moment] for _ in range(rounds)]


async def _drain() -> Mapping[str, float]:
    found = {}
    async with FakeEngine() as engine, service.open_session() as session:
        with TemporaryDirectory(prefix="benchmark-") as folder:
            flags = ("--engine-url", engine.url, "--drain-delay", "0")
            with service.running(Path(folder), *flags) as process:
                url = await process.listens()
                await process.ready()
                engine.hold()
                body = {"workflow": picture(1)}
                order = asyncio.create_task(service.ask(session, "POST", f"{url}/v1/run", json=body))
                await engine.until_held()
                begun = perf_counter()
                process.signal(signal.SIGTERM)
                while (await service.ask(session, "GET", f"{url}/readyz")).status != 503:
                    pass
                found["not ready"] = perf_counter() - begun
                engine.release()
                if (await order).status != 200:
                    raise Wrong("an order was not answered")
                begun = perf_counter()
                await process.ends()
                found["ended"] = perf_counter() - begun
    return found
