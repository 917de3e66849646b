"""Orders that end early, in every phase: their callers leave, somebody cancels them, or their time is up."""

import asyncio

import pytest

from tests.converter.faults.graphs import picture
from tests.converter.faults.phases import PHASES, Phase, scene
from tests.converter.faults.replica import converter, give_up
from tests.fakes.engine import FakeEngine

VERSIONS = ["0.3.64", "0.38.1"]


@pytest.mark.parametrize("accept", ["image/png", "text/event-stream"])
@pytest.mark.parametrize("phase", PHASES)
async def test_a_caller_leaves(engine: FakeEngine, phase: Phase, accept: str) -> None:
    async with (
        converter(engine.url) as caller,
        scene(engine, caller, phase, headers={"Accept": accept}) as staged,
    ):
        await give_up(staged.victim)
        await staged.until_withdrawn()
        await caller.until_job("victim", "canceled")


@pytest.mark.parametrize("phase", PHASES)
async def test_a_job_is_canceled_by_somebody_else_three_times_at_once(engine: FakeEngine, phase: Phase) -> None:
    async with converter(engine.url) as caller, scene(engine, caller, phase) as staged:
        canceled = await asyncio.gather(*(caller.cancel("victim") for _ in range(3)))
        assert [(each.status, each.document["status"]) for each in canceled] == [(200, "canceled")] * 3
        reply = await staged.victim
        assert (reply.status, reply.code) == (409, "canceled")
        await staged.until_withdrawn()


@pytest.mark.parametrize("phase", PHASES)
async def test_a_jobs_time_is_up(engine: FakeEngine, phase: Phase) -> None:
    async with converter(engine.url) as caller, scene(engine, caller, phase, timeout=1.0) as staged:
        reply = await staged.victim
        assert (reply.status, reply.code) == (504, "deadline_exceeded")
        assert reply.document["phase"] == phase
        spent = {key: seconds for key, seconds in reply.document["timings"].items() if key != "total"}
        assert max(spent, key=lambda key: spent[key]) == {
            "submitting": "queued",
            "running": "executing",
        }.get(phase, phase)
        await staged.until_withdrawn()


@pytest.mark.parametrize("phase", ["queued", "running"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_old_and_new_engines_let_go_of_the_right_prompt(phase: Phase, version: str) -> None:
    async with FakeEngine(version=version) as engine, converter(engine.url) as caller:
        async with scene(engine, caller, phase) as staged:
            await give_up(staged.victim)
            await staged.until_withdrawn()
            if version != "0.3.64":
                assert set(engine.cancels) == {staged.prompt_id}
            elif phase == "running":
                assert set(engine.interrupts) == {staged.prompt_id}
            else:
                assert engine.deletes == [[staged.prompt_id]]
        assert staged.prompt_id not in engine.finished_prompts or phase == "running"


async def test_a_caller_who_would_have_waited_so_long_leaves_earlier(engine: FakeEngine) -> None:
    async with (
        converter(engine.url) as caller,
        scene(engine, caller, "running", headers={"Prefer": "wait=60"}) as staged,
    ):
        await give_up(staged.victim)
        await staged.until_withdrawn()
        await caller.until_job("victim", "canceled")


async def test_a_cancel_after_the_end_changes_nothing(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        await caller.run(picture(1), {"Prefer": "respond-async"}, id="done")
        await caller.until_job("done", "succeeded")
        assert (await caller.cancel("done")).document["status"] == "succeeded"
        assert (await caller.get("/v1/jobs/done")).colors == [1]
        assert not engine.interrupts
        assert not engine.deletes


@pytest.mark.parametrize("phase", PHASES)
async def test_the_stream_of_a_canceled_job_ends_with_the_problem(engine: FakeEngine, phase: Phase) -> None:
    async with converter(engine.url) as caller, scene(engine, caller, phase) as staged:
        async with caller.watch("victim") as stream:
            await stream.until("status")
            await caller.cancel("victim")
            last = await stream.last()
        assert (last.name, last.data["code"]) == ("error", "canceled")
        assert (await staged.victim).status == 409
        await staged.until_withdrawn()


async def test_the_ticket_counts_until_the_engine_has_let_go(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=1) as caller:
        engine.hold(interruptible=False)
        late = await caller.run(picture(1), timeout=0.5)
        assert (late.status, late.document["phase"]) == (504, "running")
        await engine.until(lambda: engine.interrupts)
        refused = await caller.run(picture(2))
        assert (refused.status, refused.code) == (429, "queue_full")
        assert (caller.tickets, caller.state) == (1, "BUSY")
        engine.release()
        await caller.until_empty()
        assert (await caller.run(picture(3))).colors == [3]


async def test_an_interrupt_that_the_engine_missed_is_repeated(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ComfyUI clears its flag when a prompt starts, so an interrupt that comes just before is lost."""
    async with converter(engine.url) as caller:
        engine.hold()
        victim = caller.start(picture(1))
        prompt_id = await engine.until_held()
        with monkeypatch.context() as patch:
            patch.setattr(engine, "interrupt", lambda prompt_id: None)
            await give_up(victim)
            await engine.until(lambda: engine.interrupts)
        await caller.until_empty()
        assert engine.interrupts == [prompt_id, prompt_id]


async def test_an_engine_that_stops_whatever_runs_never_stops_a_neighbour(engine: FakeEngine) -> None:
    """Older versions ignore the prompt id of an interrupt, so only what is seen running may be interrupted."""
    async with converter(engine.url) as caller:
        engine.faults.ignore_prompt_id_on_interrupt = True
        engine.hold()
        neighbour = caller.start(picture(1))
        await engine.until_held()
        victim = caller.start(picture(2))
        await engine.until(lambda: len(engine.posted_prompts) == 3)
        await give_up(victim)
        await engine.until(lambda: engine.deletes)
        engine.release()
        assert (await neighbour).colors == [1]
        assert engine.interrupts == []


async def test_a_waiting_caller_that_leaves_makes_room_for_the_next(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=3) as caller:
        engine.hold()
        staying = [caller.start(picture(color)) for color in (1, 2)]
        await caller.until(lambda: caller.tickets == 2)
        leaving = caller.start(picture(3))
        await caller.until(lambda: caller.tickets == 3)
        assert (await caller.run(picture(4))).code == "queue_full"
        await give_up(leaving)
        await caller.until(lambda: caller.tickets == 2)
        last = caller.start(picture(5))
        await caller.until(lambda: caller.tickets == 3)
        engine.release()
        assert [(await task).colors for task in (*staying, last)] == [[1], [2], [5]]
        assert len(engine.posted_prompts) == 4
