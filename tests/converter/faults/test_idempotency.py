"""Callers who send one request again under its key: it runs once, and each of them gets its answer."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData

from converter.template_files import SHIPPED
from tests.converter.faults.graphs import LARGE, Graph, loaded, passed_through, picture, two_pictures
from tests.converter.faults.phases import PHASES, Phase, data_uri, scene
from tests.converter.faults.replica import Caller, Reply, Stream, colors, converter, give_up
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of, encode, solid

KEY = {"Idempotency-Key": '"order 66"'}
REPLAYED = "Idempotency-Replayed"
ASYNC = KEY | {"Prefer": "respond-async"}


@asynccontextmanager
async def stream(caller: Caller, workflow: Graph, headers: Mapping[str, str] = KEY) -> AsyncIterator[Stream]:
    """`POST /v1/run` with a key, as an event stream."""
    accept = {**headers, "Accept": "text/event-stream"}
    async with caller.session.post(f"{caller.url}/v1/run", json={"workflow": workflow}, headers=accept) as response:
        assert response.status == 200, await response.text()
        yield Stream(response)
        response.close()


def orders(engine: FakeEngine) -> int:
    """Prompts that were given to the engine beside the warm-up."""
    return len(engine.posted_prompts) - 1


def same(first: Reply, second: Reply) -> bool:
    """Whether both are the answer of one job."""
    return first.document["id"] == second.document["id"] and first.colors == second.colors


# One job -----------------------------------------------------------------------------------------------------------


async def test_two_callers_of_one_key_share_one_job(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        first = caller.start(picture(7), KEY)
        await engine.until_held()
        second = caller.start(picture(7), KEY)
        await caller.until(lambda: interest(caller) == 2)
        engine.release()
        replies = [await first, await second]
        assert [reply.status for reply in replies] == [200, 200]
        assert same(*replies)
        assert [REPLAYED in reply.headers for reply in replies] == [False, False], "both have waited for it"
        assert orders(engine) == 1


async def test_callers_whose_bodies_come_at_once_share_one_job(engine: FakeEngine) -> None:
    """None of them knows of the others when its headers are read."""
    async with converter(engine.url) as caller:
        replies = await asyncio.gather(*(caller.run(picture(7), KEY) for _ in range(5)))
        assert {reply.document["id"] for reply in replies} == {replies[0].document["id"]}
        assert [reply.colors for reply in replies] == [[7]] * 5
        assert orders(engine) == 1


@pytest.mark.parametrize("phase", PHASES)
async def test_who_leaves_cancels_nothing_that_another_waits_for(engine: FakeEngine, phase: Phase) -> None:
    async with converter(engine.url) as caller, scene(engine, caller, phase, headers=KEY) as staged:
        workflow = loaded(data_uri(9)) if phase == "staging" else picture(9)
        second = caller.start(workflow, KEY, id="victim")
        await caller.until(lambda: interest(caller, "victim") == 2)
        await give_up(staged.victim)
        await caller.until(lambda: interest(caller, "victim") == 1)
        await staged.go_on()
        reply = await second
        assert (reply.status, len(reply.colors)) == (200, 1)
        assert not engine.interrupts + engine.deletes


async def test_when_all_have_left_the_job_is_canceled_and_the_key_is_free(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold(interruptible=False)
        tasks = [caller.start(picture(7), KEY, id="mine") for _ in range(2)]
        await caller.until(lambda: interest(caller, "mine") == 2)
        await engine.until_held()
        for task in tasks:
            await give_up(task)
        await engine.until(lambda: engine.interrupts)
        again = caller.start(picture(7), KEY, id="mine")  # while the engine has not let go of the first attempt
        await engine.until(lambda: orders(engine) == 2)
        engine.release()
        reply = await again
        assert (reply.status, reply.colors, reply.document["id"]) == (200, [7], "mine")
        await caller.until_empty()
        assert (await caller.job("mine"))["status"] == "succeeded"


async def test_of_streams_one_may_leave_and_the_other_hears_the_end(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        async with stream(caller, picture(7)) as first, stream(caller, picture(7)) as second:
            await first.until("status", state="running")
            await second.until("status", state="running")
            first.response.close()
            await caller.until(lambda: interest(caller) == 1)
            engine.release()
            last = await second.last()
        assert (last.name, colors(last.data)) == ("result", [7])
        assert engine.interrupts == []


async def test_a_full_replica_still_takes_those_who_come_back(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=1) as caller:
        engine.hold()
        first = caller.start(picture(7), KEY)
        await engine.until_held()
        assert (await caller.run(picture(8))).code == "queue_full"
        second = caller.start(picture(7), KEY)
        await caller.until(lambda: interest(caller) == 2)
        engine.release()
        assert same(await first, await second)


async def test_a_job_in_the_background_is_found_by_those_who_wait_and_the_other_way_round(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        waiting = caller.start(picture(7), KEY)
        await engine.until_held()
        accepted = await caller.run(picture(7), ASYNC)
        assert (accepted.status, REPLAYED in accepted.headers) == (202, False)
        await give_up(waiting)
        engine.release()
        document = await caller.until_job(accepted.document["id"], "succeeded")
        assert colors(document) == [7]
        late = await caller.run(picture(7), KEY)
        assert (late.document["id"], late.headers[REPLAYED]) == (accepted.document["id"], "true")
        again = await caller.run(picture(7), ASYNC)
        assert (again.status, again.headers["Location"], again.headers[REPLAYED]) == (
            202,
            accepted.headers["Location"],
            "true",
        )
        assert orders(engine) == 1


# Replays -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra_data", [{}, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("first", ["application/json", "image/png", "text/event-stream"])
async def test_an_answer_is_replayed_in_any_shape(engine: FakeEngine, first: str, extra_data: dict[str, Any]) -> None:
    async with converter(engine.url) as caller:
        begun = await caller.run(picture(7), KEY | {"Accept": first}, extra_data=extra_data)
        assert (begun.status, REPLAYED in begun.headers) == (200, False)
        await caller.until_empty()
        engine.clear_history()
        document = await caller.run(picture(7), KEY, extra_data=extra_data)
        assert (document.colors, document.headers[REPLAYED]) == ([7], "true")
        raw = await caller.run(picture(7), KEY | {"Accept": "image/png"}, extra_data=extra_data)
        assert (color_of(raw.body), raw.headers[REPLAYED]) == (7, "true")
        assert raw.headers["X-Job-Id"] == document.document["id"]
        events = await caller.run(picture(7), KEY | {"Accept": "text/event-stream"}, extra_data=extra_data)
        assert events.headers[REPLAYED] == "true"
        last = events.body.decode().strip().splitlines()[-1]
        assert json.loads(last.removeprefix("data: ")) == document.document
        assert orders(engine) == 1


async def test_what_was_answered_is_there_when_the_engine_is_not(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        first = await caller.run(picture(7), KEY, extra_data=LARGE)
        await engine.crash()
        await caller.until(lambda: caller.state == "FAILED")
        again = await caller.run(picture(7), KEY, extra_data=LARGE)
        assert same(first, again)
        assert (await caller.run(picture(8))).code == "engine_down"


async def test_a_replay_that_is_too_large_to_hold_needs_the_engines_file(engine: FakeEngine) -> None:
    async with converter(engine.url, keep_bytes=1000) as caller:
        for _ in range(2):
            reply = await caller.run(picture(7), KEY | {"Accept": "image/png"}, extra_data=LARGE)
            assert color_of(reply.body) == 7
        for path in (engine.folders.root / "output").iterdir():
            path.unlink()
        gone = await caller.run(picture(7), KEY, extra_data=LARGE)
        assert (gone.status, gone.code) == (410, "expired")
        assert orders(engine) == 1


async def test_a_replay_may_be_of_another_format(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        for accept in ("image/webp", "image/jpeg", "image/png"):
            reply = await caller.run(picture(0xFF0000, size=64), KEY | {"Accept": accept})
            assert (reply.status, reply.headers["Content-Type"]) == (200, accept)
        [output] = (await caller.run(picture(0xFF0000, size=64), KEY)).document["outputs"]
        assert output["content_type"] == "image/png"
        assert orders(engine) == 1


async def test_an_answer_that_one_shape_can_not_hold_is_had_in_another(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        refused = await caller.run(picture(7, batch=2), KEY | {"Accept": "image/png"})
        assert (refused.status, refused.code) == (406, "not_acceptable")
        replayed = await caller.run(picture(7, batch=2), KEY)
        assert (replayed.colors, replayed.headers[REPLAYED]) == ([7, 7], "true")
        assert orders(engine) == 1


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_a_failure_of_the_workflow_is_replayed(engine: FakeEngine, accept: str) -> None:
    async with converter(engine.url) as caller:
        graph = passed_through("TestRaise", kind="ValueError", message="no such luck")
        first = await caller.run(graph, KEY)
        again = await caller.run(graph, KEY | {"Accept": accept})
        assert (first.status, REPLAYED in first.headers, again.headers[REPLAYED]) == (422, False, "true")
        if accept == "application/json":
            assert again.status == 422
            assert {**again.document, "request_id": ""} == {**first.document, "request_id": ""}
            assert again.document["request_id"] != first.document["request_id"]
        else:
            assert b"event: error" in again.body
        assert orders(engine) == 1


async def test_a_template_is_filled_once(engine: FakeEngine, tmp_path: Path) -> None:
    for path in SHIPPED.glob("txt2img.*"):
        (tmp_path / path.name).write_text(path.read_text().replace('"demo"', '"sd15-tiny.safetensors"'))
    body = {"inputs": {"prompt": "a heart"}}
    async with converter(engine.url, workflows_dir=tmp_path) as caller:
        first, second = [await caller.ask("POST", "/v1/workflows/txt2img", KEY, json=body) for _ in range(2)]
        assert first.document["inputs"] == second.document["inputs"], "the seed was drawn once"
        assert (first.document["id"], second.headers[REPLAYED]) == (second.document["id"], "true")
        other = await caller.run(picture(1), KEY)
        assert (other.status, other.code) == (422, "idempotency_mismatch")


async def test_parts_belong_to_the_request_and_boundaries_do_not(engine: FakeEngine) -> None:
    def form(color: int) -> FormData:
        data = FormData()
        request = {"workflow": loaded("") | {"1": {"class_type": "LoadImage", "inputs": {"image": {"part": "photo"}}}}}
        data.add_field("request", json.dumps(request), content_type="application/json")
        data.add_field("photo", encode(solid(color, 8, 8)[0]), filename="a.png", content_type="image/png")
        return data

    async with converter(engine.url) as caller:
        replies = [await caller.ask("POST", "/v1/run", KEY, data=form(color)) for color in (1, 1, 2)]
        assert [reply.status for reply in replies] == [200, 200, 422]
        assert same(replies[0], replies[1])
        assert replies[2].code == "idempotency_mismatch"


# Other requests ----------------------------------------------------------------------------------------------------


async def test_another_request_under_a_known_key_is_refused(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        running = caller.start(picture(7), KEY)
        await engine.until_held()
        for ended in (False, True):
            for other in (caller.run(picture(8), KEY), caller.run(picture(7), KEY, timeout=5)):
                refused = await other
                assert (refused.status, refused.code) == (422, "idempotency_mismatch")
                assert refused.headers["x-should-retry"] == "false"
                assert REPLAYED not in refused.headers
            if not ended:
                engine.release()
                assert (await running).colors == [7]
        laid_out = json.dumps({"workflow": dict(reversed(picture(7).items()))}, indent=4)
        headers = {"Idempotency-Key": '"order 66"', "Content-Type": "application/json"}
        assert (await caller.ask("POST", "/v1/run", headers, data=laid_out)).headers[REPLAYED] == "true"
        assert (await caller.run(picture(8), {"Idempotency-Key": "66"})).colors == [8]


async def test_a_key_that_can_not_be_read_is_refused_before_anything_is_done(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        for value in ("", "a b", '"a', "x" * 256):
            refused = await caller.run(picture(7), {"Idempotency-Key": value})
            assert (refused.status, refused.code) == (400, "invalid_request")
            assert "Idempotency-Key" in refused.document["detail"]
        assert orders(engine) == 0


# Ends that free the key --------------------------------------------------------------------------------------------


async def test_refusals_and_unreadable_requests_leave_the_key_free(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=1) as caller:
        engine.hold()
        first = caller.start(picture(1))
        await engine.until_held()
        assert (await caller.run(picture(7), KEY)).code == "queue_full"
        engine.release()
        await first
        await caller.until_empty()
        assert (await caller.run({"1": {"class_type": "EmptyImage"}}, KEY)).code == "invalid_workflow"
        assert (await caller.run(picture(7), KEY, outputs={"nodes": ["1"]})).code == "invalid_workflow"
        assert (await caller.run(two_pictures(1, 2), KEY | {"Accept": "image/png"})).code == "not_acceptable"
        assert (await caller.run(picture(7), KEY, nonsense=1)).code == "invalid_request"
        reply = await caller.run(picture(7), KEY)
        assert (reply.colors, REPLAYED in reply.headers) == ([7], False)


@pytest.mark.parametrize("named", [{}, {"id": "mine"}], ids=["unnamed", "named"])
async def test_an_engine_that_failed_is_tried_again(engine: FakeEngine, named: dict[str, Any]) -> None:
    async with converter(engine.url, max_attempts=1) as caller:
        engine.faults.exit_on_post = 1
        failing = caller.start(picture(7), KEY, **named)
        await engine.until(lambda: not engine.alive)
        await engine.restart()
        assert (await failing).status == 502
        await caller.until_ready()
        again = await caller.run(picture(7), KEY, **named)
        assert (again.status, again.colors, REPLAYED in again.headers) == (200, [7], False)
        assert (await caller.run(picture(7), KEY, **named)).headers[REPLAYED] == "true"
        if named:
            assert (await caller.job("mine"))["status"] == "succeeded"
            taken = await caller.run(picture(7), **named)
            assert (taken.status, taken.code) == (409, "id_in_use"), "without the key the id is another's"


async def test_whoever_waits_hears_the_failure_and_the_key_is_free(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        both = [caller.start(picture(7), KEY, timeout=1.0) for _ in range(2)]
        replies = [await task for task in both]
        assert [(reply.status, reply.code) for reply in replies] == [(504, "deadline_exceeded")] * 2
        engine.release()
        await caller.until_empty()
        assert (await caller.run(picture(7), KEY, timeout=1.0)).status == 200
        engine.faults.out_of_memory = 1
        assert (await caller.run(picture(8), {"Idempotency-Key": "memory"})).status == 507
        assert (await caller.run(picture(8), {"Idempotency-Key": "memory"})).colors == [8]


async def test_a_job_that_somebody_cancels_frees_its_key(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        both = [caller.start(picture(7), KEY, id="mine") for _ in range(2)]
        await caller.until(lambda: interest(caller, "mine") == 2)
        await caller.cancel("mine")
        assert [(await task).code for task in both] == ["canceled"] * 2
        engine.release()
        assert (await caller.run(picture(7), KEY, id="mine")).colors == [7]


async def test_keys_are_forgotten_with_their_jobs(engine: FakeEngine) -> None:
    async with converter(engine.url, keep_jobs=0.5) as caller:
        first = await caller.run(picture(7), KEY)
        async with asyncio.timeout(20):
            while REPLAYED in (again := await caller.run(picture(7), KEY)).headers:
                pass
        assert again.document["id"] != first.document["id"]
        assert orders(engine) == 2


async def test_keys_make_room_for_each_other(engine: FakeEngine) -> None:
    async with converter(engine.url, keep_bytes=1_000_000) as caller:
        for key in "abc":
            await caller.run(picture(7), {"Idempotency-Key": key}, extra_data=LARGE)
        replays = {
            key: REPLAYED in (await caller.run(picture(7), {"Idempotency-Key": key}, extra_data=LARGE)).headers
            for key in "ca"
        }
        assert replays == {"c": True, "a": False}, "the eldest has gone"


async def test_who_comes_back_is_one_of_few_whose_bodies_are_read(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converter.api.native.RETURNS", 1)
    async with converter(engine.url) as caller:
        await caller.run(picture(7), KEY)
        arrived = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b'{"workflow": '
            await arrived.wait()
            yield json.dumps(picture(7)).encode() + b"}"

        headers = KEY | {"Content-Type": "application/json"}
        slow = asyncio.create_task(caller.ask("POST", "/v1/run", headers, data=slowly()))
        async with asyncio.timeout(20):
            while (refused := await caller.run(picture(7), KEY)).status == 200:
                pass
        assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
        arrived.set()
        assert (await slow).headers[REPLAYED] == "true"
        assert (await caller.run(picture(7), KEY)).status == 200


async def test_the_access_log_names_the_job(engine: FakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    async with converter(engine.url) as caller:
        await caller.run(picture(7), KEY, id="mine")
        await caller.run(picture(7), KEY, id="mine")
        await caller.cancel("mine")
        await caller.get("/v1/jobs/mine/events")
        await caller.get("/v1/jobs/nobody")
        lines = [vars(record) for record in caplog.records if record.message == "request"]
        assert [line.get("job") for line in lines] == ["mine"] * 4 + [None]


def interest(caller: Caller, job_id: str | None = None) -> int:
    """Callers who wait for a job, or for the only one that goes on."""
    live = caller.replica.jobs._live
    run = live.get(("", job_id)) if job_id else next(iter(live.values()), None)
    return 0 if run is None else run._interest
