"""How long a caller waits and what comes of it: `Prefer`, jobs that go on alone, and where their results are."""

import base64

import pytest

from tests.converter.api.sources import Source, content
from tests.converter.faults.graphs import picture
from tests.converter.faults.replica import Caller, converter
from tests.fakes.engine import FakeEngine

MEGABYTE = 2**20


async def test_an_order_may_go_on_alone(engine: FakeEngine) -> None:
    async with converter(engine.url, public_url="https://pictures.example/replica-1/") as caller:
        engine.hold()
        reply = await caller.run(picture(5), {"Prefer": "respond-async"})
        assert reply.status == 202
        assert reply.headers["Preference-Applied"] == "respond-async"
        job_id = reply.document["id"]
        assert reply.headers["Location"] == f"https://pictures.example/replica-1/v1/jobs/{job_id}"
        assert (await caller.job(job_id))["status"] in ("waiting", "queued", "running")
        engine.release()
        document = await caller.until_job(job_id, "succeeded")
        assert len(document["outputs"]) == 1
        raw = await caller.get(f"/v1/jobs/{job_id}", Accept="image/png")
        assert raw.body == base64.b64decode(document["outputs"][0]["data"])


async def test_a_wait_that_is_too_short_ends_in_a_place_to_look(engine: FakeEngine, caller: Caller) -> None:
    engine.hold()
    reply = await caller.run(picture(5), {"Prefer": "wait=0"}, id="mine")
    assert (reply.status, reply.headers["Location"]) == (202, "/v1/jobs/mine")
    assert reply.headers["Preference-Applied"] == "wait=0"
    engine.release()
    await caller.until_job("mine", "succeeded")


@pytest.mark.parametrize("prefer", ["wait=60", "respond-async, wait=60", "Wait=60; x=y, handling=lenient, foo"])
async def test_what_is_done_within_the_wait_is_answered(caller: Caller, prefer: str) -> None:
    reply = await caller.run(picture(5), {"Prefer": prefer})
    assert reply.colors == [5]


async def test_both_together_wait_first_and_then_go_on_alone(engine: FakeEngine, caller: Caller) -> None:
    """RFC 7240 section 4.3. Leaving meanwhile does not end a job that was to go on alone."""
    engine.hold()
    reply = await caller.run(picture(5), {"Prefer": "respond-async, wait=0"})
    assert (reply.status, reply.headers["Preference-Applied"]) == (202, "respond-async, wait=0")
    leaving = caller.start(picture(6), {"Prefer": "respond-async, wait=60"}, id="alone")
    await caller.until(lambda: caller.tickets == 2)
    leaving.cancel()
    engine.release()
    assert (await caller.until_job("alone", "succeeded"))["id"] == "alone"


@pytest.mark.parametrize("accept", ["application/json", "image/png", "text/event-stream"])
async def test_a_large_result_of_a_kept_job_can_be_had_by_all_ways(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    """More than is kept in memory: the file is opened anew."""
    source = Source(size=3 * MEGABYTE)
    monkeypatch.setattr("converter.fitting.EngineFiles", lambda client: source)
    async with converter(engine.url, keep_bytes=MEGABYTE) as caller:
        headers = {"Accept": accept, "Prefer": "respond-async, wait=60"}
        reply = await caller.run(picture(1), headers, id="large")
        assert reply.status == 200
        assert len(reply.body) >= source.size
        if accept == "image/png":
            assert reply.body == content(source.size)
        again = await caller.get("/v1/jobs/large", Accept="image/png")
        assert (again.status, again.body) == (200, content(source.size))
        source.gone = 1
        gone = await caller.get("/v1/jobs/large", Accept="image/png")
        assert (gone.status, gone.code) == (410, "expired")


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "image/png;q=0", "text/plain"])
async def test_what_nobody_makes_is_refused_before_anything_is_done(caller: Caller, accept: str) -> None:
    reply = await caller.run(picture(1), {"Accept": accept})
    assert (reply.status, reply.code) == (406, "not_acceptable")
    assert not caller.tickets
