"""Each fault of the fake engine does what it says, strikes as often as it says, and leaves the rest healthy."""

import asyncio
import json

import aiohttp
import pytest

from tests.fakes.engine import FakeEngine
from tests.fakes.faults import Faults
from tests.fakes.pictures import color_of
from tests.fakes.talker import image_graph, labels, talk

FRESH = ["execution_start", "execution_cached", "executing", "executing", "executed", "execution_success", "end"]


async def test_late_history_leaves_the_prompt_running_until_the_record_is_there() -> None:
    async with FakeEngine(faults=Faults(late_history=0.2)) as engine, talk(engine.url) as talker:
        prompt_id = await talker.submit(image_graph(1))
        while (message := await talker.receive())["type"] != "execution_success":
            pass
        assert message["data"]["prompt_id"] == prompt_id
        assert await talker.record(prompt_id) is None
        assert [item[1] for item in (await talker.get("/queue"))["queue_running"]] == [prompt_id]
        await talker.follow(prompt_id)
        assert (await talker.record(prompt_id))["status"]["completed"] is True


async def test_missing_history_happens_once() -> None:
    async with FakeEngine(faults=Faults(missing_history=1)) as engine, talk(engine.url) as talker:
        lost, _ = await talker.run(image_graph(1))
        kept, _ = await talker.run(image_graph(2))
        assert await talker.record(lost) is None
        assert await talker.record(kept) is not None


async def test_evicted_history_is_empty() -> None:
    async with FakeEngine() as engine, talk(engine.url) as talker:
        prompt_id, _ = await talker.run(image_graph(1))
        engine.clear_history()
        assert await talker.record(prompt_id) is None


async def test_success_may_come_before_the_answer() -> None:
    async with FakeEngine(faults=Faults(success_before_answer=1)) as engine, talk(engine.url) as talker:
        posting = asyncio.create_task(talker.submit(image_graph(1)))
        await engine.until(lambda: engine.posted_prompts)
        heard = await talker.follow(engine.posted_prompts[0])
        assert labels(heard) == FRESH
        assert await posting == engine.posted_prompts[0]


async def test_a_lost_answer_is_a_prompt_that_runs() -> None:
    async with FakeEngine(faults=Faults(answer_lost=1)) as engine, talk(engine.url) as talker:
        with pytest.raises(aiohttp.ClientError):
            await talker.submit(image_graph(1))
        [prompt_id] = engine.posted_prompts
        await talker.follow(prompt_id)
        assert (await talker.record(prompt_id))["status"]["status_str"] == "success"


async def test_the_process_may_end_in_the_middle_of_a_post() -> None:
    async with FakeEngine(faults=Faults(exit_on_post=1)) as engine, talk(engine.url) as talker:
        with pytest.raises(aiohttp.ClientError):
            await talker.submit(image_graph(1))
        await engine.restart()
        async with talk(engine.url) as again:
            assert (await again.get("/prompt"))["exec_info"]["queue_remaining"] == 0
            await again.run(image_graph(1))


async def test_post_500_queues_nothing() -> None:
    async with FakeEngine(faults=Faults(post_500=1)) as engine, talk(engine.url) as talker:
        async with talker.session.post(f"{engine.url}/prompt", json={"prompt": image_graph(1)}) as answer:
            assert answer.status == 500
            assert (await answer.text()).startswith("500 Internal Server Error")
        assert engine.posted_prompts == []
        await talker.run(image_graph(1))


async def test_refused_connections_leave_the_others_alone() -> None:
    async with FakeEngine() as engine, talk(engine.url) as talker, aiohttp.ClientSession() as stranger:
        engine.faults.refuse_connections = True
        with pytest.raises(aiohttp.ClientError):
            await stranger.get(f"{engine.url}/queue")
        await talker.socket.ping()
        engine.faults.refuse_connections = False
        async with stranger.get(f"{engine.url}/queue") as answer:
            assert answer.status == 200


@pytest.mark.parametrize("index", [1, 5, 13])
async def test_the_socket_is_cut_in_place_of_one_message(index: int) -> None:
    async with FakeEngine() as engine, talk(engine.url) as talker:
        engine.faults.drop_socket_at = index
        prompt_id = await talker.submit(image_graph(1))
        for _ in range(index - 1):
            await talker.receive()
        with pytest.raises(ConnectionError):
            await talker.receive()
        await engine.until(lambda: prompt_id in engine.finished_prompts)
        assert engine.faults == Faults()
        async with talk(engine.url, client_id=talker.client_id) as again:
            await again.run(image_graph(2))


async def test_a_deaf_socket_gets_its_first_status_and_nothing_more() -> None:
    async with FakeEngine(faults=Faults(deaf_socket=True)) as engine, talk(engine.url) as deaf:
        prompt_id = await deaf.submit(image_graph(1))
        await engine.until(lambda: prompt_id in engine.finished_prompts)
        await engine.sockets.flush()
        with pytest.raises(TimeoutError):
            await deaf.socket.receive(timeout=0.05)
        async with talk(engine.url) as hearing:
            await hearing.run(image_graph(2))


async def test_the_newer_twin_goes_deaf_when_the_older_one_closes() -> None:
    async with (
        FakeEngine() as engine,
        talk(engine.url, client_id="twin") as older,
        talk(engine.url, client_id="twin") as newer,
    ):
        await newer.run(image_graph(1))
        await older.socket.close()
        await engine.until(lambda: len(engine.sockets.open) == 1)
        prompt_id = await newer.submit(image_graph(2))
        await engine.until(lambda: prompt_id in engine.finished_prompts)
        await engine.sockets.flush()
        with pytest.raises(TimeoutError):
            await newer.socket.receive(timeout=0.05)


async def test_a_dead_worker_keeps_its_prompt_running_for_ever() -> None:
    async with FakeEngine(faults=Faults(dead_worker="running")) as engine, talk(engine.url) as talker:
        first = await talker.submit(image_graph(1))
        await engine.until(lambda: engine.executed_prompts == [first])
        second = await talker.submit(image_graph(2))
        queue = await talker.get("/queue")
        assert [[item[1] for item in items] for items in queue.values()] == [[first], [second]]
        await engine.crash()
        engine.faults.dead_worker = ""
        await engine.restart()
        async with talk(engine.url) as again:
            assert (await again.get("/queue"))["queue_running"] == []
            await again.run(image_graph(3))


async def test_a_worker_that_takes_nothing_leaves_prompts_pending() -> None:
    async with FakeEngine(faults=Faults(dead_worker="pending")) as engine, talk(engine.url) as talker:
        prompt_id = await talker.submit(image_graph(1))
        queue = await talker.get("/queue")
        assert [[item[1] for item in items] for items in queue.values()] == [[], [prompt_id]]
        assert engine.executed_prompts == []


async def test_duplicate_events_come_twice_in_order() -> None:
    async with FakeEngine(faults=Faults(duplicate_events=True)) as engine, talk(engine.url) as talker:
        _, heard = await talker.run(image_graph(1))
        assert labels(heard) == [label for label in FRESH[:-1] for _ in range(2)] + ["end"]


async def test_foreign_events_bear_other_ids_or_none() -> None:
    async with FakeEngine(faults=Faults(foreign_events=True)) as engine, talk(engine.url) as talker:
        prompt_id, heard = await talker.run(image_graph(1))
        own = [
            message for message in heard if isinstance(message, dict) and message["data"].get("prompt_id") == prompt_id
        ]
        assert labels(own) == FRESH
        assert {int.from_bytes(message[:4]) for message in heard if isinstance(message, bytes)} == {1, 3}
        others = {message["data"].get("prompt_id") for message in heard if isinstance(message, dict)} - {
            prompt_id,
            None,
        }
        assert len(others) > 1


async def test_huge_messages_come_whole() -> None:
    async with FakeEngine(faults=Faults(huge_message=8_000_000)) as engine, talk(engine.url) as talker:
        _, heard = await talker.run(image_graph(1))
        assert any(isinstance(message, bytes) and len(message) > 8_000_000 for message in heard)
        assert any(isinstance(message, dict) and message["type"] == "logs" for message in heard)


async def test_nan_is_sent_bare() -> None:
    async with FakeEngine(faults=Faults(nan_in_json=True)) as engine, talk(engine.url) as talker:
        prompt_id, _ = await talker.run(image_graph(1))
        async with talker.session.get(f"{engine.url}/history/{prompt_id}") as answer:
            raw = await answer.text()
        with pytest.raises(ValueError, match="strict"):
            json.loads(raw, parse_constant=lambda name: strict(name))


def strict(name: str) -> None:
    raise ValueError(f"strict: {name}")


async def test_out_of_memory_reads_as_comfyui_writes_it() -> None:
    async with FakeEngine(faults=Faults(out_of_memory=1)) as engine, talk(engine.url) as talker:
        prompt_id, heard = await talker.run(image_graph(1))
        [error] = [message["data"] for message in heard if message["type"] == "execution_error"]
        assert error["exception_type"] == "torch.OutOfMemoryError"
        assert (await talker.record(prompt_id))["status"]["status_str"] == "error"
        await talker.run(image_graph(1))


@pytest.mark.parametrize(
    "fault", [Faults(view_wrong_length=1), Faults(view_truncated=1), Faults(view_missing=1), Faults(view_slow=0.01)]
)
async def test_files_are_broken_once(fault: Faults) -> None:
    async with FakeEngine(faults=fault) as engine, talk(engine.url) as talker:
        prompt_id, _ = await talker.run(image_graph(0x1234))
        [image] = (await talker.record(prompt_id))["outputs"]["2"]["images"]
        if fault.view_wrong_length or fault.view_truncated:
            with pytest.raises(aiohttp.ClientPayloadError):
                await talker.view(image)
        elif fault.view_missing:
            assert (await talker.view(image))[0] == 404
        status, data = await talker.view(image)
        assert (status, color_of(data)) == (200, 0x1234)


async def test_an_old_engine_interrupts_whatever_runs() -> None:
    async with FakeEngine(faults=Faults(ignore_prompt_id_on_interrupt=True)) as engine, talk(engine.url) as talker:
        engine.hold()
        prompt_id = await talker.submit(image_graph(1))
        await engine.until_held(prompt_id)
        await talker.tell("/interrupt", {"prompt_id": "another"})
        assert "execution_interrupted" in labels(await talker.follow(prompt_id))
        assert engine.interrupts == ["another"]


async def test_an_interrupt_may_hit_the_prompt_after_the_one_that_it_names() -> None:
    async with FakeEngine(faults=Faults(stray_interrupt=1)) as engine, talk(engine.url) as talker:
        engine.hold()
        named = await talker.submit(image_graph(1))
        await engine.until_held(named)
        following = await talker.submit(image_graph(2))
        await talker.tell("/interrupt", {"prompt_id": named})
        engine.release()
        assert labels(await talker.follow(named)) == FRESH
        assert "execution_interrupted" in labels(await talker.follow(following))


async def test_a_path_may_be_broken_and_the_others_are_not() -> None:
    async with FakeEngine(faults=Faults(broken_path="/history")) as engine, talk(engine.url) as talker:
        await talker.run(image_graph(1))
        async with aiohttp.ClientSession() as session:
            for path in ("/history", "/api/history/x"):
                async with session.get(f"{engine.url}{path}") as response:
                    assert response.status == 500
            async with session.get(f"{engine.url}/queue") as response:
                assert response.status == 200


async def test_records_may_be_evicted_as_soon_as_they_are_written() -> None:
    async with FakeEngine() as engine, talk(engine.url) as talker:
        first, _ = await talker.run(image_graph(1))
        engine.faults.evicted_history = 1
        second, _ = await talker.run(image_graph(2))
        await engine.until_idle()
        assert not engine.prompts.history.keys() & {first, second}


async def test_an_interrupt_by_id_hits_only_that_prompt() -> None:
    async with FakeEngine() as engine, talk(engine.url) as talker:
        engine.hold()
        prompt_id = await talker.submit(image_graph(1))
        await engine.until_held(prompt_id)
        await talker.tell("/interrupt", {"prompt_id": "another"})
        engine.release()
        assert labels(await talker.follow(prompt_id)) == FRESH


async def test_a_hold_may_be_deaf_to_interrupts_until_the_next_node() -> None:
    async with FakeEngine() as engine, talk(engine.url) as talker:
        engine.hold("EmptyImage", interruptible=False)
        prompt_id = await talker.submit(image_graph(1))
        await engine.until_held(prompt_id)
        await talker.tell("/interrupt", {"prompt_id": prompt_id})
        assert engine.gate.holding == [prompt_id]
        engine.release()
        heard = await talker.follow(prompt_id)
        [event] = [message["data"] for message in heard if message["type"] == "execution_interrupted"]
        assert event["node_id"] == "2"


async def test_strangers_queue_and_others_may_clear_it() -> None:
    async with FakeEngine() as engine, talk(engine.url) as talker:
        engine.hold()
        stranger = engine.put_stranger()
        await engine.until_held(stranger)
        mine = await talker.submit(image_graph(1))
        urgent = engine.put_stranger(number=-1)
        queue = await talker.get("/queue")
        assert sorted(item[:2] for item in queue["queue_pending"]) == [[-1, urgent], [1, mine]]
        engine.clear_queue()
        engine.release()
        await engine.until_idle()
        assert engine.executed_prompts == [stranger]


async def test_a_stranger_without_a_client_id_is_heard_by_all() -> None:
    async with FakeEngine() as engine, talk(engine.url) as talker:
        stranger = engine.put_stranger(client_id=None)
        while (message := await talker.receive())["type"] == "status":
            pass
        assert (message["type"], message["data"]["prompt_id"]) == ("progress_state", stranger)


async def test_a_crash_forgets_everything_and_a_restart_listens_again() -> None:
    async with FakeEngine() as engine, talk(engine.url) as talker:
        prompt_id, _ = await talker.run(image_graph(1))
        url = engine.url
        await engine.crash()
        with pytest.raises(ConnectionError):
            await talker.receive()
        with pytest.raises(aiohttp.ClientConnectorError):
            await talker.get("/queue")
        await engine.restart()
        assert engine.url == url
        async with talk(engine.url) as again:
            assert await again.record(prompt_id) is None
            _, answer = await again.post(image_graph(1))
            assert answer["number"] == 0
            heard = await again.follow(answer["prompt_id"])
            [output] = [message["data"]["output"] for message in heard if message["type"] == "executed"]
            assert output["images"][0]["filename"] == "contract_00002_.png"
        assert engine.executed_prompts == [prompt_id, answer["prompt_id"]]


async def test_a_node_may_end_the_process() -> None:
    async with FakeEngine() as engine, talk(engine.url) as talker:
        graph = image_graph(1)
        graph["3"] = {"class_type": "TestExit", "inputs": {"value": ["1", 0]}}
        graph["2"]["inputs"]["images"] = ["3", 0]
        prompt_id = await talker.submit(graph)
        with pytest.raises(ConnectionError):
            await talker.follow(prompt_id)
        await engine.until(lambda: not engine.alive)
        with pytest.raises(aiohttp.ClientConnectorError):
            await talker.get("/queue")
        await engine.restart()
        assert (await talker.get("/queue"))["queue_running"] == []


async def test_a_blocked_output_is_a_success_without_output() -> None:
    async with FakeEngine() as engine, talk(engine.url) as talker:
        graph = image_graph(1)
        graph["3"] = {
            "class_type": "TestExecutionBlocker",
            "inputs": {"input": ["1", 0], "block": True, "verbose": True},
        }
        graph["2"]["inputs"]["images"] = ["3", 0]
        prompt_id, heard = await talker.run(graph)
        assert labels(heard)[-3:] == ["execution_error", "execution_success", "end"]
        record = await talker.record(prompt_id)
        assert (record["status"]["status_str"], record["outputs"]) == ("success", {})


async def test_the_versions_of_2026_want_canonical_ids_and_cancel_by_id() -> None:
    async with FakeEngine(version="0.38.1") as engine, talk(engine.url) as talker:
        status, answer = await talker.post(image_graph(1), prompt_id="mine")
        assert (status, answer["error"]["type"]) == (400, "invalid_prompt_id")
        engine.hold()
        running = await talker.submit(image_graph(1))
        pending = await talker.submit(image_graph(2))
        await engine.until_held(running)
        for prompt_id, expected in ((pending, True), (running, True), (pending, False)):
            async with talker.session.post(f"{engine.url}/api/jobs/{prompt_id}/cancel") as cancel:
                assert await cancel.json() == {"cancelled": expected}
        assert "execution_interrupted" in labels(await talker.follow(running))
        assert engine.executed_prompts == [running]


async def test_held_paths_are_answered_after_release() -> None:
    async with FakeEngine() as engine, talk(engine.url) as talker:
        engine.faults.held_path = "/prompt"
        posting = asyncio.create_task(talker.submit(image_graph(1)))
        await engine.until(lambda: engine.asked("POST", "/prompt"))
        assert (await talker.get("/queue"))["queue_pending"] == []
        assert engine.posted_prompts == []
        engine.faults.held_path = ""
        engine.release()
        prompt_id = await posting
        assert engine.posted_prompts == [prompt_id]
        await talker.follow(prompt_id)
