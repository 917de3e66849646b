"""Whatever an engine says on its websocket while a job runs: the answer is right, and nothing of it is a mistake."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from tenacity import wait_none

from converter.core import evidence
from converter.link import session
from tests.converter.faults.graphs import passed_through
from tests.converter.faults.junk import MESSAGES, PICTURES, PROMPT, TOO_MUCH, VIOLATIONS
from tests.converter.faults.replica import Caller, colors, converter
from tests.fakes.engine import FakeEngine
from tests.fakes.sockets import Socket

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as engine:
        yield engine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def caller(engine: FakeEngine) -> AsyncIterator[Caller]:
    """One converter for all of them, which waits a tenth of the time where it has to, and never for a websocket."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "wait_random_exponential", lambda **bounds: wait_none())
        for name in ("SILENCE", "ABSENCE", "LATENESS", "DELIVERY", "LAST_RETRY"):
            patch.setattr(evidence, name, getattr(evidence, name) / 10)
        async with converter(engine.url) as caller:
            yield caller


async def check(engine: FakeEngine, caller: Caller, frames: list[bytes]) -> Socket:
    """A job that is watched, and the frames on its websocket while its sampler runs; the websocket."""
    await caller.until_ready()
    await caller.until(lambda: caller.hears and len(engine.sockets.open) == 1)
    posted = len(engine.posted_prompts)
    color = posted & 0xFFFFFF
    engine.hold("TestPreview")
    async with caller.events(passed_through("TestPreview", color, steps=2)) as stream:
        prompt_id = await engine.until_held()
        [socket] = engine.sockets.open
        for frame in frames:
            socket.say(frame.replace(PROMPT.encode(), prompt_id.encode()))
        engine.release()
        last = await stream.last()
    assert last.name == "result", last
    assert colors(last.data) == [color]
    assert len(engine.posted_prompts) == posted + 1, "it ran once"
    for event in stream.heard:
        json.dumps(event.data, allow_nan=False)
    values = [data["value"] for data in stream.all("progress")]
    assert values == sorted(values)
    assert all(0 <= value <= 1 for value in values)
    return socket


@settings(max_examples=60, derandomize=True)
@given(st.lists(MESSAGES | PICTURES, min_size=1, max_size=12))
async def test_messages_that_make_no_sense_change_nothing(
    engine: FakeEngine, caller: Caller, frames: list[bytes]
) -> None:
    assert await check(engine, caller, frames) in engine.sockets.open


@settings(max_examples=40, derandomize=True)
@given(st.lists(MESSAGES | PICTURES, max_size=2), VIOLATIONS, st.lists(MESSAGES, max_size=2))
async def test_a_socket_that_breaks_the_protocol_costs_a_look(
    engine: FakeEngine, caller: Caller, before: list[bytes], violation: bytes, after: list[bytes]
) -> None:
    await check(engine, caller, [*before, violation, *after])


@pytest.mark.parametrize("name", TOO_MUCH)
async def test_messages_beyond_all_measure_change_nothing(engine: FakeEngine, caller: Caller, name: str) -> None:
    assert await check(engine, caller, [TOO_MUCH[name]]) in engine.sockets.open
