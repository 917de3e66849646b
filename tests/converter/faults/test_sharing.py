"""An engine that others use at the same time: what is theirs is never stopped by us, and ours outlives our mistakes."""

import asyncio

import pytest

from tests.converter.faults.graphs import picture
from tests.converter.faults.phases import scene
from tests.converter.faults.replica import Caller, Reply, converter, give_up
from tests.fakes.engine import FakeEngine

OLD, NEW = "0.3.50", "0.38.1"
"""Versions that heed no prompt id in an interrupt, and that cancel in one step. Between them is 0.3.64."""


async def leave_running(engine: FakeEngine, caller: Caller) -> str:
    """An order begins to run, a stranger's prompt queues behind it, and the caller leaves; the order's prompt."""
    engine.hold()
    running: asyncio.Task[Reply] = caller.start(picture(1))
    prompt_id = await engine.until_held()
    await caller.until(lambda: caller.replica.gate.queue()["running"] == 1)
    engine.put_stranger()
    await give_up(running)
    return prompt_id


async def test_nothing_is_interrupted_while_a_strangers_prompt_is_next(engine: FakeEngine) -> None:
    """Between the check of the id and the flag the prompt may end, and the flag would hit the stranger's."""
    async with converter(engine.url) as caller:
        prompt_id = await leave_running(engine, caller)
        stranger = engine.prompts.pending[0][1]
        asked = len(engine.asked("POST", "/jobs/"))
        reads = len(engine.asked("GET", "/queue"))
        await engine.until(lambda: len(engine.asked("GET", "/queue")) > reads + 5)
        assert (engine.interrupts, engine.deletes) == ([], [])
        assert caller.tickets == 1, "the engine has not let go of it"
        engine.delete(stranger)
        await engine.until(lambda: engine.interrupts)
        assert engine.interrupts == [prompt_id]
        await caller.until_empty()
        assert len(engine.asked("POST", "/jobs/")) <= asked + 1, "what the engine lacks is asked for once"


async def test_a_new_engine_cancels_in_one_step_whoever_is_next() -> None:
    async with FakeEngine(version=NEW) as engine, converter(engine.url) as caller:
        prompt_id = await leave_running(engine, caller)
        await engine.until(lambda: engine.cancels)
        engine.release()
        await caller.until_empty()
        await engine.until_idle()
        assert (set(engine.cancels), engine.interrupts) == ({prompt_id}, [])
        assert engine.prompts.history[engine.finished_prompts[-1]]["status"]["status_str"] == "success"


@pytest.mark.parametrize("phase", ["queued", "running"])
async def test_an_old_engine_is_told_to_delete_and_never_to_interrupt(phase: str) -> None:
    async with FakeEngine(version=OLD) as engine, converter(engine.url) as caller:
        engine.faults.ignore_prompt_id_on_interrupt = True
        async with scene(engine, caller, "queued" if phase == "queued" else "running") as staged:
            reads = len(engine.asked("GET", "/queue"))
            await give_up(staged.victim)
            await engine.until(lambda: len(engine.asked("GET", "/queue")) > reads + 5)
            assert engine.interrupts == []
            assert engine.deletes == ([[staged.prompt_id]] if phase == "queued" else [])
        assert (staged.prompt_id in engine.finished_prompts) is (phase == "running")
        assert len(engine.asked("GET", "/system_stats")) == (phase == "running")


async def test_an_engine_that_does_not_say_how_old_it_is_counts_as_old(engine: FakeEngine) -> None:
    engine.version = "0.3.64-but-who-knows"
    async with converter(engine.url) as caller:
        engine.version = "nightly"
        async with scene(engine, caller, "running") as staged:
            await give_up(staged.victim)
            await engine.until(lambda: engine.asked("GET", "/system_stats"))
        assert engine.interrupts == []


async def test_one_of_ours_that_our_own_interrupt_hits_is_run_again(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.faults.stray_interrupt = 1
        engine.hold()
        leaving = caller.start(picture(1))
        named = await engine.until_held()
        staying = caller.start(picture(2))
        await engine.until(lambda: len(engine.posted_prompts) == 3)
        hit = engine.posted_prompts[-1]
        await give_up(leaving)
        await engine.until(lambda: engine.interrupts)
        engine.release()
        reply = await staying
        assert (reply.status, reply.colors) == (200, [2])
        assert engine.interrupts == [named]
        assert engine.prompts.history[hit]["status"]["status_str"] == "error"
        assert reply.prompt_id not in (named, hit)


async def test_one_of_ours_that_somebody_else_interrupts_is_canceled(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        running = caller.start(picture(1))
        await engine.until_held()
        engine.interrupt()
        reply = await running
        assert (reply.status, reply.code, reply.document["retry"]) == (409, "canceled", "same")
        assert len(engine.posted_prompts) == 2
        engine.release()
