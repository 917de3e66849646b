"""The client against a real converter over the scripted engine: what each side promises, the other one keeps."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from converter import errors
from converter.client import Client, Output, Progress, Result, Status, Template
from tests.converter.client.conftest import Naps
from tests.converter.faults.graphs import loaded, picture, two_pictures
from tests.converter.faults.replica import Caller, converter
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of, encode, solid
from tests.fakes.relay import Relay

PATIENCE = 60.0
"""Seconds after which a wait for anything fails."""

TEMPLATE = """
title = "Plain"
description = "A plain picture."

[inputs.color]
type = "integer"
node = "1.color"
minimum = 0
maximum = 16777215
"""


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as engine:
        yield engine


def colors(result: Result) -> list[int]:
    return [color_of(output.content) for output in result.outputs]


def orders(engine: FakeEngine) -> int:
    """Prompts that were given to the engine beside the warm-up."""
    return len(engine.posted_prompts) - 1


async def test_a_workflow_is_run_and_followed(engine: FakeEngine) -> None:
    async with (
        converter(engine.url) as caller,
        Client(caller.url) as client,
        client.stream(picture(7), id="mine") as events,
    ):
        heard = [event async for event in events]
    assert isinstance(heard[0], Status)
    last = heard[-1]
    assert isinstance(last, Result)
    assert (last.id, colors(last)) == ("mine", [7])
    assert [type(event) for event in heard].count(Result) == 1
    assert any(isinstance(event, Progress) and event.value == 1.0 for event in heard)
    announced = [event for event in heard if isinstance(event, Output)]
    assert [output.name for output in announced] == [output.name for output in last.outputs]
    assert last.timings["total"] > 0


async def test_outputs_are_chosen_and_converted(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller, Client(caller.url) as client:
        result = await client.run(two_pictures(1, 2), outputs={"nodes": ["4"], "format": "webp", "quality": 100})
    [output] = result.outputs
    assert (output.node_id, output.content_type) == ("4", "image/webp")


async def test_outputs_may_come_as_links(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller, Client(caller.url) as client:
        async with client.stream(picture(7), outputs={"delivery": "url"}) as events:
            heard = [event async for event in events]
        announced = [event for event in heard if isinstance(event, Output)]
        last = heard[-1]
        assert isinstance(last, Result)
        [output] = last.outputs
        assert announced == [output]
        assert output.url is not None
        assert output.expires_at is not None
        async with ClientSession() as session, session.get(output.url) as fetched:
            assert color_of(await fetched.read()) == 7
        with pytest.raises(ValueError, match=re.escape(output.url)):
            output.content  # noqa: B018


async def test_files_go_in(engine: FakeEngine, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(encode(solid(0x102030, 16, 16)[0]))
    workflow: dict[str, Any] = loaded("")
    workflow["1"]["inputs"]["image"] = {"part": "photo"}
    async with converter(engine.url) as caller, Client(caller.url) as client:
        for source in (photo, photo.read_bytes()):
            assert colors(await client.run(workflow, files={"photo": source})) == [0xEFDFCF]


async def test_a_template_is_run_with_its_inputs(engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "plain.json").write_text(json.dumps(picture(1)))
    (tmp_path / "plain.toml").write_text(TEMPLATE)
    async with converter(engine.url, workflows_dir=str(tmp_path)) as caller, Client(caller.url) as client:
        result = await client.run(Template("plain", {"color": 9}))
        with pytest.raises(errors.NotFound):
            await client.run(Template("nobody"))
        with pytest.raises(errors.InvalidRequest) as raised:
            await client.run(Template("plain", {"colour": 9}))
    assert colors(result) == [9]
    assert result.inputs == {"color": 9}
    assert raised.value.extensions["problems"]


# Refusals and faults ------------------------------------------------------------------------------------------------


async def test_who_finds_no_place_gets_one_later(engine: FakeEngine, naps: Naps) -> None:
    async with converter(engine.url, capacity=1) as caller, Client(caller.url, sleep=naps) as client:
        engine.hold()
        first = asyncio.create_task(client.run(picture(1)))
        await engine.until_held()

        async def make_room() -> None:
            engine.release()
            await first

        naps.then = make_room
        assert colors(await client.run(picture(2))) == [2]
        assert colors(await first) == [1]
    assert len(naps.seconds) == 1
    assert naps.seconds[0] >= 1.0


async def test_many_calls_to_one_small_replica_all_succeed_and_each_runs_once(engine: FakeEngine, naps: Naps) -> None:
    async def nap() -> None:
        await asyncio.sleep(0.02)

    naps.then = nap
    async with converter(engine.url, capacity=4) as caller, Client(caller.url, sleep=naps) as client:
        results = await asyncio.gather(*(client.run(picture(color)) for color in range(30)))
    assert [colors(result) for result in results] == [[color] for color in range(30)]
    assert orders(engine) == 30


async def test_a_workflow_that_the_engine_refuses_says_why(engine: FakeEngine, naps: Naps) -> None:
    async with converter(engine.url) as caller, Client(caller.url, sleep=naps) as client:
        with pytest.raises(errors.InvalidWorkflow) as raised:
            await client.run({"1": {"class_type": "SaveImge", "inputs": {}}})
        with pytest.raises(errors.InvalidRequest, match="/priority: must be"):
            await client.run(picture(1), priority=2**40)
    assert raised.value.extensions["node_errors"]["1"]["class_type"] == "SaveImge"
    assert naps.seconds == []


async def test_one_key_for_two_orders_is_refused(engine: FakeEngine, naps: Naps) -> None:
    async with converter(engine.url) as caller, Client(caller.url, sleep=naps) as client:
        first = await client.run(picture(1), idempotency_key="mine")
        again = await client.run(picture(1), idempotency_key="mine")
        with pytest.raises(errors.IdempotencyMismatch):
            await client.run(picture(2), idempotency_key="mine")
    assert again == first
    assert orders(engine) == 1
    assert naps.seconds == []


async def test_a_body_that_is_too_large_is_refused_and_not_sent_again(engine: FakeEngine, naps: Naps) -> None:
    async with converter(engine.url, max_body=2**16) as caller, Client(caller.url, sleep=naps) as client:
        for size in (2**17, 2**25):
            with pytest.raises(errors.TooLarge):
                await client.run(picture(1), files={"photo": bytes(size)})
    assert naps.seconds == []


async def test_an_engine_that_is_gone_is_waited_for(engine: FakeEngine, naps: Naps) -> None:
    async with converter(engine.url) as caller, Client(caller.url, sleep=naps) as client:
        await engine.crash()
        await caller.until(lambda: not caller.ready)

        async def come_back() -> None:
            if not engine.alive:
                await engine.restart()
            await caller.until_ready()

        naps.then = come_back
        assert colors(await client.run(picture(3))) == [3]
    assert naps.seconds


# Leaving, time, and connections ------------------------------------------------------------------------------------


async def test_who_cancels_its_call_cancels_its_job(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller, Client(caller.url) as client:
        engine.hold()
        call = asyncio.create_task(client.run(picture(1)))
        prompt_id = await engine.until_held()
        call.cancel()
        await asyncio.wait([call])
        await engine.until(lambda: prompt_id in engine.interrupts)
        await caller.until_empty()


async def test_time_that_is_over_ends_the_job(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller, Client(caller.url, timeout=0.5) as client:
        engine.hold()
        with pytest.raises(errors.DeadlineExceeded):
            await client.run(picture(1))
        await caller.until_empty()
    assert orders(engine) <= 1


async def test_a_connection_that_is_cut_in_the_middle_is_nothing_to_the_caller(engine: FakeEngine, naps: Naps) -> None:
    async with converter(engine.url) as caller, Relay(caller.url) as relay, Client(relay.url, sleep=naps) as client:
        engine.hold()
        async with client.stream(picture(5)) as events:
            heard = [await anext(events)]
            await engine.until_held()
            relay.cut()
            engine.release()
            heard += [event async for event in events]
        assert isinstance(heard[-1], Result)
        assert colors(heard[-1]) == [5]
        assert [isinstance(event, Result) for event in heard].count(True) == 1
        values = [event.value for event in heard if isinstance(event, Progress)]
        assert values == sorted(values)
        await caller.until_empty()
    assert naps.seconds


async def test_an_answer_that_was_lost_is_fetched_and_not_made_again(engine: FakeEngine, naps: Naps) -> None:
    """The job ends while its caller is cut off, and another one holds on to it."""
    async with converter(engine.url) as caller, Relay(caller.url) as relay, Client(relay.url, sleep=naps) as client:
        engine.hold()
        async with Client(caller.url) as other, client.stream(picture(5), idempotency_key="ours") as events:
            await anext(events)
            holder = asyncio.create_task(other.run(picture(5), idempotency_key="ours"))
            await engine.until_held()
            await caller.until(lambda: interest(caller) == 2)
            relay.cut()
            engine.release()
            result = await events.result()
            assert await holder == result
    assert orders(engine) == 1


def interest(caller: Caller) -> int:
    """Callers who wait for the one job that goes on."""
    [run] = caller.replica.jobs._live.values()
    return run._interest


async def test_a_key_opens_the_door_and_a_wrong_one_is_told_once(engine: FakeEngine, naps: Naps) -> None:
    async with converter(engine.url, api_keys="alice:wonderland-secret") as caller:
        async with Client(caller.url, api_key="wonderland-secret") as client:
            assert colors(await client.run(picture(7))) == [7]
        for key in ("looking-glass", None):
            async with Client(caller.url, api_key=key, sleep=naps) as client:
                with pytest.raises(errors.Unauthorized):
                    await client.run(picture(8))
    assert (naps.seconds, orders(engine)) == ([], 1)
