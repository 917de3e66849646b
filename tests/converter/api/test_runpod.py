"""The dialect `runpod`, spoken by its own client as it is, and by plain HTTP where that client can't say a thing."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

import pytest
import requests
import runpod
from runpod import AsyncioEndpoint, AsyncioJob

from tests.converter.faults.graphs import loaded, passed_through, picture, text
from tests.converter.faults.replica import PATIENCE, Caller, converter
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of, encode, solid

KEY = "a-secret-of-some-length"
SLOW = passed_through("TestSleep", seconds=600.0)
T = TypeVar("T")


@pytest.fixture
async def caller(engine: FakeEngine) -> AsyncIterator[Caller]:
    async with converter(engine.url, dialects="runpod") as caller:
        yield caller


@pytest.fixture
def endpoint(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """RunPod's client, pointed at the converter; the endpoint is called `runpod`."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(runpod, "endpoint_url_base", caller.url)
    endpoint = runpod.Endpoint("runpod", api_key=KEY)
    yield endpoint
    endpoint.rp_client.rp_session.close()


async def call(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """A call that blocks."""
    return await asyncio.to_thread(function, *arguments, **options)


def color(image: dict[str, Any]) -> int:
    assert image.keys() == {"filename", "type", "data"}
    assert image["type"] == "base64"
    return color_of(base64.b64decode(image["data"], validate=True))


async def test_its_client_runs_a_workflow_and_waits_for_it(endpoint: Any) -> None:
    output = await call(endpoint.run_sync, {"input": {"workflow": picture(0x123456)}}, timeout=60)
    assert [color(image) for image in output["images"]] == [0x123456]
    assert output["images"][0]["filename"].endswith(".png")


async def test_its_client_wraps_what_is_no_input_yet(endpoint: Any) -> None:
    output = await call(endpoint.run_sync, {"workflow": picture(5)}, timeout=60)
    assert [color(image) for image in output["images"]] == [5]


async def test_its_client_follows_a_job_in_the_background(endpoint: Any) -> None:
    job = await call(endpoint.run, {"input": {"workflow": picture(0x00FF00, batch=2)}})
    assert await call(job.status) in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")
    output = await call(job.output, timeout=60)
    assert await call(job.status) == "COMPLETED"
    assert [color(image) for image in output["images"]] == [0x00FF00, 0x00FF00]


async def test_its_client_cancels(endpoint: Any, caller: Caller, engine: FakeEngine) -> None:
    job = await call(endpoint.run, {"input": {"workflow": SLOW}})
    canceled = await call(job.cancel, timeout=60)
    assert (canceled["id"], canceled["status"]) == (job.job_id, "CANCELLED")
    assert await call(job.status) == "CANCELLED"
    assert await call(job.output) is None
    await caller.until_empty()


async def test_its_client_reads_the_health(endpoint: Any, caller: Caller) -> None:
    await call(endpoint.run_sync, {"input": {"workflow": picture(1)}}, timeout=60)
    await caller.until_empty()
    health = await call(endpoint.health, timeout=60)
    assert health["jobs"] == {"completed": 1, "failed": 0, "inProgress": 0, "inQueue": 0}
    assert health["workers"]["ready"] == health["workers"]["idle"] == 1


async def test_an_image_is_found_under_its_name(endpoint: Any) -> None:
    sent = base64.b64encode(encode(solid(0x0000FF)[0])).decode()
    for image in (sent, f"data:image/png;base64,{sent}"):
        given = {"workflow": loaded("photo.png"), "images": [{"name": "photo.png", "image": image}]}
        output = await call(endpoint.run_sync, {"input": given}, timeout=60)
        assert [color(image) for image in output["images"]] == [0xFFFF00]


async def test_its_asynchronous_client_does_the_same(caller: Caller, endpoint: Any) -> None:
    other = AsyncioEndpoint("runpod", caller.session, api_key=KEY)
    job: AsyncioJob = await other.run({"workflow": picture(0xABCDEF)})
    output = await job.output(timeout=60)
    assert [color(image) for image in output["images"]] == [0xABCDEF]
    assert (await other.health())["workers"]["unhealthy"] == 0


async def test_a_job_that_fails_is_told_as_a_job(caller: Caller) -> None:
    reply = await caller.post(
        "/runpod/runsync", {"input": {"workflow": passed_through("TestRaise", kind="ValueError")}}
    )
    assert (reply.status, reply.document["status"]) == (200, "FAILED")
    assert reply.document["error"]
    assert reply.document["problem"]["code"] == "execution_failed"
    assert reply.document["delayTime"] >= 0
    again = await caller.get(f"/runpod/status/{reply.document['id']}")
    assert again.document["status"] == "FAILED"


async def test_its_client_gives_nothing_for_a_job_that_failed_and_raises_what_was_refused(endpoint: Any) -> None:
    failing = {"input": {"workflow": passed_through("TestRaise", kind="ValueError")}}
    assert await call(endpoint.run_sync, failing, timeout=60) is None
    with pytest.raises(requests.HTTPError, match="400"):
        await call(endpoint.run_sync, {"input": {"workflow": {}, "unheard_of": 1}}, timeout=60)


async def test_a_text_is_a_file(caller: Caller) -> None:
    reply = await caller.post("/runpod/runsync", {"input": {"workflow": text("wörds")}})
    (file,) = reply.document["output"]["images"]
    assert base64.b64decode(file["data"]).decode() == "wörds"


async def test_who_waits_no_longer_finds_the_job_by_its_id(caller: Caller, engine: FakeEngine) -> None:
    engine.faults.held_path = "/view"
    reply = await caller.post("/runpod/runsync?wait=1000", {"input": {"workflow": picture(7)}})
    assert (reply.status, reply.document["status"]) == (200, "IN_PROGRESS")
    engine.faults.held_path = ""
    engine.release()
    await caller.until_empty()
    found = (await caller.get(f"/runpod/status/{reply.document['id']}")).document
    assert [color(image) for image in found["output"]["images"]] == [7]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/input"]),
        ({"input": {"workflow": picture(1)}, "webhook": "http://example.org"}, ["/webhook"]),
        ({"input": {"workflow": picture(1)}, "s3Config": {"accessId": "x"}}, ["/s3Config"]),
        (
            {"input": {"workflow": picture(1)}, "policy": {"executionTimeout": 1, "ttl": -1}},
            ["/policy/ttl", "/policy/executionTimeout"],
        ),
        (
            {"input": {"workflow": picture(1), "images": [{"name": "lost.png", "image": "aGk="}]}},
            ["/input/images/0/name"],
        ),
    ],
)
async def test_what_is_not_offered_is_refused_by_name(caller: Caller, body: Any, pointers: list[str]) -> None:
    reply = await caller.post("/runpod/runsync", body)
    assert reply.status == 400
    assert [problem["pointer"] for problem in reply.document["problem"]["problems"]] == pointers
    assert reply.document["error"]


@pytest.mark.parametrize("path", ["/runpod/stream/x", "/runpod/purge-queue", "/runpod/nothing", "/runpod/status/x"])
async def test_other_operations_and_unknown_jobs_are_not_found(caller: Caller, path: str) -> None:
    reply = await caller.get(path)
    assert (reply.status, reply.document["problem"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("wait", ["999", "300001", "x", "-1", "9" * 5000, "²"])
async def test_a_wait_that_is_none_is_refused(caller: Caller, wait: str) -> None:
    reply = await caller.ask("POST", "/runpod/runsync", params={"wait": wait}, json={"input": {"workflow": picture(1)}})
    assert (reply.status, reply.document["problem"]["code"]) == (400, "invalid_request")


async def test_the_policy_is_obeyed(caller: Caller) -> None:
    given = {"input": {"workflow": SLOW}, "policy": {"ttl": 50, "lowPriority": True}}
    reply = await caller.post("/runpod/runsync", given)
    assert (reply.status, reply.document["status"]) == (200, "TIMED_OUT")


async def test_a_full_replica_refuses_at_once(engine: FakeEngine) -> None:
    async with converter(engine.url, dialects="runpod", capacity=1) as caller:
        first = await caller.post("/runpod/run", {"input": {"workflow": SLOW}})
        second = await caller.post("/runpod/runsync", {"input": {"workflow": picture(1)}})
        assert (second.status, second.document["problem"]["code"]) == (429, "queue_full")
        assert int(second.headers["Retry-After"]) > 0
        await caller.ask("POST", f"/runpod/cancel/{first.document['id']}")


async def test_a_caller_who_leaves_takes_the_job_along(caller: Caller, engine: FakeEngine) -> None:
    body = {"input": {"workflow": SLOW}}
    request = asyncio.create_task(caller.post("/runpod/runsync", body))
    await caller.until(lambda: caller.tickets)
    request.cancel()
    await caller.until_empty()


async def test_its_client_shows_its_key(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with converter(engine.url, dialects="runpod", api_keys=f"me:{KEY},other:{KEY}2") as caller:
        monkeypatch.setattr(runpod, "endpoint_url_base", caller.url)
        mine, other, stranger = (runpod.Endpoint("runpod", api_key=key) for key in (KEY, f"{KEY}2", "wrong"))
        job = await call(mine.run, {"input": {"workflow": picture(3)}})
        async with asyncio.timeout(PATIENCE):
            output = await call(job.output, timeout=60)
        assert [color(image) for image in output["images"]] == [3]
        with pytest.raises(requests.HTTPError, match="404"):
            await call(runpod.endpoint.Job("runpod", job.job_id, other.rp_client).status)
        with pytest.raises(RuntimeError, match="401"):
            await call(stranger.run, {"input": {"workflow": picture(3)}})
        for endpoint in (mine, other, stranger):
            endpoint.rp_client.rp_session.close()
