"""Jobs of Comfy API v2, by comfy-sdk and by hand, over a scripted engine."""

import asyncio
import json
from typing import Any

import jsonschema
import pytest
from comfy_sdk import (
    AsyncOutput,
    Comfy,
    ComfyError,
    IdempotencyKeyReuse,
    InvalidWorkflow,
    JobFailed,
    NotFound,
    OutputReady,
    Preview,
    Progress,
    StatusChange,
)

from converter.api.comfyapi.dialect import LISTS
from converter.core.comfyapi import Record
from converter.ledger import Ledger
from tests.converter.api.comfy import EVENTS, check, comfy
from tests.converter.faults.graphs import passed_through, picture, text, two_pictures
from tests.converter.faults.replica import Caller, converter, give_up
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of

JOBS = "/api/v2/jobs"


async def move_to(engine: FakeEngine, class_type: str) -> None:
    """Let the engine go on from where it is held, up to nodes of a class."""
    await engine.until(lambda: engine.gate.holding)
    engine.release()
    await engine.until(lambda: not engine.gate.holding)
    engine.hold(class_type)


async def test_the_sdk_runs_a_workflow_and_fetches_its_pictures(caller: Caller) -> None:
    async with comfy(caller.url) as client:
        job = await client.run(client.workflows.from_json(two_pictures(0x123456, 0x654321)))
        assert [color_of(await output.to_bytes()) for output in job.outputs] == [0x123456, 0x654321]
        assert [output.node_id for output in job.outputs] == ["2", "4"]
        assert [output.type for output in job.outputs] == ["image", "image"]
        whole = await job.outputs[0].to_bytes()
        assert len(whole) == job.outputs[0].size_bytes
        assert await job.outputs[0].to_bytes(range=(1, 3)) == whole[1:4] == b"PNG"


async def test_a_text_is_an_output_like_others(caller: Caller) -> None:
    async with comfy(caller.url) as client:
        job = await client.run(client.workflows.from_json(text("words, and more")))
        assert [(output.type, await output.to_bytes()) for output in job.outputs] == [("text", b"words, and more")]


async def test_events_tell_what_happens_up_to_the_end(caller: Caller, engine: FakeEngine) -> None:
    graph = passed_through("TestPreview", 0x00FF00, steps=4)
    engine.hold("EmptyImage")
    async with comfy(caller.url) as client:
        job = await client.submit(client.workflows.from_json(graph))
        seen: list[Any] = []
        async for event in job.events():
            seen.append(event)
            if len(seen) == 1:
                await move_to(engine, "SaveImage")
            if any(isinstance(each, Preview) for each in seen):
                engine.release()
        previews = [event for event in seen if isinstance(event, Preview)]
        assert {preview.content_type for preview in previews} == {"image/jpeg"}
        assert previews[0].data.startswith(b"\xff\xd8")
        values = [event.value for event in seen if isinstance(event, Progress)]
        assert values == sorted(values)
        assert values
        assert isinstance(seen[0], StatusChange)
        [output] = [event.output for event in seen if isinstance(event, OutputReady)]
        assert isinstance(output, AsyncOutput)
        assert color_of(await output.to_bytes()) == 0x00FF00
        assert seen[-1] == StatusChange("succeeded")
        again = [event async for event in job.events()]
        assert [type(event) for event in again] == [OutputReady, StatusChange]


async def test_every_event_is_as_the_api_has_it(caller: Caller, engine: FakeEngine) -> None:
    engine.hold("EmptyImage")
    reply = await caller.post(JOBS, {"workflow": passed_through("TestPreview", steps=4)})
    heard = []
    async with caller.session.get(f"{caller.url}{reply.document['urls']['events']}") as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert response.headers["X-Accel-Buffering"] == "no"
        await move_to(engine, "SaveImage")
        rest = b""
        async for chunk in response.content.iter_any():
            *blocks, rest = (rest + chunk).split(b"\n\n")
            for block in blocks:
                fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
                assert fields.keys() == {"event", "data"}
                jsonschema.validate(json.loads(fields["data"]), EVENTS[fields["event"]])
                heard.append(fields["event"])
            if "preview" in heard:
                engine.release()
    assert set(heard) == set(EVENTS)
    assert heard[-1] == "status"


async def test_who_comes_after_another_is_told_how_long_the_queue_is(caller: Caller, engine: FakeEngine) -> None:
    engine.hold()
    replies = [await caller.post(JOBS, {"workflow": picture(color)}) for color in range(5)]
    shown = [(await caller.get(f"{JOBS}/{reply.document['id']}")).document for reply in replies]
    assert [job["queue_position"] for job in shown][-2:] == [1, 2]
    engine.release()


async def test_a_node_that_raises_is_a_job_that_failed(caller: Caller) -> None:
    async with comfy(caller.url) as client:
        with pytest.raises(JobFailed) as failed:
            await client.run(client.workflows.from_json(passed_through("TestRaise", kind="ValueError")))
        assert failed.value.code == "node_execution_error"
        assert failed.value.error is not None
        assert (failed.value.error.node_id, failed.value.error.class_type) == ("9", "TestRaise")


async def test_what_the_engine_refuses_is_no_job_and_its_key_is_free(caller: Caller) -> None:
    graph = picture(1)
    graph["1"]["class_type"] = "NoSuchNode"
    async with comfy(caller.url) as client:
        with pytest.raises(InvalidWorkflow) as refused:
            await client.submit(client.workflows.from_json(graph), idempotency_key="mine")
        assert refused.value.details is not None
        assert "1" in refused.value.details["node_errors"]
        assert [job async for job in client.list_jobs()] == []
        await client.submit(client.workflows.from_json(picture(1)), idempotency_key="mine")


async def test_what_the_engine_refuses_later_is_a_job_that_failed(caller: Caller, engine: FakeEngine) -> None:
    graph = picture(1)
    graph["1"]["class_type"] = "NoSuchNode"
    engine.hold()
    before = [await caller.post(JOBS, {"workflow": picture(color)}) for color in range(2)]
    async with comfy(caller.url) as client:
        job = await client.submit(client.workflows.from_json(graph))
        assert job.status == "queued"
        engine.release()
        await job.wait()
        assert (job.status, job.error.code, job.error.node_id) == ("failed", "invalid_workflow", "1")
    assert [reply.status for reply in before] == [201, 201]


@pytest.mark.parametrize(
    ("document", "status", "code", "word"),
    [
        ({"workflow": {"nodes": [], "links": [], "last_node_id": 1}}, 422, "workflow_format_ui", "Export"),
        ({"workflow": {}}, 422, "invalid_workflow", "nodes"),
        ({"workflow": {"1": {"class_type": "EmptyImage"}}}, 422, "invalid_workflow", "inputs"),
        ({"workflow": picture(1), "extra_data": {"client_id": "1"}}, 400, "invalid_request", "/extra_data/client_id"),
        ({"workflow": picture(1), "extra_data": {}}, 400, "invalid_request", "api_key_comfy_org"),
        ({"workflow": picture(1), "webhook_url": "http://a"}, 400, "invalid_request", "/webhook_url"),
        ({"workflow": picture(1), "priority": 1}, 400, "invalid_request", "/priority"),
        ({"workflow": picture(1), "metadata": {"a": 1}}, 400, "invalid_request", "/metadata/a"),
        ([], 400, "invalid_request", "object"),
    ],
)
async def test_what_cannot_be_run_is_refused_by_name(
    caller: Caller, document: Any, status: int, code: str, word: str
) -> None:
    for _ in range(2):  # the key is free again
        reply = await caller.post(JOBS, document, Idempotency_Key="mine")
        check("POST", JOBS, reply.status, reply.document)
        assert (reply.status, reply.document["error"]["code"]) == (status, code)
        assert word in reply.document["error"]["message"]
    assert (await caller.get(JOBS)).document == {"jobs": []}


async def test_partner_keys_reach_the_engine_and_nobody_else(caller: Caller, engine: FakeEngine) -> None:
    async with comfy(caller.url) as client:
        job = await client.run(client.workflows.from_json(picture(1)), api_key="secret-of-a-partner")
        workflow = await job.get_workflow()
        assert (workflow.graph, workflow.format) == (picture(1), "api")
    [posted] = [asked.body for asked in engine.requests if asked.path == "/prompt" and asked.method == "POST"][-1:]
    assert posted["extra_data"]["api_key_comfy_org"] == "secret-of-a-partner"


async def test_a_key_counts_once(caller: Caller, engine: FakeEngine) -> None:
    engine.hold()
    ask = [caller.post(JOBS, {"workflow": picture(color)}, Idempotency_Key="mine") for color in range(3)]
    replies = await asyncio.gather(*ask)
    assert sorted(reply.status for reply in replies) == [201, 422, 422]
    engine.release()
    async with comfy(caller.url) as client:
        with pytest.raises(IdempotencyKeyReuse):
            await client.submit(client.workflows.from_json(picture(1)), idempotency_key="mine")
        assert len([job async for job in client.list_jobs()]) == 1


async def test_a_caller_who_left_before_the_answer_finds_the_job_and_cannot_begin_it_again(
    caller: Caller, engine: FakeEngine
) -> None:
    engine.faults.held_path = "/prompt"
    asking = asyncio.create_task(caller.post(JOBS, {"workflow": picture(0x010203)}, Idempotency_Key="mine"))
    await engine.until(
        lambda: any(asked.path == "/prompt" and asked.method == "POST" for asked in engine.requests[-1:])
    )
    await give_up(asking)
    engine.faults.held_path = ""
    engine.release()
    assert (await caller.post(JOBS, {"workflow": picture(1)}, Idempotency_Key="mine")).status == 422
    async with comfy(caller.url) as client:
        [summary] = [job async for job in client.list_jobs()]
        job = await (await client.jobs.get(summary.id)).result()
        assert color_of(await job.outputs[0].to_bytes()) == 0x010203


async def test_snapshots_come_at_most_twice_a_second(caller: Caller) -> None:
    reply = await caller.post(JOBS, {"workflow": passed_through("TestPreview", steps=500)})
    begun = asyncio.get_running_loop().time()
    body = (await caller.get(f"{JOBS}/{reply.document['id']}/events")).body
    most = (asyncio.get_running_loop().time() - begun) / 0.5 + 1
    assert body.count(b"event: preview\n") <= most
    assert body.count(b"event: progress\n") <= most


async def test_the_sdk_for_scripts_runs_a_workflow(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFY_BASE_URL", caller.url)

    def run() -> bytes:
        with Comfy() as client:
            return client.run(client.workflows.from_json(picture(0x778899))).outputs[0].to_bytes()

    assert color_of(await asyncio.to_thread(run)) == 0x778899


async def test_a_full_queue_is_said_at_once_and_the_sdk_comes_back(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=1) as caller, comfy(caller.url) as client:
        for color in range(3, 5):  # the first pays for loading, the next shows how long one takes
            await client.run(client.workflows.from_json(picture(color)))
        engine.hold()
        await client.submit(client.workflows.from_json(picture(1)))
        reply = await caller.post(JOBS, {"workflow": picture(2)}, Idempotency_Key="mine")
        check("POST", JOBS, reply.status, reply.document)
        assert (reply.status, reply.document["error"]["code"]) == (429, "queue_full")
        assert int(reply.headers["Retry-After"]) >= 1
        second = asyncio.create_task(client.submit(client.workflows.from_json(picture(2)), idempotency_key="mine"))
        refusals = caller.replica.gate._metrics.refusals.labels(reason="queue_full")
        await caller.until(lambda: refusals._value.get() == 2)
        engine.release()
        assert (await (await second).result()).status == "succeeded"


async def test_a_canceled_job_stays_canceled(caller: Caller, engine: FakeEngine) -> None:
    engine.hold()
    async with comfy(caller.url) as client:
        job = await client.submit(client.workflows.from_json(picture(1)))
        assert (await job.cancel()).status == "canceled"
        assert (await job.cancel()).status == "canceled"
        with pytest.raises(JobFailed):
            await job.result()
        engine.release()
        await engine.until(lambda: engine.interrupts or engine.deletes or engine.cancels)


async def test_a_job_that_has_ended_is_not_canceled(caller: Caller) -> None:
    async with comfy(caller.url) as client:
        job = await client.run(client.workflows.from_json(picture(1)))
        assert (await job.cancel()).status == "succeeded"
        assert color_of(await job.outputs[0].to_bytes()) == 1


async def test_only_so_many_lists_are_made_at_once(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asyncio.Semaphore(0)
    go_on = asyncio.Event()

    async def wait(*_: object) -> tuple[list[Record], None]:
        begun.release()
        await go_on.wait()
        return [], None

    monkeypatch.setattr(Ledger, "list", wait)
    asking = [asyncio.create_task(caller.get(JOBS)) for _ in range(LISTS)]
    for _ in asking:
        await begun.acquire()
    refused = await caller.get(JOBS)
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    go_on.set()
    assert [reply.status for reply in await asyncio.gather(*asking)] == [200] * LISTS


async def test_jobs_are_listed_by_label_the_newest_first(caller: Caller) -> None:
    async with comfy(caller.url) as client:
        for number in range(3):
            labels = {"run": "7" if number else "6"}
            await client.submit(client.workflows.from_json(picture(number)), metadata=labels)
        found = [job async for job in client.list_jobs(metadata={"run": "7"}, limit=1)]
        assert [job.metadata for job in found] == [{"run": "7"}] * 2
        everything = [job async for job in client.list_jobs(limit=2)]
        assert [job.metadata["run"] for job in everything] == ["7", "7", "6"]
        with pytest.raises(ComfyError) as refused:
            [job async for job in client.list_jobs(limit=1000)]
        assert refused.value.code == "invalid_request"


async def test_logs_are_none(caller: Caller) -> None:
    reply = await caller.post(JOBS, {"workflow": picture(1)})
    assert (await caller.get(f"{JOBS}/{reply.document['id']}/logs")).status == 204


@pytest.mark.parametrize("path", ["", "/events", "/workflow", "/logs"])
async def test_a_job_that_nobody_began_is_not_found(caller: Caller, path: str) -> None:
    reply = await caller.get(f"{JOBS}/nothing{path}")
    check("GET", f"{JOBS}/ID", reply.status, reply.document)
    assert (reply.status, reply.document["error"]["code"]) == (404, "not_found")


async def test_jobs_and_outputs_of_another_key_are_not_there(engine: FakeEngine) -> None:
    async with converter(engine.url, api_keys="one:first-secret-of-all,two:second-secret-of-all") as caller:
        async with comfy(caller.url, "first-secret-of-all") as client:
            job = await client.run(client.workflows.from_json(picture(1)))
            assert color_of(await job.outputs[0].to_bytes()) == 1
            assert color_of((await caller.get(str(job.outputs[0]._model.url).removeprefix(caller.url))).body) == 1
        async with comfy(caller.url, "second-secret-of-all") as stranger:
            assert [each async for each in stranger.list_jobs()] == []
            with pytest.raises(NotFound):
                await stranger.jobs.get(job.id)
            reply = await caller.get(f"/api/v2/assets/{job.outputs[0].id}", Authorization="Bearer second-secret-of-all")
            assert reply.status == 404
        reply = await caller.post(JOBS, {"workflow": picture(1)})
        check("POST", JOBS, reply.status, reply.document)
        assert (reply.status, reply.document["error"]["code"]) == (401, "unauthorized")


async def test_a_replica_that_is_not_ready_says_when_to_come_back() -> None:
    async with converter("http://127.0.0.1:9", wait=False) as caller:
        reply = await caller.post(JOBS, {"workflow": picture(1)})
        check("POST", JOBS, reply.status, reply.document)
        assert (reply.status, reply.document["error"]["code"]) == (429, "deployment_not_ready")
        assert int(reply.headers["Retry-After"]) >= 1


async def test_what_the_websocket_brought_is_an_output_as_long_as_its_job_is_known(caller: Caller) -> None:
    async with comfy(caller.url) as client:
        job = await client.run(client.workflows.from_json(picture(0x123456, save="SaveImageWebsocket")))
        assert color_of(await job.outputs[0].to_bytes()) == 0x123456
        assert str(job.outputs[0]._model.url) == f"{caller.url}/api/v2/assets/{job.outputs[0].id}/content"


async def test_who_was_told_how_a_job_ended_is_not_waited_for(caller: Caller) -> None:
    async with comfy(caller.url) as client:
        await client.run(client.workflows.from_json(picture(1)))
        async with asyncio.timeout(10):
            await caller.replica.jobs.fetched()


async def test_an_output_is_had_from_the_engine_and_nothing_of_it_is_held(engine: FakeEngine) -> None:
    async with converter(engine.url, keep_bytes=0) as caller, comfy(caller.url) as client:
        job = await client.run(client.workflows.from_json(picture(0xABCDEF)))
        await caller.until(lambda: not caller.tickets)
        [output] = (await client.jobs.get(job.id)).outputs
        assert output.id == job.outputs[0].id
        assert color_of(await output.to_bytes()) == 0xABCDEF
        engine.faults.view_missing = 1
        with pytest.raises(NotFound):
            await output.to_bytes()
        document = (await caller.get(f"/api/v2/assets/{output.id}")).document
        check("GET", "/api/v2/assets/ID", 200, document)
        assert (document["job_id"], document["file_path"]) == (job.id, output.name)
        forged = output.id[:-1] + ("A" if output.id[-1] != "A" else "B")
        assert (await caller.get(f"/api/v2/assets/{forged}/content")).status == 404
