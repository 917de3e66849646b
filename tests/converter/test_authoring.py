"""`converter template` for people who write templates: a draft that is right, and mistakes told by file and line."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from converter.cli import main
from converter.template_files import SHIPPED, read_template
from tests.converter.faults.replica import converter
from tests.fakes.engine import FakeEngine


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a workflow in it."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(SHIPPED / "txt2img.json", "portrait_of-me.json")
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str], list[str]]:
    """The exit status, and the lines of both outputs."""
    try:
        status = main(["template", *words])
    except SystemExit as end:
        status = int(str(end.code))
    said = capsys.readouterr()
    return status, said.out.splitlines(), said.err.splitlines()


def test_a_draft_is_a_template_and_is_not_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "new", "portrait_of-me.json")
    assert (status, out) == (0, ["portrait_of-me.toml"])
    assert err == ["Look it through, then: converter template check portrait_of-me.toml"]
    template = read_template(Path("portrait_of-me.toml"))
    assert template.title == "Portrait of me"
    assert {"prompt", "negative", "seed", "model"} <= {hole.name for hole in template.inputs}
    status, out, err = call(capsys, "new", "portrait_of-me.json")
    assert (status, out) == (2, [])
    assert err[0].startswith("converter template: portrait_of-me.toml is there already")
    status, out, _ = call(capsys, "check", "portrait_of-me.toml")
    assert status == 0
    assert out[0].startswith("portrait_of-me: right; inputs: prompt, [seed], [steps], ")


def test_a_draft_may_go_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "new", "portrait_of-me.json", "-o", "-")
    assert (status, err) == (0, [])
    assert 'title = "Portrait of me"' in out
    status, out, err = call(capsys, "new", "portrait_of-me.json", "-o", "mine.toml")
    assert (status, out) == (0, ["mine.toml"])
    assert err[-1] == "The workflow belongs beside it, as mine.json"
    status, _, err = call(capsys, "new", "portrait_of-me.json", "-o", "nowhere/mine.toml")
    assert (status, err) == (2, ["converter template: can't write nowhere/mine.toml: No such file or directory"])


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        (None, 2, "other.json: can't be read: No such file or directory"),
        ("{", 2, "other.json:1: is not JSON"),
        ('{"nodes": [], "links": []}', 1, "other.json: This is the file that the editor saves for itself"),
    ],
)
def test_what_is_no_workflow_has_no_draft(
    capsys: pytest.CaptureFixture[str], text: str | None, status: int, said: str
) -> None:
    if text is not None:
        Path("other.json").write_text(text)
    found, out, err = call(capsys, "new", "other.json")
    assert (found, out) == (status, [])
    assert said in err[0]
    assert not Path("other.toml").exists()


def test_every_mistake_is_told_by_file_and_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.json").write_text('{"1": {"class_type": "A", "inputs": {"x": 1}}}')
    Path("a.toml").write_text('[inputs.x]\ntype = "integer"\nnode = "1.y"\n\n[inputs.y]\ntype = "text"\nnode = "1.x"')
    Path("notes.txt").touch()
    Path("empty").mkdir()
    status, out, err = call(capsys, "check", ".", "a.json", "notes.txt", "empty")
    assert (status, out) == (1, [])
    mistakes = [
        "a.toml:3: inputs.x.node: 1.y: the workflow has no such input; A has x",
        "a.toml:6: inputs.y.type: must be one of string, integer, number, boolean, choice, image, video, audio, seed",
    ]
    undeclared = "portrait_of-me.json: has no portrait_of-me.toml beside it; `converter template new"
    assert sorted(err) == sorted(
        [
            *mistakes * 2,
            f"{undeclared} portrait_of-me.json` drafts one",
            "notes.txt: is neither a folder nor a .toml or .json file",
            "empty: there are no templates",
        ]
    )


def test_what_ships_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "check", str(SHIPPED))
    assert (status, len(out), err) == (0, len(list(SHIPPED.glob("*.toml"))), [])


async def test_an_engine_tells_more(capsys: pytest.CaptureFixture[str]) -> None:
    def ask(*words: str) -> Any:
        return asyncio.to_thread(call, capsys, *words)

    async with FakeEngine() as engine:
        status, _, _ = await ask("new", "portrait_of-me.json", "--url", engine.url)
        assert status == 0
        steps = next(hole for hole in read_template(Path("portrait_of-me.toml")).inputs if hole.name == "steps")
        assert (steps.minimum, steps.maximum) == (1, 10000)
        status, out, err = await ask("check", "portrait_of-me.toml", "--url", engine.url)
        assert (status, out[0].split(";")[0]) == (1, "portrait_of-me: not available")
        assert err == ["portrait_of-me: the engine does not have demo (input model)"]
        async with converter(engine.url) as other:
            status, _, err = await ask("check", "portrait_of-me.toml", "--url", other.url)
        assert (status, err) == (
            2,
            [f"converter template: {other.url} is a converter: --url must be the address of its engine"],
        )
    status, _, err = await ask("check", "portrait_of-me.toml", "--url", "http://127.0.0.1:9")
    assert status == 2
    assert "the engine at http://127.0.0.1:9 did not say what it has" in err[0]
    assert (await ask("check", "portrait_of-me.toml", "--url", "ftp://x"))[0] == 2


def declare(name: str, text: str) -> None:
    """A template with the workflow of txt2img."""
    shutil.copy(SHIPPED / "txt2img.json", f"{name}.json")
    Path(f"{name}.toml").write_text(text)


MISFITS = """
[inputs.width]
type = "string"
node = "5.width"

[inputs.model]
type = "choice"
node = "4.ckpt_name"
choices = "models/checkpoint"
default = "sd15-tiny.safetensors"

[inputs.steps]
type = "integer"
node = "3.steps"
maximum = 20000

[outputs.picture]
node = "8"
"""


async def test_what_contradicts_the_engine_is_told_by_file_and_line(capsys: pytest.CaptureFixture[str]) -> None:
    declare("portrait_of-me", MISFITS)
    declare("limits", MISFITS.partition("\n\n")[2].partition("[outputs")[0])
    async with FakeEngine() as engine:
        status, out, err = await asyncio.to_thread(call, capsys, "check", ".", "--url", engine.url)
    assert status == 1
    assert out == [
        "limits: wrong; inputs: [model], steps",
        "portrait_of-me: not available; inputs: width, [model], steps",
    ]
    assert err == [
        "limits.toml:4: inputs.model.choices: the engine has no folder of models checkpoint",
        "limits.toml:10: inputs.steps.maximum: must be at most 10000, by the engine's 3.steps",
        "portrait_of-me.toml:3: inputs.width.type: 5.width takes a whole number, no string",
        "portrait_of-me.toml:9: inputs.model.choices: the engine has no folder of models checkpoint",
        "portrait_of-me.toml:15: inputs.steps.maximum: must be at most 10000, by the engine's 3.steps",
        "portrait_of-me.toml:18: outputs.picture.node: VAEDecode is no output node of the engine",
    ]


async def test_mistakes_hide_nothing_of_what_the_engine_says(capsys: pytest.CaptureFixture[str]) -> None:
    twice = '[inputs.size]\ntype = "integer"\nnode = ["5.width", "5.height", "3.steps"]\ndefault = 1'
    model = '[inputs.model]\ntype = "choice"\nnode = "4.ckpt_name"\nchoices = []'
    declare("portrait_of-me", f"{MISFITS}\n{twice}")
    declare("modeled", model)
    async with FakeEngine() as engine:
        status, out, err = await asyncio.to_thread(call, capsys, "check", ".", "--url", engine.url)
    assert (status, out) == (1, [])
    assert [line.partition(": ")[0] for line in err if line.startswith("portrait")] == [
        *("portrait_of-me.toml:22", "portrait_of-me.toml:22"),
        *(f"portrait_of-me.toml:{line}" for line in (3, 9, 15, 18, 23, 23)),
    ]
    told = [line for line in err if line.startswith("modeled")]
    assert told == [
        'modeled.toml:4: inputs.model.choices: must be a list of different texts, "models/FOLDER" or "engine"'
    ]


def test_without_a_deed_it_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capsys)
    assert (status, len(err)) == (2, 1)
    assert "the following arguments are required: new|check" in err[0]


def test_a_name_that_no_template_can_have_is_refused_at_once(capsys: pytest.CaptureFixture[str], desk: Path) -> None:
    Path("portrait_of-me.json").rename("My Portrait.json")
    status, out, err = call(capsys, "new", "My Portrait.json")
    assert (status, out) == (2, [])
    rule = "a template's name must match [A-Za-z0-9][A-Za-z0-9._-]{0,63}; name another file with -o"
    assert err == [f"converter template: My Portrait.toml: {rule}"]
    assert not list(desk.glob("*.toml"))
    assert call(capsys, "new", "My Portrait.json", "-o", "-")[0] == 0
    status, out, err = call(capsys, "new", "My Portrait.json", "-o", "mine.toml")
    assert (status, out, err[-1]) == (0, ["mine.toml"], "The workflow belongs beside it, as mine.json")
