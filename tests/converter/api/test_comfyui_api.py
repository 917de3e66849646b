"""The dialect `comfyui-api`, which has no client of its own: spoken as its users do, with requests and aiohttp."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
import requests
from PIL import Image

from tests.converter.faults.graphs import loaded, passed_through, picture, text, two_pictures
from tests.converter.faults.phases import data_uri
from tests.converter.faults.replica import Caller, converter
from tests.converter.receiver import Receiver
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of

SLOW = passed_through("TestSleep", seconds=600.0)


@pytest.fixture
async def caller(engine: FakeEngine) -> AsyncIterator[Caller]:
    async with converter(engine.url, dialects="comfyui-api") as caller:
        yield caller


def colors(images: list[str]) -> list[int]:
    return [color_of(base64.b64decode(image, validate=True)) for image in images]


async def test_requests_gets_the_pictures(caller: Caller) -> None:
    graph = picture(0x123456)
    response = await asyncio.to_thread(requests.post, f"{caller.url}/prompt", json={"prompt": graph}, timeout=60)
    document = response.json()
    assert response.status_code == 200
    assert document.keys() == {"id", "prompt", "images", "filenames", "stats"}
    assert document["prompt"] == graph
    assert colors(document["images"]) == [0x123456]
    assert document["filenames"] == ["faults_00001_.png"]
    execution = document["stats"]["comfy_execution"]
    assert execution["end"] - execution["start"] == pytest.approx(execution["duration"], abs=1)
    assert document["stats"]["total_time"] >= 0
    assert list(execution["nodes"]) == ["1", "2"]
    assert execution["nodes"]["1"]["start"] <= execution["nodes"]["2"]["start"] <= execution["end"]


async def test_the_id_is_the_callers_and_the_order_that_of_the_workflow(caller: Caller) -> None:
    for job_id in ("5a8c7575-7aa8", "second", "3"):
        reply = await caller.post("/prompt", {"id": job_id, "prompt": two_pictures(1, 2)})
        assert reply.document["id"] == job_id
        assert colors(reply.document["images"]) == [1, 2]


async def test_inputs_may_be_inside(caller: Caller) -> None:
    reply = await caller.post("/prompt", {"prompt": loaded(data_uri(0xFF0000))})
    assert colors(reply.document["images"]) == [0x00FFFF]


async def test_texts_are_files(caller: Caller) -> None:
    reply = await caller.post("/prompt", {"prompt": text("some words")})
    assert base64.b64decode(reply.document["images"][0]) == b"some words"


@pytest.mark.parametrize(("format", "suffix"), [("jpg", "jpg"), ("jpeg", "jpeg"), ("webp", "webp")])
async def test_pictures_are_converted(caller: Caller, format: str, suffix: str) -> None:
    wanted = {"format": format, "options": {"quality": 90, "progressive": False}}
    reply = await caller.post("/prompt", {"prompt": picture(5), "convert_output": wanted})
    assert reply.document["convert_output"] == wanted
    assert reply.document["filenames"] == [f"faults_00001_.{suffix}"]
    with Image.open(io.BytesIO(base64.b64decode(reply.document["images"][0]))) as image:
        assert image.format == format.replace("jpg", "jpeg").upper()


async def test_a_template_is_a_workflow(caller: Caller, engine: FakeEngine) -> None:
    reply = await caller.post("/workflow/txt2img", {"input": {"prompt": "a cat", "width": -1}})
    assert (reply.status, reply.document["location"]) == (400, "input.width")
    assert (await caller.post("/workflow/none", {"input": {}})).status == 404


async def test_what_the_engine_refuses_is_400(caller: Caller) -> None:
    graph = picture(5)
    graph["2"]["inputs"] = {}
    reply = await caller.post("/prompt", {"prompt": graph})
    assert (reply.status, reply.document["location"]) == (400, "prompt.2")
    assert reply.document["error"]
    assert reply.document["node_errors"]["2"]
    reply = await caller.post("/prompt", {"prompt": passed_through("TestRaise", kind="ValueError")})
    assert (reply.status, reply.code) == (422, "execution_failed")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("s3", {"bucket": "b"}),
        ("webhook", "https://example.org"),
        ("compress_outputs", True),
        ("signed_url", True),
        ("convert_output", {"format": "mp4"}),
        ("convert_output", {"format": "jpeg", "options": {"progressive": True}}),
        ("webhook_v2", "https://example.org"),
        ("unknown", 1),
    ],
)
async def test_what_is_not_offered_is_refused_by_name(caller: Caller, field: str, value: Any) -> None:
    reply = await caller.post("/prompt", {"prompt": picture(1), field: value})
    assert reply.status == 400
    assert field in reply.document["error"]
    assert reply.document["location"].startswith(field)


async def test_an_interrupt_reaches_jobs_that_run_and_jobs_that_wait(caller: Caller, engine: FakeEngine) -> None:
    bodies = [{"id": f"job-{n}", "prompt": passed_through("TestSleep", n, seconds=600.0)} for n in range(4)]
    tasks = [asyncio.create_task(caller.post("/prompt", body)) for body in bodies]
    await caller.until(lambda: caller.tickets == 4 and caller.prompts)
    for number in (3, 0, 1, 2):
        reply = await caller.post("/interrupt", {"id": f"job-{number}"})
        assert (reply.status, reply.document) == (200, {"id": f"job-{number}", "interrupted": "success"})
    assert [(await task).status for task in tasks] == [409] * 4
    for job_id in ("job-1", "never"):
        reply = await caller.post("/interrupt", {"id": job_id})
        assert (reply.status, reply.document) == (404, {"id": job_id, "interrupted": "failed"})
    assert len(engine.finished_prompts) <= len(engine.executed_prompts)


async def test_a_full_replica_refuses(engine: FakeEngine) -> None:
    async with converter(engine.url, dialects="comfyui-api", capacity=1) as caller:
        engine.hold()
        running = caller.start(picture(1))
        await engine.until_held()
        reply = await caller.post("/prompt", {"prompt": picture(2)})
        assert (reply.status, reply.code) == (429, "queue_full")
        assert int(reply.headers["Retry-After"]) >= 1
        assert (await caller.get("/ready")).status == 503
        assert (await caller.get("/health")).status == 200
        engine.release()
        await running


async def test_probes_need_no_key_and_work_does(engine: FakeEngine) -> None:
    keys = "alice:a-secret-of-some-length"
    async with converter(engine.url, dialects="comfyui-api", api_keys=keys) as caller:
        for path, word in (("/health", "healthy"), ("/ready", "ready")):
            probe = await caller.get(path)
            assert (probe.status, probe.document["status"]) == (200, word)
            assert probe.document.keys() == {"version", "status"}
        reply = await caller.post("/prompt", {"prompt": picture(2)})
        assert (reply.status, reply.code) == (401, "unauthorized")
        assert isinstance(reply.document["error"], str)
        key = {"Authorization": "Bearer a-secret-of-some-length"}
        reply = await caller.ask("POST", "/prompt", key, json={"prompt": picture(2)})
        assert colors(reply.document["images"]) == [2]


async def test_models_are_the_engines(caller: Caller) -> None:
    reply = await caller.get("/models")
    assert reply.document == {"checkpoints": ["fake.safetensors"], "loras": [], "vae": ["vae-ft.safetensors"]}
    assert (await caller.post("/download", {})).status == 404


async def test_a_webhook_tells_what_the_answer_would(engine: FakeEngine) -> None:
    async with Receiver() as receiver, converter(engine.url, **receiver.settings, dialects="comfyui-api") as caller:
        body = {"id": "later", "prompt": picture(7), "webhook_v2": receiver.url}
        reply = await caller.post("/prompt", body)
        assert (reply.status, reply.document) == (202, body | {"status": "ok"})
        notice = await receiver.next()
        assert notice.document.keys() == {*body, "type", "timestamp", "images", "filenames", "stats"}
        assert (notice.type, notice.document["id"]) == ("prompt.complete", "later")
        assert colors(notice.document["images"]) == [7]


async def test_a_webhook_tells_of_failures_and_interrupts(engine: FakeEngine) -> None:
    async with Receiver() as receiver, converter(engine.url, **receiver.settings, dialects="comfyui-api") as caller:
        broken = passed_through("TestRaise", kind="ValueError")
        await caller.post("/prompt", {"id": "bad", "prompt": broken, "webhook_v2": receiver.url})
        notice = await receiver.next()
        assert (notice.type, notice.document["id"]) == ("prompt.failed", "bad")
        assert notice.document["error"]
        await caller.post("/prompt", {"id": "slow", "prompt": SLOW, "webhook_v2": receiver.url})
        assert (await caller.post("/interrupt", {"id": "slow"})).status == 200
        notice = await receiver.next()
        assert (notice.type, notice.document["id"], notice.document["code"]) == ("prompt.failed", "slow", "canceled")
