"""Submissions whose fate is unknown, results that are late or lost: resolved, answered, and never run twice."""

import asyncio
from functools import partial

import pytest

from converter import app
from converter.link.client import EngineClient, Limits
from tests.converter.faults.graphs import loaded, passed_through, picture, two_pictures
from tests.converter.faults.phases import data_uri
from tests.converter.faults.replica import converter
from tests.fakes.engine import FakeEngine
from tests.fakes.relay import Chance, Direction, Fate, Relay


@pytest.mark.parametrize("accept", ["application/json", "image/png", "text/event-stream"])
async def test_success_may_come_before_the_answer_to_the_submission(engine: FakeEngine, accept: str) -> None:
    async with converter(engine.url) as caller:
        engine.faults.success_before_answer = 1
        reply = await caller.run(picture(0x123456), {"Accept": accept})
        assert reply.status == 200
        assert len(engine.executed_prompts) == 2


async def test_failure_may_come_before_the_answer_to_the_submission(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.faults.success_before_answer = 1
        reply = await caller.run(passed_through("TestRaise", kind="ValueError", message="no"))
        assert (reply.status, reply.code) == (422, "execution_failed")


async def test_an_answer_that_is_lost_does_not_make_the_prompt_run_twice(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.faults.answer_lost = 1
        assert (await caller.run(picture(0x123456))).colors == [0x123456]
        assert len(engine.executed_prompts) == 2


async def test_an_answer_that_is_lost_while_the_prompt_waits_in_the_queue(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        stranger = engine.put_stranger()
        await engine.until_held(stranger)
        engine.faults.answer_lost = 1
        running = caller.start(picture(0x123456))
        await engine.until(lambda: len(engine.posted_prompts) == 3)
        engine.release()
        assert (await running).colors == [0x123456]
        assert len(engine.posted_prompts) == 3


async def test_answer_and_socket_are_lost_together(engine: FakeEngine) -> None:
    async with Relay(engine.url) as relay, converter(relay.url) as caller:
        engine.faults.success_before_answer = 1
        engine.hold()
        running = caller.start(picture(0x123456))
        await engine.until_held()
        relay.cut()
        engine.release()
        assert (await running).colors == [0x123456]
        assert len(engine.executed_prompts) == 2


@pytest.mark.parametrize("lost", [False, True])
async def test_no_half_of_a_workflow_is_answered_as_if_it_were_the_whole(engine: FakeEngine, lost: bool) -> None:
    graph = two_pictures(1, 2)
    graph["4"]["inputs"]["images"] = ["3", 7]
    async with converter(engine.url) as caller:
        engine.faults.answer_lost = int(lost)
        reply = await caller.run(graph)
        assert (reply.status, reply.code) == (422, "invalid_workflow")
        assert "4" in reply.document["node_errors"]


@pytest.mark.usefixtures("brisk")
async def test_a_500_is_resolved_before_the_prompt_is_sent_again(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.faults.post_500 = 1
        reply = await caller.run(picture(0x123456))
        assert reply.colors == [0x123456]
        assert len(engine.executed_prompts) == 2
        first, second = engine.asked("POST", "/prompt")[-2:]
        assert first.body["prompt_id"] != second.body["prompt_id"], "an id is never used twice"
        between = engine.requests[engine.requests.index(first) : engine.requests.index(second)]
        assert {"/queue", f"/history/{first.body['prompt_id']}"} <= {asked.path for asked in between}


@pytest.mark.usefixtures("brisk")
async def test_an_engine_that_always_says_500_has_failed(engine: FakeEngine) -> None:
    async with converter(engine.url, max_attempts=2) as caller:
        engine.faults.post_500 = 100
        reply = await caller.run(picture(0x123456))
        assert (reply.status, reply.code) == (502, "engine_failed")
        assert engine.faults.post_500 == 98


async def test_a_cached_run_is_answered_at_once(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        for _ in range(3):
            reply = await caller.run(picture(0x123456))
            assert reply.colors == [0x123456]
            assert reply.document["timings"]["total"] < 2
        assert len(list((engine.folders.root / "output").iterdir())) == 1, "only the first has run"


@pytest.mark.parametrize("lost", [False, True])
async def test_a_record_that_is_half_a_second_late(engine: FakeEngine, lost: bool) -> None:
    async with converter(engine.url) as caller:
        engine.faults.late_history = 0.5
        engine.hold()
        running = caller.start(picture(0x123456))
        await engine.until_held()
        if lost:
            engine.drop_sockets()
        engine.release()
        assert (await running).colors == [0x123456]
        assert len(engine.executed_prompts) == 2


async def test_a_failure_whose_record_is_late_is_told_in_full(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.faults.late_history = 0.5
        reply = await caller.run(passed_through("TestRaise", kind="ValueError", message="as it should"))
        assert (reply.code, reply.document["node_id"], reply.document["detail"]) == (
            "execution_failed",
            "9",
            "as it should",
        )


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("deaf", [False, True])
async def test_without_socket_and_record_the_engine_has_failed_and_nothing_runs_again(
    engine: FakeEngine, deaf: bool
) -> None:
    """That the prompt was running is heard, or seen in the queue only."""
    async with converter(engine.url) as caller:
        if deaf:
            engine.deafen()
        engine.hold()
        running = caller.start(picture(0x123456), id="lost")
        await engine.until_held()
        await caller.until_job("lost", "running")
        engine.faults.missing_history = 1
        engine.drop_sockets()
        engine.release()
        reply = await running
        assert (reply.status, reply.code) == (502, "engine_failed")
        assert len(engine.executed_prompts) == 2
        assert (await caller.run(picture(0x654321))).colors == [0x654321]


async def test_a_record_is_not_needed_where_the_socket_has_told_everything(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.faults.missing_history = 1
        assert (await caller.run(picture(0x123456))).colors == [0x123456]


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("deaf", [False, True])
async def test_a_record_that_is_evicted_at_once(engine: FakeEngine, deaf: bool) -> None:
    """With the socket's own account of it nobody needs it. Without, and with all other records gone as well, nothing
    tells the engine from one that has restarted: the workflow is run again.
    """
    async with converter(engine.url) as caller:
        if deaf:
            engine.deafen()
        engine.hold()
        running = caller.start(picture(0x123456), id="lost")
        await engine.until_held()
        await caller.until_job("lost", "running")
        engine.faults.evicted_history = 1
        engine.release()
        reply = await running
        assert (reply.status, reply.colors) == (200, [0x123456])
        assert len(engine.executed_prompts) == (4 if deaf else 2), "two warm-ups and two runs, or one of each"
        await caller.until_ready()
        assert (await caller.run(picture(0x654321))).colors == [0x654321]


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("path", ["/queue", "/history"])
async def test_looks_that_fail_are_tried_again(engine: FakeEngine, path: str) -> None:
    async with converter(engine.url, staleness=30) as caller:
        engine.deafen()
        engine.faults.broken_path = path
        asked = len(engine.asked("GET", path))
        running = caller.start(picture(0x123456))
        await engine.until(lambda: len(engine.asked("GET", path)) > asked + 3)
        engine.faults.broken_path = ""
        assert (await running).colors == [0x123456]
        assert len(engine.posted_prompts) == 2


@pytest.mark.parametrize("path", ["/view", "/upload"])
@pytest.mark.parametrize("lasting", [False, True])
async def test_files_that_the_engine_fails_to_move(engine: FakeEngine, path: str, lasting: bool) -> None:
    async with converter(engine.url) as caller:
        engine.faults.broken_path = path
        asked = len(engine.requests)
        running = caller.start(loaded(data_uri(0x0000FF)))
        await engine.until(lambda: any(request.path.startswith(path) for request in engine.requests[asked:]))
        if not lasting:
            engine.faults.broken_path = ""
        reply = await running
        if lasting:
            assert (reply.status, reply.code) == (502, "engine_failed")
        else:
            assert reply.colors == [0xFFFF00]


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize(
    "fate",
    [
        Fate("refuse"),
        Fate("cut", after=50),
        Fate("close", after=50),
        Fate("half_close", after=50),
        Fate("cut", after=300, direction="to_engine"),
        Fate("half_close", after=300, direction="to_engine"),
        Fate(delay=0.05),
    ],
    ids=lambda fate: f"{fate.action}-{fate.direction}",
)
async def test_whatever_befalls_the_connection_of_a_submission(engine: FakeEngine, fate: Fate) -> None:
    async with Relay(engine.url) as relay, converter(relay.url, staleness=30) as caller:
        relay.cut("http")
        relay.script = [("http", fate)]
        assert (await caller.run(picture(0x123456))).colors == [0x123456]
        assert not relay.script
        saved = [path.name for path in (engine.folders.root / "output").iterdir()]
        assert len(saved) == 1, "it was not run twice"


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("direction", ["to_engine", "to_client"])
async def test_a_submission_that_the_network_holds_up_is_given_up_in_time(
    engine: FakeEngine, direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "EngineClient", partial(EngineClient, limits=Limits(answer=1.0)))
    async with Relay(engine.url) as relay, converter(relay.url, staleness=30) as caller:
        relay.cut("http")
        relay.script = [("http", Fate("stall", after=50, direction=direction))]
        assert (await caller.run(picture(0x123456))).colors == [0x123456]
        assert not relay.script
        saved = [path.name for path in (engine.folders.root / "output").iterdir()]
        assert len(saved) == 1, "it was not run twice"


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_network_that_breaks_by_chance(engine: FakeEngine, seed: int) -> None:
    """Cut or closed connections of both kinds; every answer is right, and no workflow is run to its end twice."""
    async with Relay(engine.url) as relay, converter(relay.url, max_attempts=10, capacity=40) as caller:
        relay.chance = Chance(seed, {"http": {"cut": 0.6, "close": 0.3}, "websocket": {"cut": 0.9}}, longest=4000)
        relay.cut()
        replies = await asyncio.gather(*(caller.run(picture(color)) for color in range(1, 31)))
        assert [reply.colors for reply in replies] == [[color] for color in range(1, 31)]
        assert sum(fate.action != "pass" for _, fate in relay.history) > 5
        saved = [path.name for path in (engine.folders.root / "output").iterdir()]
        assert len(saved) == 30
