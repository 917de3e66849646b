"""What the engine refuses, what fails in it, and what others do to it: told in one shape, and nobody else harmed."""

import json
from typing import Any

import pytest

from tests.converter.faults.graphs import Graph, passed_through, picture, two_pictures
from tests.converter.faults.replica import Reply, converter
from tests.fakes.engine import FakeEngine

VERSIONS = ["0.3.64", "0.38.1"]


def problem(reply: Reply) -> Any:
    """The problem document, known to be in the one shape that all have, without a word of the server's inside."""
    document = reply.document
    assert reply.headers["Content-Type"].startswith("application/problem+json")
    assert {"type", "title", "status", "code", "detail", "retry", "request_id"} <= document.keys()
    assert document["status"] == reply.status
    assert document["request_id"] == reply.headers["X-Request-Id"]
    assert (reply.headers.get("x-should-retry") == "false") == (document["retry"] == "never")
    told = json.dumps(document).lower()
    assert not any(word in told for word in ("traceback", "/comfyui/", "execution.py", "/root", "/home", "/tmp"))
    for entry in document.get("node_errors", {}).values():
        assert entry.keys() == {"class_type", "errors"}
        assert all({"type", "message", "details"} <= error.keys() for error in entry["errors"])
    return document


REFUSED: dict[str, tuple[Graph, list[str]]] = {
    "unknown class": (picture(1, save="NoSuchNode"), ["2"]),
    "missing input": ({"1": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}}, ["1"]),
    "wrong value": (picture(-1), ["1"]),
    "wrong type": ({**picture(1), "1": {"class_type": "EmptyImage", "inputs": {"color": "red"}}}, ["1"]),
    "no output": ({"1": picture(1)["1"]}, []),
    "slot out of range": ({**picture(1), "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 7]}}}, ["2"]),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", REFUSED)
async def test_what_the_engine_refuses_is_told_node_by_node(case: str, version: str) -> None:
    graph, nodes = REFUSED[case]
    async with FakeEngine(version=version) as engine, converter(engine.url) as caller:
        reply = await caller.run(graph)
        assert (reply.status, reply.code) == (422, "invalid_workflow")
        assert list(problem(reply)["node_errors"]) == nodes
        assert len(engine.posted_prompts) == 1
        assert (await caller.run(picture(1))).status == 200


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_misspelt_class_is_told_with_the_one_that_was_meant(version: str) -> None:
    async with FakeEngine(version=version) as engine, converter(engine.url) as caller:
        told = problem(await caller.run(picture(1, save="SaveImge")))
        assert told["detail"].endswith("did you mean SaveImage, or is a custom node not installed?")


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_the_engine_would_run_in_part_is_withdrawn(version: str) -> None:
    async with FakeEngine(version=version) as engine, converter(engine.url) as caller:
        engine.hold()
        neighbour = caller.start(picture(1))
        await engine.until_held()
        graph = two_pictures(2, 3)
        graph["3"]["inputs"]["color"] = -1
        reply = await caller.run(graph)
        assert (reply.status, reply.code) == (422, "invalid_workflow")
        assert list(problem(reply)["node_errors"]) == ["3"]
        await engine.until(lambda: not engine.prompts.pending)
        engine.release()
        assert (await neighbour).colors == [1]
        await engine.until_idle()
        assert engine.posted_prompts[2] not in engine.executed_prompts


async def test_what_runs_in_part_at_once_is_interrupted(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        graph = two_pictures(2, 3)
        graph["3"]["inputs"]["color"] = -1
        reply = await caller.run(graph)
        assert (reply.status, reply.code) == (422, "invalid_workflow")
        await engine.until(lambda: engine.interrupts)
        await caller.until_empty()
        assert engine.interrupts == [engine.posted_prompts[1]]


@pytest.mark.parametrize("lost", [False, True])
async def test_a_node_that_raises_is_named_without_the_servers_inside(engine: FakeEngine, lost: bool) -> None:
    async with converter(engine.url) as caller:
        if lost:
            engine.deafen()
        message = "no such file: '/comfyui/models/secret stuff/model.safetensors'"
        reply = await caller.run(passed_through("TestRaise", kind="ValueError", message=message))
        assert (reply.status, reply.code) == (422, "execution_failed")
        document = problem(reply)
        assert (document["node_id"], document["class_type"]) == ("9", "TestRaise")
        assert document["exception_type"] == "ValueError"
        assert "model.safetensors" in document["detail"]
        assert "secret" not in document["detail"]


async def test_an_output_that_is_blocked_with_a_message_is_no_success(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        graph = picture(1)
        graph["9"] = {"class_type": "TestExecutionBlocker", "inputs": {"input": ["1", 0], "block": True}}
        graph["9"]["inputs"]["verbose"] = True
        graph["2"]["inputs"]["images"] = ["9", 0]
        reply = await caller.run(graph)
        assert (reply.status, reply.code) == (422, "execution_failed")
        assert "Blocked" in problem(reply)["detail"]


@pytest.mark.parametrize("lost", [False, True])
async def test_a_full_memory_is_told_and_freed(engine: FakeEngine, lost: bool) -> None:
    async with converter(engine.url) as caller:
        if lost:
            engine.deafen()
        engine.faults.out_of_memory = 1
        reply = await caller.run(picture(1))
        assert (reply.status, reply.code) == (507, "out_of_memory")
        assert problem(reply)["node_id"] == "1"
        await engine.until(lambda: engine.frees)
        assert engine.frees == [{"unload_models": True, "free_memory": True}]
        assert (await caller.run(picture(1))).status == 200


async def test_the_callers_own_text_is_no_memory_trouble(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        graph = passed_through("TestRaise", kind="ValueError", message="CUDA out of memory: OutOfMemoryError")
        assert (await caller.run(graph)).code == "execution_failed"
        await caller.until_empty()
        assert engine.frees == []


@pytest.mark.parametrize("lost", [False, True])
async def test_a_prompt_that_somebody_interrupts(engine: FakeEngine, lost: bool) -> None:
    async with converter(engine.url) as caller:
        if lost:
            engine.deafen()
        engine.hold()
        running = caller.start(picture(1))
        engine.interrupt(await engine.until_held())
        reply = await running
        assert (reply.status, reply.code) == (409, "canceled")
        assert "interrupted" in problem(reply)["detail"]
        engine.release()


@pytest.mark.usefixtures("brisk")
async def test_a_queue_that_somebody_clears(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        running = caller.start(picture(1))
        await engine.until_held()
        pending = caller.start(picture(2))
        await engine.until(lambda: len(engine.posted_prompts) == 3)
        waiting = caller.start(picture(3))
        await caller.until(lambda: caller.tickets == 3)
        engine.clear_queue()
        reply = await pending
        assert (reply.status, reply.code) == (409, "canceled")
        assert "someone else removed it" in problem(reply)["detail"]
        engine.release()
        assert [(await task).colors for task in (running, waiting)] == [[1], [3]]


async def test_strangers_are_never_touched(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold()
        strangers = [engine.put_stranger(client_id=name) for name in ("first", None)]
        await engine.until_held(strangers[0])
        orders = [caller.start(picture(color), id=f"job-{color}", timeout=60) for color in (1, 2, 3)]
        await engine.until(lambda: len(engine.posted_prompts) == 5)
        for color in (1, 2, 3):
            await caller.cancel(f"job-{color}")
        assert [(await order).status for order in orders] == [409] * 3
        await caller.until_empty()
        engine.release()
        await engine.until_idle()
        assert set(strangers) <= set(engine.finished_prompts)
        assert [engine.prompts.history[id]["status"]["status_str"] for id in strangers] == ["success"] * 2
        assert engine.interrupts == []
