"""Engines that answer and do nothing: FAILED with the reason, and back by themselves; silence alone is no stall."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from converter import app
from converter.app import run_replica
from converter.core import pace
from converter.gate import Limits
from converter.settings import Settings, load
from tests.converter.faults.graphs import loaded, picture
from tests.converter.faults.phases import data_uri
from tests.converter.faults.replica import Caller, colors, converter
from tests.fakes.engine import FakeEngine

QUICK: dict[str, Any] = {"staleness": 0.6, "stall_patience": 0.5}
"""Settings with which a stall shows within a second or two."""


@pytest.fixture(autouse=True)
def quick_to_see_idleness(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no setting: how long prompts may be pending while none runs."""
    make = app._limits

    def shorten(settings: Settings) -> Limits:
        limits = make(settings)
        return replace(limits, readiness=replace(limits.readiness, pending_patience=0.5))

    monkeypatch.setattr(app, "_limits", shorten)


async def reason(caller: Caller) -> str:
    """Why `/readyz` says 503."""
    probe = await caller.get("/readyz")
    assert probe.status == 503
    return str(probe.document["reason"])


async def test_a_worker_that_died_of_our_prompt(engine: FakeEngine) -> None:
    async with converter(engine.url, **QUICK) as caller:
        engine.faults.dead_worker = "running"
        running = caller.start(picture(0x123456))
        await caller.until(lambda: caller.state == "FAILED")
        assert "no progress" in await reason(caller)
        refused = await caller.run(picture(1))
        assert (refused.status, refused.code) == (503, "engine_down")
        assert (await caller.get("/livez")).status == 200
        engine.faults.dead_worker = ""
        await engine.crash()
        await engine.restart()
        assert (await running).colors == [0x123456]
        await caller.until_ready()


async def test_an_engine_of_ours_whose_worker_died_is_restarted_and_the_job_run_again(tmp_path: Path) -> None:
    command = f"{sys.executable} -m tests.fakes.process {{port}} {tmp_path / 'lived'}"
    settings = load({"engine_command": command, "port": 0, "staleness": 0.6, "stall_patience": 1.0}, {})
    environment = {"PYTHONPATH": str(Path(__file__).parents[3])}
    async with run_replica(settings, environment) as replica, ClientSession() as session:
        caller = Caller(replica, session)
        await caller.until_ready()
        before = replica.watch.instance
        async with caller.events(picture(0x123456)) as stream:
            await stream.until("status", state="restarted")
            last = await stream.last()
        assert (last.name, colors(last.data)) == ("result", [0x123456])
        assert replica.watch.instance not in (before, None)
        assert (await caller.get("/livez")).status == 200
        assert "converter_engine_restarts_total 1.0" in (await caller.get("/metrics")).body.decode()


async def test_a_worker_that_takes_nothing_any_more(engine: FakeEngine) -> None:
    async with converter(engine.url, **QUICK) as caller:
        engine.faults.dead_worker = "pending"
        tasks = [caller.start(picture(color)) for color in (1, 2, 3)]
        await caller.until(lambda: caller.state == "FAILED")
        assert "pending" in await reason(caller)
        assert caller.tickets == 3
        engine.faults.dead_worker = ""
        engine.release()
        assert [(await task).colors for task in tasks] == [[1], [2], [3]]
        await caller.until_ready()


async def test_a_worker_that_died_of_a_strangers_prompt(engine: FakeEngine) -> None:
    async with converter(engine.url, **QUICK, max_timeout=100) as caller:
        engine.faults.dead_worker = "pending"
        engine.put_stranger()
        await caller.until(lambda: caller.state == "FAILED")
        assert "pending" in await reason(caller)
        engine.faults.dead_worker = ""
        engine.release()
        await caller.until_ready()


async def test_a_long_prompt_that_is_heard_of_is_no_stall_once_it_moves(engine: FakeEngine) -> None:
    async with converter(engine.url, **QUICK) as caller:
        engine.hold()
        running = caller.start(picture(0x123456))
        await caller.until(lambda: caller.state == "FAILED")
        engine.release()
        assert (await running).colors == [0x123456]
        await caller.until_ready()


async def until_stalled(caller: Caller) -> float:
    """A running prompt counts as stalled; after how many seconds without progress."""
    await caller.until(lambda: "no progress" in caller.replica.gate.view().reason)
    [seconds] = re.findall(r"no progress for ([\d.]+) s", caller.replica.gate.view().reason)
    return float(seconds)


async def states_of_ten_looks(caller: Caller, engine: FakeEngine) -> set[str]:
    """The states during ten reads of the queue, which take thrice the patience; "slow" is one that is only stale."""
    states = set()
    reads = len(engine.asked("GET", "/queue"))

    def observe() -> bool:
        view = caller.replica.gate.view()
        states.add("slow" if view.stale else view.state.value)
        return len(engine.asked("GET", "/queue")) > reads + 10

    await caller.until(observe)
    return states - {"slow"}


async def teach(caller: Caller, engine: FakeEngine) -> float:
    """Let EmptyImage be so slow that it counts as stalled, and end well; after how many seconds it counted as that."""
    engine.hold("EmptyImage")
    running = caller.start(picture(1))
    patience = await until_stalled(caller)
    engine.release()
    assert (await running).colors == [1]
    await caller.until_ready()
    return patience


async def test_a_node_that_was_slow_before_is_given_its_time(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with converter(engine.url, **QUICK) as caller:
        await teach(caller, engine)
        monkeypatch.setattr(pace, "FACTOR", 1000.0)
        engine.hold("EmptyImage")
        running = caller.start(picture(2))
        await engine.until_held()
        assert await states_of_ten_looks(caller, engine) == {"READY"}
        engine.release()
        assert (await running).colors == [2]


async def test_a_worker_that_died_in_a_slow_node_is_found_later(engine: FakeEngine) -> None:
    async with converter(engine.url, **QUICK) as caller:
        first = await teach(caller, engine)
        engine.hold("EmptyImage", interruptible=False)
        running = caller.start(picture(2))
        assert await until_stalled(caller) >= pace.FACTOR * first
        engine.release()
        assert (await running).colors == [2]


async def test_a_worker_that_died_elsewhere_is_not_given_the_time_of_another_node(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with converter(engine.url, **QUICK) as caller:
        await teach(caller, engine)
        monkeypatch.setattr(pace, "FACTOR", 100.0)  # a slow machine may explain some of it
        engine.hold("LoadImage")
        running = caller.start(loaded(data_uri(2)))
        assert await until_stalled(caller) < 100.0 * QUICK["stall_patience"]
        engine.release()
        assert (await running).status == 200


async def test_a_prompt_that_was_told_to_go_and_stays_is_a_stall(engine: FakeEngine) -> None:
    """Its caller has left before that could show; those who come after it would wait for nothing."""
    async with converter(engine.url, staleness=0.6, stall_patience=2.0) as caller:
        engine.hold("EmptyImage", interruptible=False)
        gone = caller.start(picture(1), id="gone")
        await engine.until_held()
        await caller.cancel("gone")
        assert (await gone).code == "canceled"
        assert await until_stalled(caller) == 2.0
        assert (await caller.run(picture(2))).code == "engine_down"
        engine.release()
        await caller.until_ready()
        assert (await caller.run(picture(3))).colors == [3]


async def test_a_prompt_that_goes_when_it_is_told_to_is_none(engine: FakeEngine) -> None:
    async with converter(engine.url, **QUICK) as caller:
        for color in (1, 2, 3):
            engine.hold("EmptyImage")
            gone = caller.start(picture(color), id=f"gone-{color}")
            await engine.until_held()
            await caller.cancel(f"gone-{color}")
            assert (await gone).code == "canceled"
            await engine.until_idle()
        engine.release()
        assert await states_of_ten_looks(caller, engine) == {"READY"}


async def test_a_long_prompt_whose_socket_was_lost_is_no_stall(engine: FakeEngine) -> None:
    """The engine tells the new socket nothing about it, so its silence says nothing."""
    async with converter(engine.url, **QUICK) as caller:
        engine.hold()
        running = caller.start(picture(0x123456))
        await engine.until_held()
        engine.drop_sockets()
        await engine.until(lambda: engine.sockets.open)
        assert await states_of_ten_looks(caller, engine) == {"READY"}
        engine.release()
        assert (await running).colors == [0x123456]


async def test_a_long_prompt_of_a_stranger_is_no_stall(engine: FakeEngine) -> None:
    async with converter(engine.url, **QUICK) as caller:
        engine.hold()
        engine.put_stranger()
        await engine.until_held()
        waiting = caller.start(picture(1))
        reads = len(engine.asked("GET", "/queue"))
        await engine.until(lambda: len(engine.asked("GET", "/queue")) > reads + 10)
        assert caller.state == "READY" or caller.replica.gate.view().stale
        engine.release()
        assert (await waiting).colors == [1]
        assert not engine.interrupts


def shown_state(metrics: str) -> str:
    """The state that `/metrics` tells."""
    [state] = re.findall(r'^converter_state\{state="(\w+)"\} 1\.0$', metrics, re.MULTILINE)
    return str(state)


async def test_an_engine_that_does_not_answer_is_not_ready_wherever_one_looks(engine: FakeEngine) -> None:
    async with converter(engine.url, staleness=0.6, stall_patience=3.0) as caller:
        engine.faults.held_path = "/queue"
        await caller.until(lambda: not caller.ready)
        for path, status in (("/readyz", 503), ("/v2/health/ready", 503), ("/status", 200)):
            probe = await caller.get(path)
            assert (probe.status, probe.document["state"]) == (status, "FAILED")
            assert "last read" in probe.document["reason"]
        assert shown_state((await caller.get("/metrics")).body.decode()) == "FAILED"
        assert (await caller.get("/livez")).status == 200
        patient = caller.start(picture(1))  # a short silence refuses nobody
        await engine.until(lambda: len(engine.posted_prompts) == 2)
        await caller.until(lambda: "has not answered" in caller.replica.gate.view().reason)
        assert (await caller.run(picture(2))).code == "engine_down"
        engine.faults.held_path = ""
        engine.release()
        await caller.until_ready()
        assert (await patient).colors == [1]
        assert shown_state((await caller.get("/metrics")).body.decode()) == "READY"
