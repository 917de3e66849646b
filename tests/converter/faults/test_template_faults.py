"""Whatever is wrong with an input of a template is told by its name, whichever way the caller is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.converter.faults.graphs import picture
from tests.converter.faults.replica import Caller, Stream, converter
from tests.converter.receiver import Receiver
from tests.fakes.engine import FakeEngine

GRAPH = {
    **picture(5),
    "3": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
}
DECLARED = """
[inputs.tint]
type = "integer"
node = "1.color"
default = 5

[inputs.photo]
type = "image"
node = "3.image"
optional = true
"""
PATH = "/v1/workflows/mine"
BAD = {"tint": -1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one template, which has a number and a file."""
    (tmp_path / "mine.json").write_text(json.dumps(GRAPH))
    (tmp_path / "mine.toml").write_text(DECLARED)
    return tmp_path


def judge(problem: Any) -> None:
    """The fault of BAD, by the name of its input."""
    assert (problem["status"], problem["code"]) == (422, "invalid_workflow")
    assert problem["detail"].startswith("/inputs/tint")
    assert [error["template_input"] for error in problem["node_errors"]["1"]["errors"]] == ["tint"]


async def hear(caller: Caller, inputs: Any) -> Any:
    """The last event's data."""
    headers = {"Accept": "text/event-stream"}
    async with caller.session.post(f"{caller.url}{PATH}", json={"inputs": inputs}, headers=headers) as response:
        last = await Stream(response).last()
        assert last.name == "error"
        return last.data


async def test_every_way_of_being_told_names_the_input(engine: FakeEngine, folder: Path) -> None:
    async with Receiver() as receiver, converter(engine.url, workflows_dir=folder, **receiver.settings) as caller:
        judge((await caller.post(PATH, {"inputs": BAD})).document)
        judge(await hear(caller, BAD))
        body = {"id": "later", "inputs": BAD, "webhook": receiver.url}
        assert (await caller.post(PATH, body, Prefer="respond-async")).status == 202
        judge((await receiver.next()).data["error"])
        judge((await caller.until_job("later", "failed"))["error"])


async def test_files_are_named_before_the_job_begins_and_within_it(engine: FakeEngine, folder: Path) -> None:
    async with converter(engine.url, workflows_dir=folder, fetch_origins="http://127.0.0.1:9") as caller:
        for photo in ({"part": "nowhere"}, "http://127.0.0.1:9/x.png"):
            reply = await caller.post(PATH, {"inputs": {"photo": photo}})
            assert (reply.status, reply.code) == (422, "invalid_input")
            assert reply.document["detail"].startswith("/inputs/photo: Input image of node 3 (LoadImage) ")
            assert reply.document["template_input"] == "photo"


async def test_a_file_that_the_engine_does_not_have_is_said_to_be_sent_otherwise(
    engine: FakeEngine, folder: Path
) -> None:
    async with converter(engine.url, workflows_dir=folder) as caller:
        reply = await caller.post(PATH, {"inputs": {"photo": "nofile.png"}})
        assert reply.status == 422
        detail = reply.document["detail"]
        assert detail.startswith("/inputs/photo: ")
        assert 'The engine has no such file; one is sent as a part of the request ({"part": NAME})' in detail
