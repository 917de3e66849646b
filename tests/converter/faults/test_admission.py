"""Places: refused early and truthfully, given by priority, counted exactly, and returned on every path."""

import asyncio
import json
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientError

from converter.core import admission
from converter.core.events import QueueView
from converter.link.client import EngineClient
from tests.converter.faults.graphs import passed_through, picture
from tests.converter.faults.replica import Caller, Reply, converter, give_up
from tests.fakes.engine import FakeEngine


def retry_after(reply: Reply) -> int:
    """Whole seconds within the promised bounds."""
    seconds = int(reply.headers["Retry-After"])
    assert 1 <= seconds <= 120
    assert reply.document["retry_after"] == seconds
    assert reply.document["retry"] == "later"
    return seconds


async def fill(engine: FakeEngine, caller: Caller, count: int) -> list[asyncio.Task[Reply]]:
    """Held orders of the colours 1, 2, ..., in this order."""
    engine.hold()
    tasks: list[asyncio.Task[Reply]] = []
    held = caller.tickets
    for color in range(1, count + 1):
        tasks.append(caller.start(picture(color)))
        await caller.until(lambda: caller.tickets == held + len(tasks))
    return tasks


async def test_of_a_burst_exactly_those_beyond_capacity_are_refused(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        tasks = [caller.start(picture(color)) for color in range(1, 25)]
        slowest = 0.0
        loop = asyncio.get_running_loop()
        while sum(task.done() for task in tasks) < 8 or caller.tickets < 16:
            begun = loop.time()
            probe = await caller.get("/readyz")
            slowest = max(slowest, loop.time() - begun)
            assert probe.document["queue"]["capacity"] == 16
            assert (probe.status == 200) == (probe.document["state"] == "READY")
        assert slowest < 1
        busy = await caller.get("/readyz")
        assert (busy.status, busy.document["state"]) == (503, "BUSY")
        refused = [task.result() for task in tasks if task.done()]
        assert [(reply.status, reply.code) for reply in refused] == [(429, "queue_full")] * 8
        assert all(retry_after(reply) for reply in refused)
        assert {reply.document["queue"]["capacity"] for reply in refused} == {16}
        engine.release()
        replies = await asyncio.gather(*tasks)
        for color, reply in enumerate(replies, 1):
            assert reply.status == 429 or reply.colors == [color]
        await caller.until_ready()
        assert len(engine.posted_prompts) == 17


async def test_busy_begins_at_one_mark_and_ends_at_another(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=6, busy_at=4, ready_at=2) as caller:
        tasks = await fill(engine, caller, 3)
        assert (caller.state, caller.ready) == ("READY", True)
        tasks += await fill(engine, caller, 1)
        assert (caller.state, caller.ready) == ("BUSY", False)
        await give_up(tasks.pop())
        await caller.until(lambda: caller.tickets == 3)
        assert caller.state == "BUSY"
        await give_up(tasks.pop())
        await caller.until(lambda: caller.tickets == 2)
        assert (caller.state, caller.ready) == ("READY", True)
        engine.release()
        assert [(await task).status for task in tasks] == [200, 200]


async def test_busy_may_count_as_ready(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=2, busy_is_ready=True) as caller:
        tasks = await fill(engine, caller, 2)
        probe = await caller.get("/readyz")
        assert (probe.status, probe.document["state"]) == (200, "BUSY")
        engine.release()
        assert [(await task).status for task in tasks] == [200, 200]


async def test_negative_priorities_are_shed_once_the_replica_is_busy(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=4, busy_at=2, ready_at=1) as caller:
        tasks = await fill(engine, caller, 2)
        shed = await caller.run(picture(9), priority=-1)
        assert (shed.status, shed.code) == (429, "shed")
        retry_after(shed)
        tasks += [caller.start(picture(3))]
        await caller.until(lambda: caller.tickets == 3)
        engine.release()
        assert [(await task).status for task in tasks] == [200] * 3


async def test_who_waits_with_a_negative_priority_gives_way(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=4) as caller:
        tasks = await fill(engine, caller, 2)
        lesser = [caller.start(picture(10 + n), priority=-1 - n) for n in range(2)]
        await caller.until(lambda: caller.tickets == 4)
        better = caller.start(picture(20))
        evicted = await lesser[1]
        assert (evicted.status, evicted.code) == (429, "shed")
        retry_after(evicted)
        best = caller.start(picture(21), priority=3)
        assert (await lesser[0]).code == "shed"
        full = await caller.run(picture(22), priority=100)
        assert full.code == "queue_full", "nobody of 0 or more is ever evicted"
        engine.release()
        assert [(await task).colors for task in (*tasks, better, best)] == [[1], [2], [20], [21]]
        assert len(engine.posted_prompts) == 5


async def test_an_evicted_stream_ends_with_the_refusal(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=3) as caller:
        tasks = await fill(engine, caller, 2)
        async with caller.events(picture(10), priority=-1) as stream:
            await stream.until("status", state="waiting")
            better = caller.start(picture(20))
            last = await stream.last()
        assert (last.name, last.data["code"], last.data["status"]) == ("error", "shed", 429)
        engine.release()
        assert [(await task).status for task in (*tasks, better)] == [200] * 3


async def test_priorities_order_the_runs(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        tasks = await fill(engine, caller, 2)
        wanted = {30: 0, 31: 5, 32: -1, 33: 5, 34: 1}
        for color, priority in wanted.items():
            tasks.append(caller.start(picture(color), priority=priority))
            await caller.until(lambda: caller.tickets == len(tasks))
        engine.release()
        replies = [await task for task in tasks]
        colors = {reply.prompt_id: reply.colors[0] for reply in replies}
        assert [colors[id] for id in engine.executed_prompts[1:]] == [1, 2, 31, 33, 34, 30, 32]


async def test_a_deadline_that_can_not_be_met_is_refused_at_once(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        await caller.run(picture(0))
        await caller.run(passed_through("TestSleep", seconds=0.4))
        tasks = await fill(engine, caller, 4)
        late = await caller.run(picture(9), timeout=1.0)
        assert (late.status, late.code) == (429, "deadline_unmeetable")
        retry_after(late)
        patient = caller.start(picture(5), timeout=60)
        ahead_of_all = caller.start(picture(6), timeout=60, priority=1)
        await caller.until(lambda: caller.tickets == 6)
        engine.release()
        assert [(await task).status for task in (*tasks, patient, ahead_of_all)] == [200] * 6


async def test_with_nobody_ahead_an_order_is_always_admitted(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        await caller.run(picture(0))
        await caller.run(passed_through("TestSleep", seconds=0.4))
        engine.hold()
        late = await caller.run(picture(9), timeout=0.2)
        assert (late.status, late.code) == (504, "deadline_exceeded")
        engine.release()


async def test_the_measured_service_time_is_that_of_work_and_not_of_what_loads(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        await caller.run(picture(0))
        assert (await caller.get("/status")).document["service_seconds"] is None
        await caller.run(passed_through("TestSleep", seconds=0.3))
        assert 0.25 < (await caller.get("/status")).document["service_seconds"] < 3


async def test_strangers_in_the_engines_queue_count(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=3) as caller:
        engine.hold()
        strangers = [engine.put_stranger() for _ in range(2)]
        await caller.until(lambda: caller.replica.gate.queue()["strangers"] == 2)
        ours = caller.start(picture(1))
        await caller.until(lambda: caller.tickets == 1)
        refused = await caller.run(picture(2))
        assert (refused.status, refused.code, caller.state) == (429, "queue_full", "BUSY")
        assert refused.document["queue"]["strangers"] == 2
        engine.release()
        assert (await ours).colors == [1]
        assert set(strangers) <= set(engine.finished_prompts)
        await caller.until_ready()
        assert not engine.interrupts + engine.cancels


async def test_a_body_that_is_still_coming_holds_a_place(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=1) as caller:
        reader, writer = await slow_body(caller)
        refused = await caller.run(picture(1))
        assert (refused.status, refused.code) == (429, "queue_full")
        writer.close()
        await caller.until(lambda: not caller.tickets)
        assert (await caller.run(picture(2))).colors == [2]
        assert await reader.read() == b""


async def test_a_body_that_does_not_come_loses_its_place(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=1, body_timeout=0.2) as caller:
        reader, writer = await slow_body(caller)
        assert b" 408 " in await reader.readline()
        await caller.until(lambda: not caller.tickets)
        assert (await caller.run(picture(2))).colors == [2]
        writer.close()


async def slow_body(caller: Caller) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request whose body never comes, once it has a place."""
    address = urlsplit(caller.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"POST /v1/run HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
    await caller.until(lambda: caller.tickets == 1)
    return reader, writer


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"workflow": {}}', json.dumps({"workflow": {"1": 2}}).encode()])
async def test_orders_that_come_to_nothing_leave_no_ticket(engine: FakeEngine, body: bytes) -> None:
    async with converter(engine.url, capacity=1) as caller:
        for _ in range(3):
            reply = await caller.ask("POST", "/v1/run", {"Content-Type": "application/json"}, data=body)
            assert reply.status in (400, 422)
            assert not caller.tickets
        assert (await caller.run(picture(1))).status == 200


async def test_a_thousand_mixed_orders_leave_nothing(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=24) as caller:
        statuses: list[int] = []

        async def order(number: int) -> None:
            color = number % 0xFFFFFF
            match number % 8:
                case 0 | 1 | 2:
                    reply = await caller.run(picture(color), {"Accept": "image/png"})
                case 3:
                    reply = await caller.run(passed_through("TestRaise", color, kind="ValueError", message="no"))
                case 4:
                    reply = await caller.run(picture(color, save="NoSuchNode"))
                case 5:
                    reply = await caller.run({"1": {"class_type": "EmptyImage"}})
                case 6:
                    await caller.run(picture(color), {"Prefer": "respond-async"}, id=f"job-{number}")
                    reply = await caller.cancel(f"job-{number}")
                case _:
                    reply = await caller.run(picture(color), timeout=0.005)
            statuses.append(reply.status)

        async def work(numbers: range) -> None:
            for number in numbers:
                if number % 5:
                    await order(number)
                    continue
                task = asyncio.create_task(order(number))
                await asyncio.wait([task], timeout=0.001 * (number % 7))
                task.cancel()
                with suppress(asyncio.CancelledError, ClientError):
                    await task

        await asyncio.gather(*(work(range(start, 1000, 20)) for start in range(20)))
        await caller.until_empty()
        assert {200, 422, 504} <= set(statuses) <= {200, 404, 409, 422, 429, 504}
        assert caller.replica.gate.queue() == {"running": 0, "waiting": 0, "strangers": 0, "capacity": 24}
        await engine.until_idle()
        await caller.until_ready()


async def test_a_prompt_that_ends_while_the_queue_is_read_is_no_strangers(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, pass_on = asyncio.Event(), asyncio.Event()
    ask = EngineClient.queue

    async def answer_late(client: EngineClient, *, timeout: float | None = None) -> QueueView:
        view = await ask(client, timeout=timeout)
        if view.running and not pass_on.is_set():
            read.set()
            await pass_on.wait()
        return view

    async with converter(engine.url, capacity=1) as caller:
        counts: list[int] = []
        decide = caller.replica.gate.decide

        def note(event: admission.Event) -> None:
            if isinstance(event, admission.Strangers):
                counts.append(event.count)
            decide(event)

        monkeypatch.setattr(caller.replica.gate, "decide", note)
        monkeypatch.setattr(EngineClient, "queue", answer_late)
        [running] = await fill(engine, caller, 1)
        await read.wait()
        engine.release()
        assert (await running).status == 200
        await caller.until_empty()
        seen = len(counts)
        pass_on.set()
        await caller.until(lambda: len(counts) > seen)
        assert not any(counts)
