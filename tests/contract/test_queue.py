"""The queue: what it shows, how prompts leave it, and whom an interrupt hits."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.contract.graphs import fresh_graph, slow_graph
from tests.fakes.talker import Talker, labels


@dataclass
class Busy:
    """One slow prompt that runs, and two behind it."""

    talker: Talker
    running: str
    pending: list[str]

    async def queue(self) -> tuple[list[str], list[str]]:
        """Ids of this client's prompts, running and pending, the latter in the order of their numbers."""
        queue = await self.talker.get("/queue")
        lists = [
            sorted(queue[name], key=lambda item: (item[0], item[1])) for name in ("queue_running", "queue_pending")
        ]
        mine = {self.running, *self.pending}
        running, pending = [[item[1] for item in items if item[1] in mine] for items in lists]
        return running, pending

    async def end(self) -> None:
        """Empties the queue of this client's prompts."""
        await self.talker.tell("/queue", {"delete": self.pending})
        for prompt_id in (self.running, *self.pending):
            await self.talker.tell("/interrupt", {"prompt_id": prompt_id})
        while await self.queue() != ([], []):
            await self.talker.receive()


@pytest.fixture
async def busy(talker: Talker) -> AsyncIterator[Busy]:
    running = await talker.submit(slow_graph())
    while not isinstance(await talker.receive(), bytes):
        pass
    busy = Busy(talker, running, [await talker.submit(fresh_graph()) for _ in range(2)])
    yield busy
    await busy.end()


async def test_items_of_the_queue(busy: Busy) -> None:
    queue = await busy.talker.get("/queue")
    assert queue.keys() == {"queue_running", "queue_pending"}
    items = {item[1]: item for items in queue.values() for item in items}
    for prompt_id in (busy.running, *busy.pending):
        number, _, prompt, extra_data, outputs = items[prompt_id][:5]
        assert isinstance(number, int | float)
        assert prompt["1"]["class_type"] == "EmptyImage"
        assert extra_data["client_id"] == busy.talker.client_id
        assert outputs == ["2"]
    assert await busy.queue() == ([busy.running], busy.pending)
    remaining = (await busy.talker.get("/prompt"))["exec_info"]["queue_remaining"]
    assert remaining >= 3
    for prompt_id in (busy.running, *busy.pending):
        assert await busy.talker.record(prompt_id) is None


async def test_a_deleted_prompt_leaves_no_trace(busy: Busy) -> None:
    first, second = busy.pending
    assert await busy.talker.tell("/queue", {"delete": [first, "unknown"]}) == 200
    assert await busy.queue() == ([busy.running], [second])
    await busy.talker.tell("/interrupt", {"prompt_id": busy.running})
    heard = await busy.talker.follow(second)
    assert all(message["data"].get("prompt_id") != first for message in heard if isinstance(message, dict))
    assert await busy.talker.record(first) is None


async def test_a_running_prompt_is_not_deleted(busy: Busy) -> None:
    assert await busy.talker.tell("/queue", {"delete": [busy.running]}) == 200
    assert (await busy.queue())[0] == [busy.running]


async def test_an_interrupt_by_id_hits_the_running_prompt_alone(busy: Busy) -> None:
    assert await busy.talker.tell("/interrupt", {"prompt_id": busy.pending[0]}) == 200
    assert (await busy.queue())[0] == [busy.running]
    assert await busy.talker.tell("/interrupt", {"prompt_id": busy.running}) == 200
    heard = await busy.talker.follow(busy.running)
    assert labels(heard)[-2:] == ["execution_interrupted", "end"]
    [event] = [m["data"] for m in heard if isinstance(m, dict) and m["type"] == "execution_interrupted"]
    assert event.keys() >= {"prompt_id", "node_id", "node_type", "executed", "timestamp"}
    status = (await busy.talker.record(busy.running))["status"]
    assert (status["status_str"], status["completed"]) == ("error", False)
    assert status["messages"][-1][0] == "execution_interrupted"
    for prompt_id in busy.pending:
        assert labels(await busy.talker.follow(prompt_id))[-2:] == ["execution_success", "end"]


async def test_prompts_run_in_the_order_of_their_posts(talker: Talker) -> None:
    posted = [await talker.submit(fresh_graph()) for _ in range(4)]
    heard = [message for prompt_id in posted for message in await talker.follow(prompt_id)]
    assert [message["data"]["prompt_id"] for message in heard if message["type"] == "execution_start"] == posted


async def test_an_interrupt_while_idle_does_not_hit_the_next_prompt(talker: Talker) -> None:
    assert await talker.tell("/interrupt", {}) == 200
    _, heard = await talker.run(fresh_graph())
    assert labels(heard)[-2:] == ["execution_success", "end"]


async def test_cancel_by_id_where_there_is_such_a_route(busy: Busy) -> None:
    async def cancel(prompt_id: str) -> tuple[int, Any]:
        async with busy.talker.session.post(f"{busy.talker.url}/api/jobs/{prompt_id}/cancel") as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if answer.content_type == "application/json" else None

    status, body = await cancel(busy.pending[0])
    if status in (404, 405) and body is None:
        pytest.skip("this version has no such route")
    assert (status, body["cancelled"]) == (200, True)
    assert (await cancel(busy.running))[1]["cancelled"] is True
    assert labels(await busy.talker.follow(busy.running))[-2:] == ["execution_interrupted", "end"]
    assert labels(await busy.talker.follow(busy.pending[1]))[-2:] == ["execution_success", "end"]
    assert await busy.talker.record(busy.pending[0]) is None
