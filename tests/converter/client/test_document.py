"""docs/client.md is true: its scripts run as they are against a converter, and it names everything that may be said."""

import asyncio
import inspect
import json
import os
import re
import sys
from pathlib import Path

import pytest

from converter.api.schemas import list_faults
from converter.client import Client, Options, SyncClient
from converter.core.retries import from_fault
from converter.errors import InvalidInput
from tests.converter.faults.graphs import loaded, picture
from tests.converter.faults.replica import converter
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of, encode, solid

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "client.md").read_text()
SCRIPTS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
SHOWN_AT = "http://127.0.0.1:3000"


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """The folder in which a reader runs the scripts."""
    (tmp_path / "workflow.json").write_text(json.dumps(picture(7, prefix="seven")))
    invert = loaded("")
    invert["1"]["inputs"]["image"] = {"part": "photo"}
    (tmp_path / "invert.json").write_text(json.dumps(invert))
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.png").write_bytes(encode(solid(number, 16, 16)[0]))
    return tmp_path


async def run(script: str, desk: Path) -> str:
    """What the script prints."""
    async with FakeEngine() as engine, converter(engine.url) as caller:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            script.replace(SHOWN_AT, caller.url),
            cwd=desk,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, complaints = await child.communicate()
    assert child.returncode == 0, complaints.decode()
    return said.decode()


def test_the_script_saves_the_picture(desk: Path) -> None:
    asyncio.run(run(SCRIPTS[0], desk))
    [saved] = desk.glob("*.png")
    assert color_of(saved.read_bytes()) == 7


def test_the_program_inverts_every_photo(desk: Path) -> None:
    said = asyncio.run(run(SCRIPTS[1], desk))
    assert {line.split(":")[0] for line in said.splitlines()} == {"0.png", "1.png", "2.png"}
    assert {path.name for path in desk.glob("photos/*.webp")} == {"0.webp", "1.webp", "2.webp"}


def test_the_faults_that_are_sent_again_are_named() -> None:
    [row] = re.findall(r"^\| `retry: same` \((.*?)\)", TEXT, re.MULTILINE)
    always = {fault.code for fault in list_faults() if from_fault(fault("")).retry == "same"}
    assert set(re.findall(r"`(\w+)`", row)) == always | {InvalidInput("").passing().code}


def test_everything_that_may_be_said_is_told() -> None:
    assert len(SCRIPTS) == 2
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", TEXT, re.MULTILINE))
    declared = inspect.signature(Client).parameters
    assert list(rows) == list(declared)
    for name in ("url", "timeout", "limit"):
        assert rows[name].strip("`") == f"{declared[name].default}".removesuffix(".0")
    assert [name for name in declared if name != "sleep"] == list(inspect.signature(SyncClient).parameters)
    assert all(f"`{option}`" in TEXT for option in Options.__annotations__)
