"""Templates and `--set` on the command line: typed as the service says, files sent along, mistakes told at once."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from converter.caller.call import Call, Exit, run
from tests.converter.client.scripted import (
    OUTPUT,
    Scripted,
    playing,
    problem,
    result,
    saying,
    serving,
    telling,
)

DESCRIBED = {
    "name": "paint",
    "inputs": {
        "properties": {
            "prompt": {"type": "string"},
            "steps": {"type": "integer"},
            "photo": {"anyOf": [], "x-type": "image"},
            "mask": {"anyOf": [], "x-type": "image"},
        }
    },
}
DONE = playing(("result", result(OUTPUT)))


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a picture and a workflow in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes(b"PHOTO")
    graph = {"3": {"class_type": "A", "inputs": {"steps": 20, "image": "x.png"}}, "4": {"class_type": "B"}}
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    return tmp_path


async def call(work: str, server: Scripted, *words: str, **options: Any) -> Exit:
    return await asyncio.to_thread(run, Call(work, server.url, set=words, **options))


async def test_a_template_is_run_with_inputs_of_its_types() -> None:
    async with serving([telling(DESCRIBED), DONE]) as server:
        assert await call("paint", server, "prompt=1", "steps=20") == Exit.OK
    asked, ordered = server.asked
    assert asked.path == ordered.path == "/v1/workflows/paint"
    assert ordered.document["inputs"] == {"prompt": "1", "steps": 20}


async def test_a_template_without_inputs_is_not_asked_about() -> None:
    async with serving(DONE) as server:
        assert await call("paint", server) == Exit.OK
    [ordered] = server.asked
    assert ordered.document["inputs"] == {}


async def test_files_are_sent_beside_the_inputs_and_once_each() -> None:
    async with serving([telling(DESCRIBED), DONE]) as server:
        assert await call("paint", server, "photo=@photo.png", "mask=@photo.png") == Exit.OK
    body = server.asked[1].body
    assert body.count(b"PHOTO") == 1
    assert b'"photo": {"part": "file-1"}, "mask": {"part": "file-1"}' in body
    assert b"Content-Type: image/png" in body


async def test_a_file_that_is_here_and_not_sent_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("photo=photo.png", f"mask={'iVBO' * 2000}", "prompt=photo.png")
    async with serving([telling(DESCRIBED), DONE]) as server:
        assert await call("paint", server, *words) == Exit.OK
    assert server.asked[1].document["inputs"]["photo"] == "photo.png"
    told = "--set photo=photo.png names a file of the engine's; --set photo=@photo.png sends the one that is here"
    assert [line for line in capsys.readouterr().err.splitlines() if "--set" in line] == [f"converter run: {told}"]


async def test_places_of_a_workflow_are_set_as_well() -> None:
    async with serving(DONE) as server:
        assert await call("graph.json", server, "3.steps=5", "3.image=@photo.png") == Exit.OK
    body = server.asked[0].body
    assert b'"inputs": {"steps": 5, "image": {"part": "file-1"}}' in body
    assert b"PHOTO" in body


async def test_every_mistake_is_told_at_once_and_nothing_is_ordered(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("promt=x", "steps=x", "steps", "photo=@no.png", "prompt=a", "prompt=b")
    async with serving(telling(DESCRIBED)) as server:
        assert await call("paint", server, *words) == Exit.USAGE
    assert len(server.asked) == 1
    assert capsys.readouterr().err.splitlines() == [
        "converter run: --set promt: there is no such input; did you mean prompt?",
        "converter run: --set steps: must be a whole number",
        "converter run: --set steps: must be NAME=VALUE",
        "converter run: --set photo: can't read no.png: No such file or directory",
        "converter run: --set prompt: is set twice",
    ]


async def test_only_a_workflow_in_api_format_can_be_changed(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(DONE) as server:
        for number, text in enumerate(["[]", '{"nodes": []}', '{"1": {"inputs": []}}']):
            (desk / f"{number}.json").write_text(text)
            assert await call(f"{number}.json", server, "1.x=1") == Exit.INVALID
    assert not server.asked
    assert capsys.readouterr().err.count("--set needs a workflow in API format") == 3


async def test_a_template_that_is_not_there_is_the_callers_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(problem(404, "not_found")) as server:
        assert await call("nothing", server, "a=b") == Exit.INVALID
    assert "converter run: Title: detail" in capsys.readouterr().err


async def test_the_question_about_a_template_is_repeated_as_an_order_is(capsys: pytest.CaptureFixture[str]) -> None:
    refusal = problem(503, "starting", {"Retry-After": "0"})
    async with serving([refusal, refusal, telling(DESCRIBED), DONE]) as server:
        assert await call("paint", server, "steps=1", wait=60.0) == Exit.OK
    assert capsys.readouterr().err.count("trying again") == 2


@pytest.mark.parametrize("answer", [saying("hello"), telling([1])])
async def test_what_is_no_converter_is_said_to_be_none(answer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(answer) as server:
        assert await call("paint", server, "steps=1") == Exit.UNREACHABLE
    assert "does not answer as a converter does" in capsys.readouterr().err


# JSON --------------------------------------------------------------------------------------------------------------


async def test_a_result_is_told_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(playing(("result", result(OUTPUT, inputs={"seed": 7})))) as server:
        assert await call("paint", server, json=True) == Exit.OK
    told = json.loads(capsys.readouterr().out)
    assert (told["status"], told["id"], told["inputs"]) == ("succeeded", "j1", {"seed": 7})
    [output] = told["outputs"]
    assert output == {key: value for key, value in OUTPUT.items() if key != "data"} | {"path": "ComfyUI_00001_.png"}


async def test_what_went_wrong_is_told_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(problem(429, "queue_full", retry_after=3)) as server:
        assert await call("paint", server, json=True) == Exit.REFUSED
    told = json.loads(capsys.readouterr().out)
    assert told["status"] == "failed"
    assert (told["error"]["code"], told["error"]["retry_after"], told["error"]["request_id"]) == ("queue_full", 3, "r1")
    assert await asyncio.to_thread(run, Call("no.json", "http://127.0.0.1:9", json=True)) == Exit.USAGE
    assert json.loads(capsys.readouterr().out)["error"] == {"detail": "can't read no.json: No such file or directory"}
