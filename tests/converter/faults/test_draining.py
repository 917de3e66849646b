"""The end of a replica: seen at once by load balancers, and nobody's work is lost before its time."""

import asyncio

import pytest

from converter import jobs
from converter.app import _drain
from converter.core import readiness
from tests.converter.faults.graphs import loaded, passed_through, picture
from tests.converter.faults.phases import data_uri
from tests.converter.faults.replica import converter
from tests.fakes.engine import FakeEngine


async def test_a_draining_replica_is_not_ready_at_once_and_still_takes_orders(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        caller.replica.gate.observe(readiness.DrainStarted())
        probe = await caller.get("/readyz")
        assert (probe.status, probe.document["state"]) == (503, "DRAINING")
        assert (await caller.get("/livez")).status == 200
        assert (await caller.run(picture(1))).colors == [1], "load balancers need time to turn away"


async def test_once_closed_it_refuses_and_finishes_what_it_has(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        tasks = [caller.start(picture(color)) for color in range(1, 5)]
        staged = caller.start(loaded(data_uri(0xFF0000)))
        await caller.until(lambda: caller.tickets == 5)
        caller.replica.gate.observe(readiness.DrainStarted())
        caller.replica.gate.close()
        refused = await caller.run(picture(9))
        assert (refused.status, refused.code) == (503, "draining")
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.headers["Connection"] == "close"
        engine.release()
        assert [(await task).colors for task in tasks] == [[1], [2], [3], [4]]
        assert (await staged).colors == [0x00FFFF]
        await caller.replica.jobs.idle()


async def test_a_crash_while_draining_is_overcome(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        running = caller.start(picture(1))
        await engine.until_held()
        caller.replica.gate.observe(readiness.DrainStarted())
        caller.replica.gate.close()
        await engine.crash()
        engine.release()
        await engine.restart()
        assert (await running).colors == [1]


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_who_is_given_up_is_told_and_the_engine_is_cleaned(engine: FakeEngine, accept: str) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        tasks = [caller.start(picture(color), {"Accept": accept}) for color in range(1, 5)]
        await caller.until(lambda: caller.tickets == 4)
        await engine.until_held()
        await engine.until(lambda: len(engine.posted_prompts) == 3)
        caller.replica.jobs.give_up()
        replies = await asyncio.gather(*tasks)
        if accept == "application/json":
            assert {(reply.status, reply.code) for reply in replies} == {(503, "draining")}
        else:
            assert all(b"event: error" in reply.body and b'"draining"' in reply.body for reply in replies)
        await caller.until_empty()
        assert engine.prompts.remaining == 0
        assert len(engine.finished_prompts) == 2, "the warm-up and what was interrupted"


async def test_a_replica_that_ends_takes_its_work_from_the_engine(engine: FakeEngine) -> None:
    engine.hold()
    engine.gate.class_type = "SaveImage"
    async with converter(engine.url) as caller:
        await caller.run(picture(1), {"Prefer": "respond-async"})
        await caller.run(picture(2), {"Prefer": "respond-async"})
        await engine.until_held()
        await engine.until(lambda: len(engine.posted_prompts) == 3)
        caller.replica.jobs.give_up()
    await engine.until_idle()
    assert engine.interrupts == [engine.posted_prompts[1]]


@pytest.mark.parametrize(("prompt", "told"), [("picture", "job"), ("picture", "events"), ("broken", "job")])
async def test_a_job_that_somebody_polls_is_told_before_the_replica_ends(
    engine: FakeEngine, prompt: str, told: str
) -> None:
    async with converter(engine.url) as caller:
        graph = picture(1) if prompt == "picture" else passed_through("TestRaise", kind="ValueError", message="no")
        await caller.run(graph, {"Prefer": "respond-async"}, id="polled")
        end = asyncio.create_task(_drain(caller.replica, grace=30.0, delay=0.0))
        await caller.until(lambda: not caller.tickets and caller.replica.jobs.find("polled").outcome.done())
        assert (await caller.get("/readyz")).document["state"] == "DRAINING"
        assert not end.done()
        if told == "job":
            assert (await caller.job("polled"))["status"] in ("succeeded", "failed")
        else:
            async with caller.watch("polled") as stream:
                assert (await stream.last()).name == "result"
        async with asyncio.timeout(10):
            await end


@pytest.mark.parametrize(("jobs", "words"), [(0, "no jobs are"), (1, "1 job is"), (3, "3 jobs are")])
async def test_the_log_says_what_is_waited_for_and_how_to_end_it(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture, jobs: int, words: str
) -> None:
    async with converter(engine.url) as caller:
        await caller.run(picture(9), {"Prefer": "respond-async"}, id="left")
        await caller.until(lambda: not caller.tickets and caller.replica.jobs.find("left").outcome.done())
        await caller.until_empty()
        engine.hold()
        for color in range(jobs):
            caller.start(picture(color))
        await caller.until(lambda: caller.tickets == jobs)
        end = asyncio.create_task(_drain(caller.replica, grace=30.0, delay=0.0))
        message = f"draining, for at most 30 s: {words} in flight; a second signal ends at once"
        await caller.until(lambda: message in caplog.messages)
        [record] = [record for record in caplog.records if record.message == message]
        assert (vars(record)["results"], vars(record)["webhooks"]) == (1, 0)
        engine.release()
        await caller.job("left")
        async with asyncio.timeout(10):
            await end


async def test_nobody_is_waited_for_who_has_been_told_or_does_not_come(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "RETURN", 0.1)
    async with converter(engine.url) as caller:
        await caller.run(picture(1), {"Prefer": "respond-async, wait=30"})
        await caller.run(picture(2))
        await caller.run(picture(3), {"Prefer": "respond-async"}, id="forgotten")
        async with asyncio.timeout(10):
            await _drain(caller.replica, grace=30.0, delay=0.0)
        assert not caller.replica.jobs.find("forgotten").told.is_set()
