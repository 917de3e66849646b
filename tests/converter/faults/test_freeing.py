"""Jobs that have ended are freed as soon as nobody knows them, not when the collector of cycles comes by at last."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from converter.core import archive
from converter.runner import Run
from tests.converter.faults.graphs import passed_through, picture, text
from tests.converter.faults.replica import Caller, converter, give_up
from tests.fakes.engine import FakeEngine

JOBS = 8


@pytest.fixture
def uncollected(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No collector, and nothing that remembers jobs whose results were delivered."""
    monkeypatch.setattr(archive, "FLEETING", 0)
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def count_runs() -> int:
    return sum(type(found) is Run for found in gc.get_objects())


REQUESTS: dict[str, tuple[dict[str, Any], dict[str, str], int]] = {
    "JSON": ({"workflow": picture(1)}, {}, 200),
    "text": ({"workflow": text("words")}, {}, 200),
    "bytes": ({"workflow": picture(1)}, {"Accept": "image/png"}, 200),
    "events": ({"workflow": passed_through("TestPreview", steps=2)}, {"Accept": "text/event-stream"}, 200),
    "refused": ({"workflow": {"1": {"class_type": "NoSuchNode", "inputs": {}}}}, {}, 422),
    "failed": ({"workflow": passed_through("TestRaise", kind="ValueError")}, {}, 422),
    "without time": ({"workflow": passed_through("TestSleep", seconds=60.0), "timeout": 0.05}, {}, 504),
}


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("kind", REQUESTS)
async def test_nothing_of_a_job_outlives_it(engine: FakeEngine, kind: str) -> None:
    before = count_runs()
    body, headers, status = REQUESTS[kind]
    async with converter(engine.url) as caller:
        for _ in range(JOBS):
            reply = await caller.ask("POST", "/v1/run", headers, json=body)
            assert reply.status == status
        await caller.until_empty()
        assert count_runs() <= before + 1, "an idle connection may hold its last request"


@pytest.mark.usefixtures("uncollected")
async def test_nothing_of_a_job_outlives_the_caller_who_left(engine: FakeEngine) -> None:
    before = count_runs()
    async with converter(engine.url) as caller:
        for color in range(JOBS):
            await leave(engine, caller, color)
        assert count_runs() <= before + 1


async def leave(engine: FakeEngine, caller: Caller, color: int) -> None:
    engine.hold()
    running = caller.start(picture(color))
    await engine.until_held()
    await give_up(running)
    await caller.until_empty()
    engine.release()
