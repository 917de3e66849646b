"""Messages: which come, in which order, with which fields, and to whom."""

import json
import re
from typing import Any

import pytest

from tests.contract.graphs import fresh_graph, slow_graph
from tests.fakes.talker import Talker, labels, talk

FIELDS = {
    "execution_start": {"prompt_id", "timestamp"},
    "execution_cached": {"nodes", "prompt_id", "timestamp"},
    "executed": {"node", "display_node", "output", "prompt_id"},
    "execution_success": {"prompt_id", "timestamp"},
    "progress_state": {"prompt_id", "nodes"},
    "progress": {"value", "max", "prompt_id", "node"},
    "status": {"status"},
}


def of(messages: list[Any], kind: str) -> list[Any]:
    """The data of all messages of that type."""
    return [message["data"] for message in messages if isinstance(message, dict) and message["type"] == kind]


async def test_the_first_message_is_a_status_with_the_socket_id(engine_url: str) -> None:
    async with (
        talk(engine_url, client_id="first message") as talker,
        talker.session.ws_connect(f"{engine_url}/ws?clientId=another") as socket,
    ):
        message = await socket.receive_json(timeout=30)
        assert message["type"] == "status"
        assert message["data"]["sid"] == "another"
        assert isinstance(message["data"]["status"]["exec_info"]["queue_remaining"], int)


@pytest.mark.parametrize("path", ["/ws", "/api/ws"])
async def test_a_socket_without_an_id_gets_one(talker: Talker, path: str) -> None:
    async with talker.session.ws_connect(talker.url + path) as socket:
        message = await socket.receive_json(timeout=30)
        assert re.fullmatch("[0-9a-f]{32}", message["data"]["sid"])


async def test_a_run_in_order_with_all_fields(talker: Talker) -> None:
    prompt_id, heard = await talker.run(fresh_graph())
    types = [message["type"] for message in heard]
    node = ["progress_state", "executing"]
    assert [kind for kind in types if kind != "status"] == [
        "execution_start",
        "execution_cached",
        *node,
        "progress_state",
        *node,
        "executed",
        "progress_state",
        "execution_success",
        "executing",
    ]
    assert types[0] == "status"
    assert types[-2] == "status"
    for message in heard:
        if message["type"] in FIELDS:
            assert message["data"].keys() >= FIELDS[message["type"]], message
        assert message["data"].get("prompt_id", prompt_id) == prompt_id
    assert [data["node"] for data in of(heard, "executing")] == ["1", "2", None]
    assert of(heard, "execution_cached")[0]["nodes"] == []
    [output] = [data["output"] for data in of(heard, "executed")]
    assert [set(image) for image in output["images"]] == [{"filename", "subfolder", "type"}]
    states = [{node: entry["state"] for node, entry in data["nodes"].items()} for data in of(heard, "progress_state")]
    assert states[0] == {"1": "running"}
    assert states[-1] == {"1": "finished", "2": "finished"}
    entry = of(heard, "progress_state")[0]["nodes"]["1"]
    assert entry.keys() >= {"value", "max", "state", "node_id", "prompt_id", "display_node_id", "real_node_id"}


async def test_a_cached_run_names_the_same_files_and_executes_nothing(talker: Talker) -> None:
    graph = fresh_graph()
    _, first = await talker.run(graph)
    _, second = await talker.run(graph)
    assert labels(second) == ["execution_start", "execution_cached", "executed", "execution_success", "end"]
    assert sorted(of(second, "execution_cached")[0]["nodes"]) == ["1", "2"]
    assert of(second, "executed")[0]["output"] == of(first, "executed")[0]["output"]


async def test_a_prompt_is_told_to_its_own_client_only(talker: Talker) -> None:
    async with talk(talker.url) as other:
        prompt_id, _ = await talker.run(fresh_graph())
        own, heard = await other.run(fresh_graph())
        ids = {message["data"].get("prompt_id") for message in heard if isinstance(message, dict)}
        assert own in ids
        assert prompt_id not in ids


async def test_a_prompt_without_a_client_shows_everybody_its_progress_only(talker: Talker) -> None:
    async with talker.session.post(f"{talker.url}/prompt", json={"prompt": fresh_graph()}) as answer:
        prompt_id = (await answer.json())["prompt_id"]
    _, heard = await talker.run(fresh_graph())
    kinds = {message["type"] for message in heard if message["data"].get("prompt_id") == prompt_id}
    assert kinds == {"progress_state"}


async def test_feature_flags_are_answered_and_choose_the_layout_of_previews(talker: Talker) -> None:
    _, plain = await talker.run(slow_graph(2))
    previews = [message for message in plain if isinstance(message, bytes)]
    assert [message[:8] for message in previews] == [bytes([0, 0, 0, 1, 0, 0, 0, 2])] * 2
    assert all(message[8:].startswith(b"\x89PNG") for message in previews)
    async with talk(talker.url, flags={"supports_preview_metadata": True}) as modern:
        prompt_id, heard = await modern.run(slow_graph(2))
        previews = [message for message in heard if isinstance(message, bytes)]
        assert [message[:4] for message in previews] == [bytes([0, 0, 0, 4])] * 2
        for message in previews:
            length = int.from_bytes(message[4:8])
            metadata = json.loads(message[8 : 8 + length])
            assert metadata["node_id"] == "2"
            assert metadata["prompt_id"] == prompt_id
            assert metadata["image_type"] == "image/png"
            assert message[8 + length :].startswith(b"\x89PNG")


async def test_progress_goes_up_to_its_maximum(talker: Talker) -> None:
    _, heard = await talker.run(slow_graph(5))
    values = [data["value"] for data in of(heard, "progress")]
    assert values == sorted(values)
    assert {data["max"] for data in of(heard, "progress")} == {5}
    assert {data["node"] for data in of(heard, "progress")} == {"2"}


async def test_who_connects_in_the_middle_of_a_run_learns_the_node_and_then_the_rest(talker: Talker) -> None:
    prompt_id = await talker.submit(slow_graph())
    while not isinstance(await talker.receive(), bytes):
        pass
    await talker.socket.close()
    async with talker.session.ws_connect(f"{talker.url}/ws?clientId={talker.client_id}", max_msg_size=0) as socket:
        talker.socket = socket
        assert (await talker.receive())["type"] == "status"
        message = await talker.receive()
        assert (message["type"], message["data"]["node"]) == ("executing", "2")
        assert await talker.tell("/interrupt", {"prompt_id": prompt_id}) == 200
        assert labels(await talker.follow(prompt_id))[-2:] == ["execution_interrupted", "end"]
