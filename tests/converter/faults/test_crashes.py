"""Engines that die under their work, and come back or do not: each order is answered once, and rightly."""

import asyncio

import pytest

from tests.converter.faults.graphs import loaded, passed_through, picture
from tests.converter.faults.phases import data_uri
from tests.converter.faults.replica import colors, converter
from tests.fakes.engine import FakeEngine
from tests.fakes.relay import Chance, Relay


async def test_a_crash_in_mid_run_is_not_an_error(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        before = (await caller.get("/status")).document["engine"]["instance"]
        engine.hold()
        running = caller.start(picture(0x123456))
        await engine.until_held()
        await engine.crash()
        engine.release()
        await engine.restart()
        reply = await running
        assert reply.colors == [0x123456]
        assert reply.document["engine"]["instance"] != before


async def test_a_crash_is_seen_and_overcome_by_the_probes(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        await engine.crash()
        await caller.until(lambda: caller.state == "FAILED")
        probe = await caller.get("/readyz")
        assert (probe.status, probe.document["state"]) == (503, "FAILED")
        assert (await caller.get("/livez")).status == 200
        assert (await caller.get("/startupz")).status == 200
        refused = await caller.run(picture(1))
        assert (refused.status, refused.code) == (503, "engine_down")
        assert int(refused.headers["Retry-After"]) >= 1
        await engine.restart()
        await caller.until_ready()
        assert (await caller.run(picture(2))).colors == [2]


async def test_waiting_orders_are_kept_while_the_engine_is_away(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        tasks = [caller.start(picture(color)) for color in range(1, 7)]
        await caller.until(lambda: caller.tickets == 6)
        await engine.until_held()
        await engine.crash()
        await caller.until(lambda: caller.state == "FAILED")
        assert caller.tickets == 6
        engine.release()
        await engine.restart()
        assert [(await task).colors for task in tasks] == [[color] for color in range(1, 7)]


async def test_the_stream_says_restarted_and_its_value_never_goes_back(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold("SaveImage")
        async with caller.events(passed_through("TestPreview", 0x123456, steps=5)) as stream:
            await stream.until("progress", node_id="2")
            await engine.until_held()
            await engine.crash()
            engine.release()
            await engine.restart()
            restarted = await stream.until("status", state="restarted")
            last = await stream.last()
        assert (last.name, colors(last.data)) == ("result", [0x123456])
        values = [data["value"] for data in stream.all("progress")]
        assert values == sorted(values)
        assert [event.id for event in stream.heard].count(restarted.id) == 1
        assert [data["state"] for data in stream.all("status")].count("restarted") == 1


async def test_what_was_running_is_tried_again_alone(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        suspect = caller.start(picture(1))
        await engine.until_held()
        neighbour = caller.start(picture(2))
        await engine.until(lambda: len(engine.posted_prompts) == 3)
        await caller.until(lambda: caller.replica.gate.queue()["running"] == 2)
        await engine.crash()
        engine.hold("SaveImage")
        await engine.restart()
        again = await engine.until_held()
        assert [item[1] for item in engine.prompts.pending] == []
        await caller.until_ready()
        assert caller.replica.gate.queue()["running"] == 1, "nothing is given to the engine beside it"
        engine.release()
        assert (await suspect).prompt_id == again
        assert (await neighbour).colors == [2]


async def test_an_engine_that_dies_each_time_is_tried_so_often(engine: FakeEngine) -> None:
    async with converter(engine.url, max_attempts=2) as caller:
        running = caller.start(passed_through("TestExit"))
        for _ in range(2):
            await engine.until(lambda: not engine.alive)
            await engine.restart()
        reply = await running
        assert (reply.status, reply.code) == (502, "engine_failed")
        assert "2 times" in reply.document["detail"]
        await caller.until_ready()
        assert (await caller.run(picture(1))).colors == [1]


async def test_an_engine_that_dies_of_the_submission(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.faults.exit_on_post = 1
        running = caller.start(picture(0x123456))
        await engine.until(lambda: not engine.alive)
        await engine.restart()
        assert (await running).colors == [0x123456]


@pytest.mark.parametrize("path", ["/upload", "/view"])
async def test_a_crash_while_files_are_moved(engine: FakeEngine, path: str) -> None:
    async with converter(engine.url) as caller:
        engine.faults.held_path = path
        asked = len(engine.requests)
        running = caller.start(loaded(data_uri(0x0000FF)))
        await engine.until(lambda: any(request.path.startswith(path) for request in engine.requests[asked:]))
        await engine.crash()
        engine.faults.held_path = ""
        engine.release()
        await engine.restart()
        assert (await running).colors == [0xFFFF00]


@pytest.mark.parametrize("path", ["/upload", "/view"])
async def test_files_wait_for_an_engine_that_is_long_away(engine: FakeEngine, path: str) -> None:
    """Behind something that still takes its connections, and resets them."""
    async with Relay(engine.url) as relay, converter(relay.url, staleness=0.4) as caller:
        engine.faults.held_path = path
        asked = len(engine.requests)
        running = caller.start(loaded(data_uri(0x0000FF)))
        await engine.until(lambda: any(request.path.startswith(path) for request in engine.requests[asked:]))
        await engine.crash()
        met = len(relay.history)
        await caller.until(lambda: len(relay.history) > met + 40)  # looks at the queue alone are ten a second
        engine.faults.held_path = ""
        engine.release()
        await engine.restart()
        assert (await running).colors == [0xFFFF00]


async def test_an_engine_that_stays_away_costs_no_more_than_the_timeout(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        running = caller.start(picture(1), timeout=1.5)
        await engine.until_held()
        await engine.crash()
        reply = await running
        assert (reply.status, reply.code) == (504, "deadline_exceeded")
        assert caller.tickets == 1, "nobody knows yet whether the engine still has it"
        engine.release()
        await engine.restart()
        await caller.until_ready()
        await caller.until_empty()
        assert len(engine.posted_prompts) == 3, "two warm-ups and the order"


async def test_a_caller_may_leave_while_the_engine_is_away(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        running = caller.start(picture(1), id="left")
        await engine.until_held()
        await engine.crash()
        await caller.until(lambda: caller.state == "FAILED")
        assert (await caller.cancel("left")).document["status"] == "canceled"
        assert (await running).status == 409
        engine.release()
        await engine.restart()
        await caller.until_empty()


async def test_a_quick_restart_while_idle_is_noticed(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        before = caller.replica.watch.instance
        await engine.crash()
        await engine.restart()
        await caller.until(lambda: caller.replica.watch.instance not in (before, None) and caller.ready)
        assert len(engine.posted_prompts) == 2, "each start is warmed up"
        assert (await caller.run(picture(1))).colors == [1]


async def test_a_restart_while_there_is_no_websocket_is_noticed(engine: FakeEngine) -> None:
    """Nor is any connection refused: what is between takes and resets them."""
    async with Relay(engine.url) as relay, converter(relay.url) as caller:
        relay.chance = Chance(0, {"websocket": {"refuse": 1.0}})
        relay.cut("websocket")
        asked = len(engine.asked("GET", "/queue"))
        await engine.until(lambda: len(engine.asked("GET", "/queue")) > asked + 3)
        assert caller.state == "READY"
        await engine.crash()
        engine.hold()
        await engine.restart()
        await caller.until(lambda: caller.state == "STARTING")
        relay.chance = None
        await engine.until_held()
        assert not caller.ready
        engine.release()
        await caller.until_ready()


async def test_three_crashes_in_a_row(engine: FakeEngine) -> None:
    async with converter(engine.url, max_attempts=5) as caller:
        engine.hold("SaveImage")
        tasks = [caller.start(picture(color)) for color in range(1, 5)]
        for _ in range(3):
            await engine.until_held()
            await engine.crash()
            await engine.restart()
        engine.release()
        assert [(await task).colors for task in tasks] == [[color] for color in range(1, 5)]


async def test_history_that_somebody_clears_is_no_restart(engine: FakeEngine) -> None:
    """The record by which the engine is known again is gone, yet what was in the queue still is."""
    async with converter(engine.url) as caller:
        instance = caller.replica.watch.instance
        engine.hold()
        running = caller.start(picture(0x123456), id="only")
        await engine.until_held()
        await caller.until_job("only", "running")
        reads = len(engine.asked("GET", "/queue"))
        await engine.until(lambda: len(engine.asked("GET", "/queue")) > reads + 1)
        engine.clear_history()
        engine.drop_sockets()
        await engine.until(lambda: engine.sockets.open)
        reads = len(engine.asked("GET", "/queue"))
        await engine.until(lambda: len(engine.asked("GET", "/queue")) > reads + 1)
        engine.release()
        assert (await running).colors == [0x123456]
        assert len(engine.posted_prompts) == 2
        assert caller.replica.watch.instance == instance


async def test_an_engine_that_comes_up_late(engine: FakeEngine) -> None:
    await engine.crash()
    async with converter(engine.url, wait=False) as caller:
        probe = await caller.get("/readyz")
        assert (probe.status, probe.document["state"]) == (503, "STARTING")
        assert (await caller.get("/startupz")).status == 503
        refused = await caller.run(picture(1))
        assert (refused.status, refused.code) == (503, "starting")
        await engine.restart()
        await caller.until_ready()
        assert (await caller.run(picture(1))).colors == [1]


async def test_a_warm_up_that_fails_is_tried_again(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.watch.WARMUP_RETRY", 0.1)
    engine.faults.out_of_memory = 2
    async with converter(engine.url, wait=False) as caller:
        await caller.until(lambda: caller.state == "FAILED")
        assert "warm-up" in (await caller.get("/readyz")).document["reason"]
        await caller.until_ready()


async def test_a_warm_up_that_somebody_interrupts_is_begun_again_at_once(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converter.watch.WARMUP_RETRY", 1000.0)
    engine.hold()
    async with converter(engine.url, wait=False) as caller:
        first = await engine.until_held()
        engine.interrupt()
        await engine.until(lambda: engine.gate.holding and first not in engine.gate.holding)
        assert caller.state == "STARTING"
        engine.release()
        await caller.until_ready()


@pytest.mark.parametrize("path", ["/history", "/object_info"])
@pytest.mark.parametrize("dies", [False, True])
async def test_what_follows_a_warm_up_is_asked_again(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, path: str, dies: bool
) -> None:
    monkeypatch.setattr("converter.watch.WARMUP_RETRY", 1000.0)
    monkeypatch.setattr("converter.watch.SETTLING", 1000.0)
    engine.faults.broken_path = path
    async with converter(engine.url, wait=False) as caller:
        await engine.until(lambda: any(request.path.startswith(path) for request in engine.requests))
        if dies:
            await engine.crash()
        engine.faults.broken_path = ""
        if dies:
            await engine.restart()
        await caller.until_ready()


async def test_probes_tell_the_truth_while_the_engine_comes_and_goes(engine: FakeEngine) -> None:
    """Ready is never said of an engine that has not been warmed up since it came."""
    async with converter(engine.url) as caller:
        for _ in range(3):
            await engine.crash()
            started = len(engine.finished_prompts)
            await caller.until(lambda: not caller.ready)
            await engine.restart()
            await caller.until_ready()
            assert len(engine.finished_prompts) > started
        await asyncio.gather(*(caller.run(picture(color)) for color in range(1, 5)))


async def test_of_a_prompt_that_died_with_its_engine_nothing_is_remembered(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        running = caller.start(picture(0x123456))
        await engine.until_held()
        await engine.crash()
        engine.release()
        await engine.restart()
        assert (await running).colors == [0x123456]
        await caller.until_empty()
        assert not caller.prompts
