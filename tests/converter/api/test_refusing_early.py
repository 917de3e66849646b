"""What shows before anything is done is refused before, and says what helps; what shows later says so then."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.converter.api.exchange import PATIENCE, check_refusal, exchange, field, multipart, request
from tests.converter.faults.graphs import loaded, passed_through, picture, two_pictures
from tests.converter.faults.phases import data_uri
from tests.converter.faults.replica import Caller, converter
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of

ASYNC = {"Prefer": "respond-async"}


async def test_a_part_that_nothing_refers_to_is_named(caller: Caller, engine: FakeEngine) -> None:
    workflow = loaded("")
    workflow["1"]["inputs"]["image"] = {"part": "photo"}
    png = (await caller.run(picture(0xFF0000), {"Accept": "image/png"})).body
    document = (field("request"), json.dumps({"workflow": workflow}).encode())
    kind = "multipart/form-data; boundary=b"
    body = multipart(document, (field("photo"), png))
    assert (await exchange(caller.url, request(body=body, Content_Type=kind))).status == 200
    posted = len(engine.posted_prompts)
    body = multipart(document, (field("photo"), png), (field("foto"), png), (field("x"), b""))
    answer = await exchange(caller.url, request(body=body, Content_Type=kind))
    check_refusal(answer, 400)
    assert [problem["detail"] for problem in answer.document["problems"]] == [
        'no input refers to the part "foto"',
        'no input refers to the part "x"',
    ]
    assert len(engine.posted_prompts) == posted


async def test_a_body_of_another_type_is_told_its_type(caller: Caller) -> None:
    answer = await exchange(caller.url, request(body=b"{}", Content_Type="application/x-www-form-urlencoded"))
    check_refusal(answer, 415)
    assert answer.document["detail"].endswith(", not application/x-www-form-urlencoded")


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"id": "-"}, "/id", "must match ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
    ({"id": 1}, "/id", "must be text"),
    ({"timeout": 0}, "/timeout", "must be more than 0"),
    ({"timeout": "1"}, "/timeout", "must be a number"),
    ({"priority": 1.5}, "/priority", "must be a whole number"),
    ({"priority": "1"}, "/priority", "must be a whole number"),
    ({"priority": -(2**31) - 1}, "/priority", "must be at least -2147483648"),
    ({"priority": 2**31}, "/priority", "must be less than 2147483648"),
    ({"outputs": []}, "/outputs", "must be an object"),
    ({"outputs": {"nodes": "2"}}, "/outputs/nodes", "must be a list"),
    ({"outputs": {"nodes": []}}, "/outputs/nodes", "must have 1 or more entries"),
    ({"outputs": {"nodes": ["2"] * 1001}}, "/outputs/nodes", "must have 1000 entries or fewer"),
    ({"outputs": {"quality": 0}}, "/outputs/quality", "must be at least 1"),
    ({"outputs": {"quality": 101}}, "/outputs/quality", "must be at most 100"),
    ({"outputs": {"format": "gif"}}, "/outputs/format", "must be 'png', 'jpeg', 'webp' or 'avif'"),
    ({"outputs": {"delivery": {"storage": 1}}}, "/outputs/delivery/storage", "must be text"),
    ({"outputs": {"metadata": "drop"}}, "/outputs/metadata", "must be 'keep' or 'strip'"),
    ({"extra_data": None}, "/extra_data", "must be an object"),
    ({"workflow": []}, "/workflow", "must be an object"),
    ({"colour": 1}, "/colour", "no such field"),
]


@pytest.mark.parametrize(("fields", "pointer", "detail"), WRONG)
async def test_what_is_wrong_is_said_in_plain_words(
    caller: Caller, fields: dict[str, Any], pointer: str, detail: str
) -> None:
    reply = await caller.post("/v1/run", {"workflow": picture(1), **fields})
    assert (reply.status, reply.document["problems"]) == (400, [{"pointer": pointer, "detail": detail}])


# Accept ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", ["image/png", "image/png, image/jpeg;q=0.5, image/webp;q=0"])
async def test_a_format_that_is_not_accepted(caller: Caller, engine: FakeEngine, accept: str) -> None:
    posted = len(engine.posted_prompts)
    reply = await caller.run(picture(1), {"Accept": accept}, outputs={"format": "webp"})
    assert (reply.status, reply.code) == (406, "not_acceptable")
    assert "outputs.format is webp" in reply.document["detail"]
    assert len(engine.posted_prompts) == posted
    assert not caller.tickets


@pytest.mark.parametrize(
    ("accept", "status"), [("image/webp", 200), ("image/*", 200), ("image/png, application/octet-stream", 200)]
)
async def test_a_format_that_may_be_accepted(caller: Caller, accept: str, status: int) -> None:
    assert (await caller.run(picture(1), {"Accept": accept}, outputs={"format": "webp"})).status == status


async def test_how_to_choose_is_said_where_one_can_choose(caller: Caller) -> None:
    before = await caller.run(two_pictures(1, 2), {"Accept": "image/png"})
    assert "name one node in outputs.nodes" in before.document["detail"]
    batch = await caller.run(picture(1, batch=2), {"Accept": "image/png"}, id="batch")
    assert batch.headers["Location"] == "/v1/jobs/batch"
    for reply in (batch, await caller.get("/v1/jobs/batch", Accept="image/png")):
        assert (reply.status, reply.code) == (406, "not_acceptable")
        assert "accept multipart/mixed, application/zip or application/json" in reply.document["detail"]
        assert "outputs.nodes" not in reply.document["detail"]
    parts = await caller.get("/v1/jobs/batch", Accept="image/png, multipart/mixed")
    assert parts.status == 200


# Jobs --------------------------------------------------------------------------------------------------------------


async def test_the_picture_of_a_job_is_converted_as_that_of_a_run(caller: Caller) -> None:
    await caller.run(picture(0xFF0000), ASYNC, id="made")
    await caller.until_job("made", "succeeded")
    for accept in ("image/jpeg", "image/webp", "image/png", "image/*"):
        reply = await caller.get("/v1/jobs/made", Accept=accept)
        kind = "image/png" if accept == "image/*" else accept
        assert (reply.status, reply.headers["Content-Type"]) == (200, kind)
        assert kind != "image/png" or color_of(reply.body) == 0xFF0000


async def test_bytes_of_a_job_that_has_not_succeeded(caller: Caller, engine: FakeEngine) -> None:
    engine.hold()
    await caller.run(picture(1), ASYNC, id="slow")
    reply = await caller.get("/v1/jobs/slow", Accept="image/png")
    assert (reply.status, reply.code, reply.document["retry"]) == (406, "not_acceptable", "later")
    assert "not finished yet" in reply.document["detail"]
    assert re.fullmatch("[0-9]+", reply.headers["Retry-After"])
    assert "x-should-retry" not in reply.headers
    assert (await caller.get("/v1/jobs/slow", Accept="application/json, image/png;q=0.5")).status == 200
    await caller.cancel("slow")
    engine.release()
    canceled = await caller.get("/v1/jobs/slow", Accept="image/png")
    assert (canceled.status, canceled.code) == (409, "canceled")
    await caller.run(passed_through("TestRaise", kind="ValueError", message="no"), ASYNC, id="broken")
    await caller.until_job("broken", "failed")
    failed = await caller.get("/v1/jobs/broken", Accept="image/png")
    assert (failed.status, failed.code) == (422, "execution_failed")


# Times -------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def measured(engine: FakeEngine) -> AsyncIterator[Caller]:
    """A converter, of one prompt at a time, that has measured how short prompts are."""
    async with converter(engine.url, engine_depth=1) as caller:
        for color in (1, 2):
            await caller.run(picture(color))
        await caller.until(lambda: caller.replica.gate.service is not None)
        yield caller


async def test_no_estimate_is_better_than_a_wrong_one(measured: Caller, engine: FakeEngine) -> None:
    engine.hold()
    for name in ("running", "waiting"):
        await measured.run(picture(1), ASYNC, id=name)
    await engine.until_held()
    service = measured.replica.gate.service
    assert service is not None
    assert service < 1
    for name in ("running", "waiting"):
        async with asyncio.timeout(PATIENCE):
            while (await measured.job(name))["queue"]["estimated_seconds"] is not None:
                continue
    engine.release()


async def test_the_timings_of_one_that_was_too_late_are_complete(caller: Caller, engine: FakeEngine) -> None:
    engine.hold()
    reply = await caller.run(loaded(data_uri(0xFF0000)), timeout=0.3)
    assert reply.status == 504
    timings = reply.document["timings"]
    total = timings.pop("total")
    assert total >= 0.3
    assert total >= sum(timings.values()) - 0.01
    engine.release()


async def test_what_was_measured_outlives_the_engine(measured: Caller, engine: FakeEngine) -> None:
    service = measured.replica.gate.service
    await engine.crash()
    await measured.until(lambda: measured.state == "FAILED")
    await engine.restart()
    await measured.until_ready()
    assert measured.replica.gate.service == service
    await measured.run(picture(3))
    assert measured.replica.gate.service == service, "the first prompt after a start pays for loading"
