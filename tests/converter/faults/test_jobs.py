"""Jobs that outlive their request: begun, found, watched by many, kept, and forgotten in time."""

import asyncio
import gc
import io
import json
import warnings

import pytest

from converter.core.order import Order
from converter.errors import Canceled
from tests.converter.faults.graphs import LARGE, loaded, passed_through, picture, text
from tests.converter.faults.phases import data_uri
from tests.converter.faults.replica import colors, converter, give_up
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of

ASYNC = {"Prefer": "respond-async"}


async def test_a_job_goes_on_without_its_caller_and_is_found(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        accepted = await caller.run(picture(0x123456), ASYNC)
        assert accepted.status == 202
        assert accepted.headers["Preference-Applied"] == "respond-async"
        place = accepted.headers["Location"]
        assert place == f"/v1/jobs/{accepted.document['id']}"
        await engine.until_held()
        running = await caller.until_job(accepted.document["id"], "running")
        assert "outputs" not in running
        assert running["progress"]["nodes_total"] == 2
        engine.release()
        done = await caller.until_job(accepted.document["id"], "succeeded")
        assert colors(done) == [0x123456]
        raw = await caller.get(place, Accept="image/png")
        assert color_of(raw.body) == 0x123456


async def test_a_failed_job_is_found_with_its_problem(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        graph = passed_through("TestRaise", kind="ValueError", message="no such luck")
        accepted = await caller.run(graph, ASYNC, id="luckless")
        assert accepted.status == 202
        failed = await caller.until_job("luckless", "failed")
        assert (failed["error"]["code"], failed["error"]["status"]) == ("execution_failed", 422)


@pytest.mark.parametrize("prefer", ["wait=0", "wait=0, respond-async", "WAIT=0"])
async def test_a_wait_that_is_over_leaves_a_job_behind(engine: FakeEngine, prefer: str) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        accepted = await caller.run(picture(0x123456), {"Prefer": prefer}, id="patient")
        assert accepted.status == 202
        assert "wait=0" in accepted.headers["Preference-Applied"]
        engine.release()
        assert colors(await caller.until_job("patient", "succeeded")) == [0x123456]


async def test_a_wait_that_is_long_enough_gets_the_answer(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        reply = await caller.run(picture(0x123456), {"Prefer": "wait=20", "Accept": "image/png"})
        assert (reply.status, color_of(reply.body)) == (200, 0x123456)


async def test_large_outputs_of_a_job_are_answered_again_and_again(engine: FakeEngine) -> None:
    async with converter(engine.url, keep_bytes=1_000_000) as caller:
        for color in (1, 2, 3):
            await caller.run(picture(color), ASYNC, id=f"job-{color}", extra_data=LARGE)
            await caller.until_job(f"job-{color}", "succeeded")
        for _ in range(2):
            assert colors(await caller.job("job-3")) == [3]
        oldest = await caller.get("/v1/jobs/job-1")
        assert (oldest.status, oldest.code) == (410, "expired"), "the bound on memory holds"


async def test_finished_jobs_expire_and_are_forgotten(engine: FakeEngine) -> None:
    async with converter(engine.url, keep_jobs=0.8) as caller:
        await caller.run(picture(1), ASYNC, id="brief")
        await caller.until_job("brief", "succeeded")
        codes: list[str] = []
        async with asyncio.timeout(20):
            while codes[-1:] != ["not_found"]:
                reply = await caller.get("/v1/jobs/brief")
                code = "kept" if reply.status == 200 else reply.code
                codes += [code] if codes[-1:] != [code] else []
        assert codes == ["kept", "expired", "not_found"]
        assert (await caller.run(picture(2), id="brief")).colors == [2], "the id may be used again"


async def test_an_id_that_is_known_is_in_use(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        running = caller.start(picture(1), id="taken")
        await engine.until_held()
        second = await caller.run(picture(2), id="taken")
        assert (second.status, second.code) == (409, "id_in_use")
        engine.release()
        assert (await running).status == 200
        third = await caller.run(picture(3), id="taken")
        assert (third.status, third.code) == (409, "id_in_use")
        assert len(engine.posted_prompts) == 2


async def test_an_id_that_failed_is_free_again(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        failing = passed_through("TestRaise", kind="ValueError", message="on purpose")
        for _ in range(2):
            reply = await caller.run(failing, id="stubborn")
            assert (reply.status, reply.code) == (422, "execution_failed")
        engine.hold()
        late = await caller.run(picture(1), id="stubborn", timeout=0.2)
        assert (late.status, late.document["retry"]) == (504, "same")
        again = caller.start(picture(2), id="stubborn")
        await caller.until_job("stubborn", "waiting", "queued", "running")
        engine.release()
        assert (await again).colors == [2]
        assert colors(await caller.job("stubborn")) == [2]
        assert (await caller.run(picture(3), id="stubborn")).code == "id_in_use"


async def test_the_id_of_a_failure_that_somebody_will_fetch_is_not(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        failing = passed_through("TestRaise", kind="ValueError", message="on purpose")
        await caller.run(failing, ASYNC, id="kept")
        await caller.until_job("kept", "failed")
        assert (await caller.run(picture(1), id="kept")).code == "id_in_use"
        assert (await caller.job("kept"))["error"]["code"] == "execution_failed"


async def test_a_caller_who_need_not_wait_has_an_hour(engine: FakeEngine) -> None:
    async with converter(engine.url, timeout=50, max_timeout=7200) as caller:
        engine.hold()
        expected = {"plain": 50, "longer": 6000, "capped": 7200, "async": 3600, "wait": 3600, "own": 7000}
        fields = {"longer": {"timeout": 6000}, "capped": {"timeout": 8000}, "own": {"timeout": 7000}}
        prefer = {"async": "respond-async", "wait": "wait=60", "own": "respond-async"}
        for name in expected:
            headers = {"Prefer": prefer[name]} if name in prefer else {}
            caller.start(picture(1), headers, id=name, **fields.get(name, {}))
        await caller.until(lambda: caller.tickets == len(expected))
        assert {name: caller.replica.jobs.find(name).order.timeout for name in expected} == expected
        engine.release()


async def test_an_hour_is_capped_as_every_timeout_is(engine: FakeEngine) -> None:
    async with converter(engine.url, timeout=50, max_timeout=60) as caller:
        accepted = await caller.run(picture(1), ASYNC)
        assert caller.replica.jobs.find(accepted.document["id"]).order.timeout == 60


async def test_generated_ids_carry_the_replicas_tag(engine: FakeEngine) -> None:
    async with converter(engine.url, public_url="https://pictures.example") as caller:
        first, second = [await caller.run(picture(color), ASYNC) for color in (1, 2)]
        tags = {reply.document["id"].split("-")[0] for reply in (first, second)}
        assert len(tags) == 1
        async with converter(engine.url) as other:
            assert (await other.run(picture(3))).document["id"].split("-")[0] not in tags
        assert first.headers["Location"] == f"https://pictures.example/v1/jobs/{first.document['id']}"


async def test_a_job_may_be_watched_from_any_point(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold("SaveImage")
        await caller.run(passed_through("TestPreview", 0x123456, steps=3), ASYNC, id="watched")
        async with caller.watch("watched") as first, caller.watch("watched") as second:
            await first.until("status", state="running")
            engine.release()
            whole, other = await first.last(), await second.last()
        assert whole == other
        assert colors(whole.data) == [0x123456]
        async with caller.watch("watched") as late:
            await late.last()
        assert [event.name for event in late.heard] == ["output", "result"]
        async with caller.watch("watched", after=late.heard[0].id) as later:
            await later.last()
        assert [event.name for event in later.heard] == ["result"]
        latest = await caller.get("/v1/jobs/watched/events", Last_Event_ID=str(whole.id))
        assert (latest.status, latest.body) == (204, b""), "an EventSource would else come back for ever"


async def test_of_two_watchers_one_may_leave(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        async with caller.events(picture(0x123456), id="shared") as owner:
            await owner.until("status", state="running")
            async with caller.watch("shared") as guest:
                await guest.until("status")
            async with caller.watch("shared") as guest:
                await guest.until("status")
                owner.response.close()
                await engine.until_held()
                engine.release()
                last = await guest.last()
        assert (last.name, colors(last.data)) == ("result", [0x123456])
        assert engine.interrupts == []


async def test_when_the_last_watcher_leaves_the_job_is_canceled(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        async with caller.events(picture(0x123456), id="shared") as owner:
            await owner.until("status", state="running")
            async with caller.watch("shared") as guest:
                await guest.until("status")
                owner.response.close()
        await engine.until(lambda: engine.interrupts)
        await caller.until_empty()
        assert engine.interrupts == [engine.posted_prompts[-1]]
        assert (await caller.job("shared"))["status"] == "canceled"


async def test_a_watcher_of_a_job_that_goes_on_by_itself_may_leave(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        await caller.run(picture(0x123456), ASYNC, id="steady")
        async with caller.watch("steady") as guest:
            await guest.until("status", state="running")
        engine.release()
        assert colors(await caller.until_job("steady", "succeeded")) == [0x123456]
        assert engine.interrupts == []


@pytest.mark.parametrize("path", ["/v1/jobs/nobody", "/v1/jobs/nobody/events", "/v1/jobs/..%2F..%2Fx"])
async def test_a_job_that_never_was(engine: FakeEngine, path: str) -> None:
    async with converter(engine.url) as caller:
        reply = await caller.get(path)
        assert (reply.status, reply.code) == (404, "not_found")
        assert (await caller.cancel("nobody")).status == 404


async def test_texts_count_among_what_is_kept(engine: FakeEngine) -> None:
    async with converter(engine.url, keep_bytes=200_000) as caller:
        for number in (1, 2, 3):
            await caller.run(text(str(number) * 90_000), ASYNC, id=f"text-{number}")
            await caller.until_job(f"text-{number}", "succeeded")
        statuses = [(await caller.get(f"/v1/jobs/text-{number}")).status for number in (1, 2, 3)]
        assert statuses == [410, 200, 200]


async def test_a_cancel_that_comes_too_late_breaks_no_answer(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        huge = {"extra_pnginfo": {"filler": "x" * 20_000_000}}
        body = io.BytesIO(json.dumps({"workflow": picture(0x123456), "id": "late", "extra_data": huge}).encode())
        headers = {"Accept": "image/png", "Content-Type": "application/json"}
        async with caller.session.post(f"{caller.url}/v1/run", data=body, headers=headers) as response:
            first = await response.content.readexactly(1000)
            canceled = await caller.cancel("late")
            assert (canceled.status, canceled.document["status"]) == (200, "succeeded")
            assert color_of(first + await response.read()) == 0x123456


async def test_who_watches_a_job_whose_caller_has_left_waits_for_no_delivery_but_their_own(engine: FakeEngine) -> None:
    async with converter(engine.url, deliveries=1) as caller:
        engine.hold()
        owner = caller.start(picture(0x123456), id="orphan", extra_data=LARGE)
        await engine.until_held()
        async with caller.watch("orphan") as stream:
            await stream.until("status", state="running")
            run = caller.replica.jobs.find("orphan")
            await give_up(owner)
            await caller.until(lambda: run.claimed)
            engine.release()
            last = await stream.last()
            assert (last.name, colors(last.data)) == ("result", [0x123456])


async def test_a_job_that_ends_before_anything_is_done_for_it_has_begun_nothing(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        order = Order("brief", loaded(data_uri(1)), timeout=10.0)
        with caller.replica.gate.knock() as ticket:
            run = caller.replica.jobs.begin(order, ticket, alone=False)
        run.leave(Canceled("at once"))
        with warnings.catch_warnings(record=True) as warned:
            await caller.until_empty()
            gc.collect()
        assert (run.state, engine.uploads, warned) == ("canceled", [], [])


async def test_a_stream_that_waits_to_deliver_is_not_silent(engine: FakeEngine) -> None:
    async with converter(engine.url, deliveries=1, sse_keepalive=0.1, keep_bytes=100_000) as caller:
        await caller.run(picture(0x123456), ASYNC, id="queued", extra_data=LARGE)
        await caller.until_job("queued", "succeeded")
        async with caller.replica.jobs._means.deliveries, caller.watch("queued") as stream:
            await stream.until_comments(2)
            caller.replica.jobs._means.deliveries.release()
            assert colors((await stream.last()).data) == [0x123456]
            await caller.replica.jobs._means.deliveries.acquire()


async def test_who_remembers_an_event_of_another_job_hears_all_of_this_one(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        await caller.run(picture(0x123456), ASYNC, id="again")
        await caller.until_job("again", "succeeded")
        async with caller.watch("again", after=10**9) as stream:
            assert (await stream.last()).name == "result"
