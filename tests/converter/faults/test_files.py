"""Files that are gone, late or broken are read or made again, or the answer visibly breaks off; it is never wrong."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from tests.converter.faults.graphs import LARGE, picture
from tests.converter.faults.replica import converter
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of

SHAPES = ["application/json", "image/png", "text/event-stream"]


def saved(engine: FakeEngine) -> list[Path]:
    return sorted(path for path in (engine.folders.root / "output").rglob("*") if path.is_file())


async def test_a_cached_answer_whose_file_is_gone_is_run_again_under_a_fresh_prefix(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        first = await caller.run(picture(0x123456, prefix="album/page"))
        [path] = saved(engine)
        path.unlink()
        again = await caller.run(picture(0x123456, prefix="album/page"))
        assert first.colors == again.colors == [0x123456]
        [fresh] = saved(engine)
        assert fresh.parent.parent == path.parent, "within the folder that the caller named"
        assert fresh.name.startswith("page")
        assert len(engine.executed_prompts) == 4


async def test_a_file_that_is_missing_once_costs_one_more_run(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.faults.view_missing = 1
        assert (await caller.run(picture(0x123456))).colors == [0x123456]


async def test_one_more_run_takes_no_second_place_among_the_deliveries(engine: FakeEngine) -> None:
    async with converter(engine.url, deliveries=1) as caller:
        engine.faults.view_missing = 1
        assert (await caller.run(picture(0x123456), timeout=20)).colors == [0x123456]


async def test_an_engine_that_never_has_its_files_has_failed(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.faults.view_missing = 100
        reply = await caller.run(picture(0x123456))
        assert (reply.status, reply.code) == (502, "engine_failed")
        assert engine.faults.view_missing == 98, "the fresh run is the last"


@pytest.mark.parametrize("fault", ["view_wrong_length", "view_truncated"])
async def test_a_small_file_that_breaks_off_is_read_again(engine: FakeEngine, fault: str) -> None:
    async with converter(engine.url) as caller:
        for shape in SHAPES:
            setattr(engine.faults, fault, 1)
            reply = await caller.run(picture(0x123456), {"Accept": shape})
            assert reply.status == 200
            if shape == "image/png":
                assert color_of(reply.body) == 0x123456
        assert (await caller.run(picture(0x123456))).colors == [0x123456]


async def test_a_small_file_that_always_breaks_off_is_a_failure_of_the_engine(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.faults.view_truncated = 100
        reply = await caller.run(picture(0x123456))
        assert (reply.status, reply.code) == (502, "engine_failed")


@pytest.mark.parametrize("fault", ["view_wrong_length", "view_truncated"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_large_file_that_breaks_off_aborts_the_answer(engine: FakeEngine, fault: str, shape: str) -> None:
    """Its beginning is out already: nobody can take what came for the whole."""
    async with converter(engine.url) as caller:
        setattr(engine.faults, fault, 1)
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError)):
            await caller.run(picture(0x123456), {"Accept": shape}, extra_data=LARGE)
        await caller.until_empty()
        reply = await caller.run(picture(0x123456), {"Accept": "image/png"}, extra_data=LARGE)
        assert color_of(reply.body) == 0x123456
        assert len(reply.body) > 600_000


async def test_a_large_file_that_is_converted_is_read_again_when_it_breaks_off(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.faults.view_truncated = 1
        reply = await caller.run(picture(0xFF0000), {"Accept": "image/webp"}, extra_data=LARGE)
        assert reply.status == 200
        assert reply.headers["Content-Type"] == "image/webp"


async def test_slow_files_hold_up_nobody_else(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=8) as caller:
        engine.faults.view_slow = 0.3
        replies = await asyncio.gather(*(caller.run(picture(color), extra_data=LARGE) for color in range(1, 9)))
        assert [reply.colors for reply in replies] == [[color] for color in range(1, 9)]
        assert max(reply.document["timings"]["executing"] for reply in replies) < 2


async def test_answers_that_are_being_sent_have_a_bound_of_their_own(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=8, deliveries=1) as caller:
        replies = await asyncio.gather(*(caller.run(picture(color), extra_data=LARGE) for color in range(1, 9)))
        assert [reply.colors for reply in replies] == [[color] for color in range(1, 9)]


async def test_a_reader_that_leaves_midway_gives_its_delivery_back(engine: FakeEngine) -> None:
    async with converter(engine.url, deliveries=1) as caller:
        await caller.run(picture(1))
        [path] = saved(engine)
        with path.open("ab") as file:
            file.truncate(30_000_000)  # the cached answer names a file that no socket's buffers hold
        for accept in SHAPES:
            body, headers = {"workflow": picture(1)}, {"Accept": accept}
            async with caller.session.post(f"{caller.url}/v1/run", json=body, headers=headers) as response:
                assert response.status == 200
                await response.content.readany()
                response.close()
            await caller.until_empty()
        reply = await caller.run(picture(2), {"Accept": "image/png"}, extra_data=LARGE)
        assert color_of(reply.body) == 2


@pytest.mark.parametrize("large", [False, True])
async def test_outputs_are_read_from_a_shared_folder(engine: FakeEngine, large: bool) -> None:
    async with converter(engine.url, output_dir=str(engine.folders.root / "output"), keep_outputs=True) as caller:
        engine.faults.view_missing = 100
        reply = await caller.run(picture(0x123456), {"Accept": "image/png"}, extra_data=LARGE if large else {})
        assert color_of(reply.body) == 0x123456
        for path in saved(engine):
            path.unlink()
        again = await caller.run(picture(0x123456), {"Accept": "image/png"}, extra_data=LARGE if large else {})
        assert color_of(again.body) == 0x123456
        assert len(engine.executed_prompts) == 4
