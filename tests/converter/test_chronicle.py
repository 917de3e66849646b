"""What watchers are told comes to whoever watches, in order, and ends once."""

import asyncio

import pytest

from converter.chronicle import Chronicle
from converter.core.deeds import Succeeded
from converter.core.events import Picture
from converter.errors import Canceled


@pytest.fixture
async def chronicle() -> Chronicle:
    return Chronicle({"1": {"class_type": "EmptyImage", "inputs": {}}})


async def test_growth_wakes_every_watcher(chronicle: Chronicle) -> None:
    with chronicle.watched(), chronicle.watched():
        waiting = [asyncio.create_task(chronicle.growth(60.0)) for _ in range(3)]
        await asyncio.sleep(0)
        chronicle.status({"state": "running"})
        async with asyncio.timeout(10):
            await asyncio.gather(*waiting)
    assert [entry.event for entry in chronicle.since(0)] == ["status"]
    assert not chronicle.is_watched


async def test_growth_gives_up_in_time(chronicle: Chronicle) -> None:
    async with asyncio.timeout(10):
        await chronicle.growth(0.01)
    assert chronicle.since(0) == []


async def test_pictures_that_nobody_watches_are_not_encoded(chronicle: Chronicle) -> None:
    picture = Picture("p", "1", "image/jpeg", b"data")
    chronicle.preview(picture)
    assert chronicle.since(0) == []
    with chronicle.watched():
        chronicle.preview(picture)
    assert [entry.data["data"] for entry in chronicle.since(0)] == ["ZGF0YQ=="]


async def test_nothing_follows_the_end(chronicle: Chronicle) -> None:
    chronicle.status({"state": "running"})
    chronicle.output({"name": "a"})
    chronicle.end(Canceled("enough"))
    chronicle.end(Succeeded())
    chronicle.status({"state": "late"})
    chronicle.output({"name": "late"})
    assert [entry.event for entry in chronicle.since(0)] == ["output", "error"]
    chronicle.strip()
    assert [entry.event for entry in chronicle.since(0)] == ["output", "error"]
