"""The log of a replica at work: what becomes of each job, who asked, how long it took, and no secret of anybody's."""

import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiohttp import FormData

from converter.telemetry import configure_logging
from tests.converter.api.exchange import exchange
from tests.converter.faults.graphs import loaded, passed_through, picture
from tests.converter.faults.phases import data_uri
from tests.converter.faults.replica import converter
from tests.fakes.engine import FakeEngine

SECRET = "hunter2-9f8e7d"


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as engine:
        yield engine


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Where all loggers write from level debug on, as JSON."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = list(root.handlers), root.level
    configure_logging("debug", "json", stream)
    yield stream
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("asyncio", "PIL", "websockets"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def lines(log: io.StringIO, **members: Any) -> list[dict[str, Any]]:
    """The lines that have these members, in order."""
    parsed = [json.loads(line) for line in log.getvalue().splitlines()]
    return [line for line in parsed if members.items() <= line.items()]


async def test_each_transition_of_a_job_is_a_line_that_says_whose_it_is(engine: FakeEngine, log: io.StringIO) -> None:
    async with converter(engine.url) as caller:
        await caller.run(picture(1), {"X-Request-Id": "asked-1"}, id="mine")
        await caller.until_empty()
    told = lines(log, job="mine", request="asked-1", logger="converter.trail")
    moves = [(line["was"], line["event"]) for line in told if "was" in line]
    assert moves == [
        ("waiting", "job submitting"),
        ("submitting", "job queued"),
        ("queued", "job running"),
        ("running", "job collecting"),
        ("collecting", "job delivering"),
        ("delivering", "job done"),
    ] or moves == [  # where the engine has begun before it answers
        ("waiting", "job submitting"),
        ("submitting", "job running"),
        ("running", "job collecting"),
        ("collecting", "job delivering"),
        ("delivering", "job done"),
    ]
    assert all(line["level"] == "debug" and line["seconds"] >= 0 for line in told if "was" in line)
    [ended] = [line for line in told if line["event"] == "job ended"]
    assert (ended["level"], ended["outcome"]) == ("info", "succeeded")
    parts = sum(ended[part] for part in ("waiting", "staging", "queued", "executing", "overhead"))
    assert parts == pytest.approx(ended["total"], abs=1e-3)


async def test_the_access_log_says_what_took_the_time(engine: FakeEngine, log: io.StringIO) -> None:
    async with converter(engine.url) as caller:
        reply = await caller.run(picture(1), id="mine")
        await caller.get("/v1/jobs/nobody?token=x")
        await caller.get("/readyz")
    [line] = lines(log, event="request", job="mine")
    assert (line["method"], line["path"], line["status"], line["level"]) == ("POST", "/v1/run", 200, "info")
    assert line["request"] == reply.headers["X-Request-Id"]
    assert line["seconds"] >= line["overhead"] + line["executing"] - 1e-3
    [line] = lines(log, event="request", path="/v1/jobs/nobody")
    assert (line["status"], "overhead" in line) == (404, False)
    assert {line["level"] for line in lines(log, path="/readyz")} == {"debug"}


async def test_a_failure_of_ours_is_explained_and_a_callers_is_not_quoted(engine: FakeEngine, log: io.StringIO) -> None:
    async with converter(engine.url, timeout=0.3) as caller:
        await caller.run(passed_through("TestRaise", kind="ValueError", message="no such luck"), id="theirs")
        engine.hold()
        await caller.run(picture(2), id="ours")
        engine.release()
        await caller.until_empty()
    [theirs] = lines(log, event="job ended", job="theirs")
    assert (theirs["outcome"], "detail" in theirs) == ("execution_failed", False)
    [ours] = lines(log, event="job ended", job="ours")
    assert ours["outcome"] == "deadline_exceeded"
    assert "the timeout passed while the job was running" in ours["detail"]


async def test_a_line_says_whose_key_it_was_and_never_the_key(engine: FakeEngine, log: io.StringIO) -> None:
    async with converter(engine.url, api_keys=f"painter:{SECRET}") as caller:
        reply = await caller.run(picture(1), {"Authorization": f"Bearer {SECRET}"}, id="mine")
        assert reply.status == 200
        assert (await caller.run(picture(1), {"Authorization": f"Bearer {SECRET}x"})).status == 401
        assert (await caller.get(f"/v1/workflows?key={SECRET}", Authorization=SECRET)).status == 401
        await caller.until_empty()
    told = lines(log, job="mine")
    assert {line["logger"] for line in told} >= {"converter.trail", "converter.api.server"}
    assert {line["key"] for line in told} == {"painter"}
    assert ["key" in line for line in lines(log, event="request", status=401)] == [False, False]
    assert SECRET not in log.getvalue()


# Secrets -----------------------------------------------------------------------------------------------------------

HEADERS = {
    "Authorization": f"Bearer {SECRET}",
    "Proxy-Authorization": f"Basic {SECRET}",
    "Cookie": f"session={SECRET}",
    "X-Api-Key": SECRET,
    "Idempotency-Key": f'"{SECRET}"',
    "Referer": f"https://example.com/?token={SECRET}",
}
SIGNED = f"https://user:{SECRET}@bucket.example.com/picture.png?X-Amz-Signature={SECRET}"
EXTRA = {"api_key_comfy_org": SECRET, "nested": {"token": SECRET}}

BODIES: dict[str, Any] = {
    "a run": {"workflow": picture(1, prefix=SECRET), "extra_data": EXTRA},
    "a node that quotes": {"workflow": passed_through("TestRaise", kind="ValueError", message=f"bad key {SECRET}")},
    "a node that quotes a URL": {"workflow": passed_through("TestRaise", kind="OSError", message=SIGNED)},
    "a class that there is not": {"workflow": {"1": {"class_type": SECRET, "inputs": {}}}},
    "a link that leads nowhere": {"workflow": {"1": {"class_type": "SaveImage", "inputs": {"images": [SECRET, 0]}}}},
    "a signed URL as an input": {"workflow": loaded(SIGNED)},
    "data that are none": {"workflow": loaded(f"data:image/png;base64,{SECRET}")},
    "a part that is not there": {"workflow": loaded({"part": SECRET})},  # type: ignore[arg-type]
    "a field that there is not": {"workflow": picture(1), SECRET: 1},
    "a value of a wrong kind": {"workflow": SECRET, "timeout": SECRET, "outputs": {"nodes": [SECRET]}},
    "a node that there is not": {"workflow": picture(1), "outputs": {"nodes": [SECRET]}},
}


async def test_nothing_secret_is_logged_wherever_it_is(engine: FakeEngine, log: io.StringIO) -> None:
    async with converter(engine.url, capacity=4) as caller:
        url = f"/v1/run?api_key={SECRET}"
        answers = [(await caller.ask("POST", url, HEADERS, json=body)).status for body in BODIES.values()]
        assert 200 in answers
        assert {400, 422} <= set(answers)
        broken = [f'{{"workflow": "{SECRET}"'.encode(), SECRET.encode()]
        for data in broken:
            await caller.ask("POST", url, HEADERS | {"Content-Type": "application/json"}, data=data)
        form = FormData()
        form.add_field("request", json.dumps({"workflow": picture(2)}), content_type="application/json")
        form.add_field(SECRET, SECRET.encode(), filename=SECRET, content_type="image/png")
        await caller.ask("POST", url, data=form)
        await caller.post(f"/v1/workflows/txt2img?token={SECRET}", {"inputs": {"prompt": SECRET, SECRET: SECRET}})
        await caller.get(f"/v1/jobs/nobody?signature={SECRET}", **{"Last-Event-ID": SECRET, "X-Request-Id": "a b"})
        # What is no HTTP, and quoted by the library that says so.
        for head in (f"Authorization: Bearer {SECRET}\x00", f"Authorization {SECRET}", f"X-{SECRET}\x01: 1"):
            wire = f"GET /livez HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n"
            assert (await exchange(caller.url, wire.encode("latin-1"))).status == 400
        # Trouble with the engine over what was sent.
        for fault in ("/prompt", "/view", "/upload"):
            engine.faults.broken_path = fault
            await caller.run(picture(3, prefix=SECRET) if fault != "/upload" else loaded(data_uri(9)), timeout=5)
        engine.faults.broken_path = ""
        engine.faults.view_truncated = 100
        await caller.run(picture(4, prefix=SECRET), extra_data=EXTRA)
        engine.faults.view_truncated = 0
        await caller.until_empty()
    assert len(lines(log, event="request")) > len(BODIES) + 6
    assert lines(log, event="an output could not be read: /view: status 500, or an encoded file")
    assert SECRET not in log.getvalue()
