"""Templates follow their files and the engine: what is broken is said by file and line, and harms no other."""

import asyncio
import json
import logging
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from converter import template_files
from converter.core.catalog import Kind, Port
from converter.core.template_toml import parse
from converter.link.client import Unanswered
from converter.template_files import SHIPPED
from converter.templates import Templates
from tests.converter.faults.replica import PATIENCE, POLL, Caller, converter
from tests.fakes.engine import FakeEngine

QUICK = 0.005
"""Seconds between two looks at the files."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the template txt2img."""
    for path in SHIPPED.glob("txt2img.*"):
        shutil.copy(path, tmp_path)
    return tmp_path


def write(
    folder: Path, name: str, declaration: str, workflow: str = '{"1": {"class_type": "A", "inputs": {}}}'
) -> None:
    """A template, replaced as an editor does it."""
    for suffix, text in ((".json", workflow), (".toml", declaration)):
        draft = folder / f"{name}{suffix}~"
        draft.write_text(text)
        draft.rename(folder / f"{name}{suffix}")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if condition():
                return
            await asyncio.sleep(POLL)


async def ask_until(caller: Caller, path: str, condition: Callable[[Any], object]) -> Any:
    """The document at a path, once it is as it should be."""
    async with asyncio.timeout(PATIENCE):
        while True:
            document = (await caller.get(path)).document
            if condition(document):
                return document
            await asyncio.sleep(POLL)


def is_judged(document: Any) -> bool:
    """Whether the engine was asked about all of them, `lacking` among them."""
    listed = by_name(document)
    return "lacking" in listed and all(entry["available"] is not None for entry in listed.values())


def by_name(document: Any) -> dict[str, Any]:
    """A list of templates, by name."""
    return {entry["name"]: entry for entry in document["workflows"]}


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


class Engine:
    """An engine that has the class A with two choices, and models."""

    def __init__(self, *models: str) -> None:
        self.answers: dict[str, tuple[str, ...]] = {"loras": models}
        self.broken = False
        self.asked = 0

    async def node_kind(self, class_type: str) -> Kind | None:
        self.asked += 1
        if self.broken:
            raise Unanswered("no")
        return Kind({"mode": Port("COMBO", ("a", "b"))}, is_output=True) if class_type == "A" else None

    async def models(self, folder: str) -> tuple[str, ...] | None:
        return self.answers.get(folder)


@asynccontextmanager
async def keeping(
    templates: Templates, engine: Engine, instance: Callable[[], str | None] = lambda: "one"
) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(templates.keep(engine, instance, QUICK))
        yield
        task.cancel()


# Files -------------------------------------------------------------------------------------------------------------


def test_a_broken_template_is_reported_by_file_and_line_and_the_others_work(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workflow = (folder / "txt2img.json").read_text()
    write(folder, "syntax", 'title = "x"\n= nothing', "{")
    (folder / "lonely.toml").write_text('title = "no workflow beside it"')
    write(folder, "array", "", "[]")
    write(folder, "editor", "", '{"nodes": [], "links": []}')
    write(folder, "deep", "", "[" * 100_000)
    (folder / "latin.toml").write_bytes(b'title = "x"\n# gr\xf6\xdfe')
    (folder / "latin.json").write_text(workflow)
    write(folder, "keys", '\n[inputs.a]\nnode = "3.sede"\ntype = "seed"\n\n[inputs.b]\nnode = "3.steps"', workflow)
    write(folder, "graph", "", '{\n "1": {"class_type": "A", "inputs": {}},\n "22": {\n  "inputs": {}}}')
    write(folder, "_name", "")
    write(folder, "nested", f"a = {'[' * 100_000}")
    write(folder, "digits", "", '{"1": ' + "9" * 5000 + "}")
    assert set(Templates([folder])) == {"txt2img"}
    reported = errors(caplog)
    for name, *places in (
        ("syntax", "syntax.toml:2: Invalid statement", "syntax.json:1: is not JSON: Expecting property name"),
        ("lonely", "lonely.json: can't be read: No such file"),
        ("array", "array.json:1: The workflow is not an object"),
        ("editor", "editor.json:1: This is the file that the editor saves for itself"),
        ("deep", "deep.json: maximum recursion depth exceeded"),
        ("latin", "latin.toml:2: is not UTF-8"),
        ("keys", "keys.toml:3: inputs.a.node: 3.sede: the workflow has no such input; KSampler has seed, steps"),
        ("keys", "keys.toml:6: inputs.b.type: must be one of string, "),
        ("graph", "graph.json:3: node 22: The node has no class_type"),
        ("_name", "_name.toml:1: its name must match"),
        ("nested", "nested.toml: maximum recursion depth exceeded"),
        ("digits", "digits.json: Exceeds the limit"),
    ):
        [message] = [message for message in reported if message.startswith(f"the template {name} ")]
        assert all(place in message for place in places), message
    assert len(reported) == 11


def test_a_workflow_that_goes_away_while_it_is_reported_ends_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    workflow = folder / "txt2img.json"
    workflow.write_text('{"1": {"class_type": "A", "inputs": []}}')

    def remove(*given: Any) -> Any:
        workflow.unlink()
        return parse(*given)

    monkeypatch.setattr(template_files, "parse", remove)
    assert not Templates([folder])
    assert f"{workflow}:1: " in caplog.text


def test_of_two_with_one_name_that_of_the_later_folder_counts(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder, "img2img", 'title = "Mine"')
    found = Templates([SHIPPED, folder])
    assert (found["img2img"].title, found["img2img"].inputs) == ("Mine", ())
    assert len(found) == len(list(SHIPPED.glob("*.toml")))
    write(folder, "img2img", "= broken")
    assert "img2img" not in Templates([SHIPPED, folder]), "another's in place of one's own would be a surprise"
    assert "img2img.toml:1" in errors(caplog)[0]


async def test_changes_are_followed(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    templates = Templates([folder])
    async with keeping(templates, Engine()):
        write(folder, "new", 'title = "First"')
        await until(lambda: "new" in templates)
        write(folder, "new", 'title = "Second"')
        await until(lambda: templates["new"].title == "Second")
        offers = templates.offers
        write(folder, "new", "title = 5")
        await until(lambda: errors(caplog))
        assert (templates["new"].title, templates.offers) == ("Second", offers)
        [said] = errors(caplog)
        assert "the template new can't be used, the last good one counts" in said
        assert "new.toml:1: title: must be text" in said
        write(folder, "new", 'title = "Third"')
        await until(lambda: templates["new"].title == "Third")
        (folder / "new.toml").unlink()
        await until(lambda: "new" not in templates)
    assert "txt2img" in templates


async def test_a_folder_that_goes_away_takes_nothing_with_it(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = folder / "mounted"
    home.mkdir()
    write(home, "new", "")
    templates = Templates([home])
    async with keeping(templates, Engine()):
        home.rename(folder / "away")
        await until(lambda: errors(caplog))
        assert "new" in templates
        (folder / "away").rename(home)
        write(home, "new", 'title = "Back"')
        await until(lambda: templates["new"].title == "Back")
    assert len(errors(caplog)) == 1


# The engine --------------------------------------------------------------------------------------------------------

CHOICES = """
[inputs.mode]
type = "choice"
node = "1.mode"
choices = "engine"
default = "b"

[inputs.lora]
type = "choice"
node = "1.lora"
choices = "models/loras"
"""
GRAPH = '{"1": {"class_type": "A", "inputs": {"mode": "", "lora": ""}}}'


async def test_the_engine_is_asked_once_it_is_ready_and_again_when_it_is_another(tmp_path: Path) -> None:
    write(tmp_path, "mine", CHOICES, GRAPH)
    templates = Templates([tmp_path])
    assert templates.offers["mine"].available is None
    instance: str | None = None
    engine = Engine("one.safetensors")
    async with keeping(templates, engine, lambda: instance):
        await asyncio.to_thread(lambda: None)
        assert engine.asked == 0
        instance = "first"
        await until(lambda: templates.offers["mine"].available)
        assert [hole.choices for hole in templates["mine"].inputs] == [("a", "b"), ("one.safetensors",)]
        engine.answers["loras"] = ("two.safetensors",)
        instance = "second"
        await until(lambda: templates["mine"].inputs[1].choices == ("two.safetensors",))
        write(tmp_path, "other", "", '{"1": {"class_type": "B", "inputs": {}}}')
        await until(lambda: "other" in templates and templates.offers["other"].available is False)
        assert templates.offers["other"].reason == "the engine has no node B"
        assert engine.asked <= 5, "it is not asked without need"


async def test_an_engine_that_says_nonsense_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, "mine", CHOICES, GRAPH)
    templates, engine = Templates([tmp_path]), Engine()
    engine.broken = True
    async with keeping(templates, engine):
        await until(lambda: engine.asked)
    assert templates.offers["mine"].available is None


UNSAMPLED = """
[inputs.style]
type = "choice"
node = "2.filename_prefix"
choices = "models/styles"
"""
"""A choice of which the engine has none."""


# Served ------------------------------------------------------------------------------------------------------------


async def test_callers_see_templates_as_they_are_at_the_moment(tmp_path: Path) -> None:
    picture = {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0xFF}}
    graph = {"1": picture} | {
        node: {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": node}} for node in "23"
    }
    model = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v9.safetensors"}}
    declared = '[inputs.color]\ntype = "integer"\nnode = "1.color"\ndefault = 255\n'
    async with FakeEngine() as engine, converter(engine.url, workflows_dir=tmp_path) as caller:
        before = await caller.get("/openapi.json")
        assert "/v1/workflows/mine" not in before.document["paths"]
        write(tmp_path, "mine", declared, json.dumps(graph))
        write(tmp_path, "lacking", "", json.dumps(graph | {"4": model}))
        write(tmp_path, "outputless", "", json.dumps({"1": picture}))
        write(tmp_path, "unsampled", UNSAMPLED, json.dumps(graph))
        found = by_name(await ask_until(caller, "/v1/workflows", is_judged))
        assert found["txt2img"], "those that ship are there as well"
        assert found["mine"] == {"name": "mine", "title": "mine", "description": "", "available": True}
        assert found["lacking"]["available"] is False
        assert found["lacking"]["reason"] == (
            "the engine does not have v9.safetensors (ckpt_name of node 4, CheckpointLoaderSimple)"
        )
        assert found["outputless"]["available"] is False
        assert "has no output node" in found["outputless"]["reason"]
        described = await caller.get("/openapi.json", If_None_Match=before.headers["ETag"])
        paths = described.document["paths"]
        assert "examples" in paths["/v1/workflows/mine"]["post"]["requestBody"]["content"]["application/json"]
        assert "examples" not in paths["/v1/workflows/unsampled"]["post"]["requestBody"]["content"]["application/json"]
        assert "examples" not in paths["/v1/workflows/lacking"]["post"]["requestBody"]["content"]["application/json"]
        assert "Not available here: the engine" in paths["/v1/workflows/lacking"]["post"]["description"]

        reply = await caller.post("/v1/workflows/mine", {"inputs": {"color": 1}})
        assert reply.colors == [1, 1]
        write(
            tmp_path, "mine", declared + '\n[outputs.copy]\nnode = "3"\n[outputs.first]\nnode = "2"', json.dumps(graph)
        )
        shown = await ask_until(caller, "/v1/workflows/mine", lambda document: document["outputs"])
        assert shown["outputs"]["copy"] == {"node_id": "3", "description": ""}
        reply = await caller.post("/v1/workflows/mine", {"inputs": {"color": 2}, "outputs": {"nodes": ["copy"]}})
        assert [(output["node_id"], output["label"]) for output in reply.document["outputs"]] == [("3", "copy")]
        reply = await caller.post("/v1/workflows/mine", {})
        assert [output["label"] for output in reply.document["outputs"]] == ["first", "copy"]
        reply = await caller.post("/v1/workflows/mine", {"outputs": {"nodes": ["nothing", "copy"]}})
        assert (reply.status, reply.code) == (422, "invalid_workflow")
        assert list(reply.document["node_errors"]) == ["nothing"]
        assert "it has copy, first" in reply.document["detail"]
