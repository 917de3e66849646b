"""`Server-Timing` on every answer: what the job took where the request has waited for it, and the whole always."""

import pytest

from tests.converter.core.test_timing import parse
from tests.converter.faults.graphs import passed_through, picture
from tests.converter.faults.replica import Caller, Reply, converter
from tests.fakes.engine import FakeEngine

PARTS = {"waiting", "staging", "queued", "executing", "collecting", "overhead", "total"}


def timings(reply: Reply) -> dict[str, float]:
    return parse(reply.headers["Server-Timing"])


async def whole(caller: Caller, accept: str) -> Reply:
    return await caller.run(picture(1), {"Accept": accept})


@pytest.mark.parametrize("accept", ["application/json", "image/png"])
async def test_an_answer_says_what_its_job_took(engine: FakeEngine, accept: str) -> None:
    async with converter(engine.url) as caller:
        shown = timings(await whole(caller, accept))
        assert shown.keys() == PARTS
        foreign = sum(shown[part] for part in ("waiting", "staging", "queued", "executing"))
        assert shown["overhead"] == pytest.approx(shown["total"] - foreign, abs=0.5)
        assert 0 < shown["collecting"] <= shown["overhead"] + 0.1


async def test_it_is_what_the_document_says_in_seconds(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        reply = await whole(caller, "application/json")
        shown, told = timings(reply), reply.document["timings"]
        for part in PARTS - {"overhead", "total"}:
            assert shown[part] == pytest.approx(1000 * told[part], abs=0.2)


async def test_so_does_a_fault_of_a_job(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        reply = await caller.run(passed_through("TestRaise", kind="ValueError", message="no"))
        assert reply.status == 422
        assert timings(reply).keys() == PARTS


async def test_what_has_waited_for_no_job_has_a_total(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        replies = [
            await caller.get("/livez"),
            await caller.get("/nowhere"),
            await caller.run({}),
            await caller.run(picture(1), {"Prefer": "respond-async"}, id="mine"),
            await caller.get("/v1/workflows"),
        ]
        await caller.until_job("mine", "succeeded")
        replies.append(await caller.get("/v1/jobs/mine"))
        assert [set(timings(reply)) for reply in replies] == [{"total"}] * len(replies)


async def test_a_replay_does_not_say_what_it_did_not_take(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        key = {"Idempotency-Key": "once"}
        first = await caller.run(picture(1), key)
        again = await caller.run(picture(1), key)
        assert (set(timings(first)), set(timings(again))) == (PARTS, {"total"})
