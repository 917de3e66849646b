"""POST /prompt: what is accepted, what is refused and in which shape, and what of it ends up in the history."""

import json
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest

from tests.contract.graphs import fresh_graph
from tests.fakes.recordings import Row, load
from tests.fakes.talker import Talker, labels


def refusals() -> list[Any]:
    """Every recorded body that a real ComfyUI refused, with its note, status and answer."""
    cases = []
    note = ""
    for row, answer in pairwise(row for row in load("03") if row["kind"] in ("note", "http_request", "http_response")):
        note = row.get("text", note)
        if row.get("method") == "POST" and row["path"] == "/prompt" and answer["status"] in (400, 500):
            cases.append(pytest.param(without_save_latent(row["body"]), answer, id=note))
    return cases


def without_save_latent(body: Any) -> Any:
    """The same with PreviewAny in the place of SaveLatent, which not every engine has."""
    text = json.dumps(body)
    if "SaveLatent" in text:
        text = text.replace("SaveLatent", "PreviewAny").replace('"samples"', '"source"')
    return json.loads(text)


def summary(answer: Any) -> Any:
    """Types alone: texts and the other parts differ with versions and lists of models."""
    nodes = answer["node_errors"].items()
    return answer["error"]["type"], {
        node: sorted({error["type"] for error in entry["errors"]}) for node, entry in nodes
    }


@pytest.mark.parametrize(("body", "recorded"), refusals())
async def test_what_comfyui_refuses_is_refused_in_its_words(talker: Talker, body: Any, recorded: Row) -> None:
    raw = body["raw"][2:-1].encode().decode("unicode_escape") if isinstance(body, dict) and "raw" in body else None
    sent = {"data": raw} if raw is not None else {"json": body}
    async with talker.session.post(f"{talker.url}/prompt", **sent) as answer:
        if recorded["status"] == 500:
            assert answer.status in (400, 500)
            return
        assert answer.status == 400
        ours = await answer.json()
    assert ours["error"].keys() >= {"type", "message", "details", "extra_info"}
    for entry in ours["node_errors"].values():
        assert entry.keys() >= {"errors", "dependent_outputs", "class_type"}
        for error in entry["errors"]:
            assert error.keys() >= {"type", "message", "details", "extra_info"}
    kind, nodes = summary(ours)
    alternatives = {"invalid_prompt": {"invalid_prompt", "missing_node_type"}}  # its name in the versions of 2026
    recorded_kind, recorded_nodes = summary(recorded["body"])
    assert kind in alternatives.get(recorded_kind, {recorded_kind})
    assert nodes == recorded_nodes or "dependency_cycle" in str(nodes)


async def test_a_success_is_answered_with_id_number_and_no_errors(talker: Talker) -> None:
    prompt_id = str(uuid4())
    status, answer = await talker.post(fresh_graph(), prompt_id=prompt_id)
    assert status == 200
    assert answer["prompt_id"] == prompt_id
    assert answer["node_errors"] == {}
    assert isinstance(answer["number"], int | float)
    await talker.follow(prompt_id)


async def test_json_is_parsed_whatever_the_content_type(talker: Talker) -> None:
    body = '{"prompt": {}}'
    async with talker.session.post(f"{talker.url}/api/prompt", data=body) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["type"] == "prompt_no_outputs"


async def test_an_invalid_output_is_dropped_with_200_and_the_rest_runs(talker: Talker) -> None:
    graph = fresh_graph()
    graph["6"] = {"class_type": "EmptyImage", "inputs": {"width": 0, "height": 8, "batch_size": 1, "color": 0}}
    graph["7"] = {"class_type": "PreviewImage", "inputs": {"images": ["6", 0]}}
    status, answer = await talker.post(graph)
    assert status == 200
    assert [error["type"] for error in answer["node_errors"]["6"]["errors"]] == ["value_smaller_than_min"]
    assert "7" in answer["node_errors"]["6"]["dependent_outputs"]
    await talker.follow(answer["prompt_id"])
    record = await talker.record(answer["prompt_id"])
    assert record["prompt"][4] == ["2"]
    assert list(record["outputs"]) == ["2"]


async def test_only_the_wanted_outputs_run(talker: Talker) -> None:
    graph = fresh_graph()
    graph["3"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    prompt_id, _ = await talker.run(graph, partial_execution_targets=["3"])
    assert list((await talker.record(prompt_id))["outputs"]) == ["3"]


async def test_the_record_of_a_success(talker: Talker) -> None:
    graph = fresh_graph()
    extra: dict[str, Any] = {"extra_pnginfo": {"workflow": {"nodes": []}}}
    prompt_id, heard = await talker.run(graph, extra_data=extra)
    record = await talker.record(prompt_id)
    number, recorded_id, prompt, extra_data, outputs = record["prompt"][:5]
    assert isinstance(number, int | float)
    assert (recorded_id, prompt, outputs) == (prompt_id, graph, ["2"])
    assert extra_data["client_id"] == talker.client_id
    assert extra_data["extra_pnginfo"] == extra["extra_pnginfo"]
    [shown] = [message["data"]["output"] for message in heard if message["type"] == "executed"]
    assert record["outputs"] == {"2": shown}
    status = record["status"]
    assert (status["status_str"], status["completed"]) == ("success", True)
    events = [event for event, _ in status["messages"]]
    assert events == ["execution_start", "execution_cached", "execution_success"]
    assert all(data["prompt_id"] == prompt_id and data["timestamp"] > 0 for _, data in status["messages"])
    assert record["meta"]["2"]["node_id"] == "2"


async def test_a_text_is_an_output_too(talker: Talker) -> None:
    text = f"hello {uuid4()}"
    prompt_id, _ = await talker.run({"1": {"class_type": "PreviewAny", "inputs": {"source": text}}})
    assert (await talker.record(prompt_id))["outputs"] == {"1": {"text": [text]}}


async def test_a_failing_node_ends_the_prompt_and_leaves_finished_outputs(talker: Talker) -> None:
    name = (await talker.upload(b"this is no picture", f"{uuid4()}.png"))["name"]
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "contract"}},
    }
    prompt_id, heard = await talker.run(graph)
    assert labels(heard)[-2:] == ["execution_error", "end"]
    [error] = [message["data"] for message in heard if message["type"] == "execution_error"]
    assert (error["node_id"], error["node_type"]) == ("1", "LoadImage")
    assert isinstance(error["exception_message"], str)
    assert "Error" in error["exception_type"]
    assert error.keys() >= {"executed", "traceback", "current_inputs", "current_outputs", "timestamp"}
    record = await talker.record(prompt_id)
    assert (record["status"]["status_str"], record["status"]["completed"]) == ("error", False)
    assert record["status"]["messages"][-1][0] == "execution_error"
    assert record["outputs"] == {}
