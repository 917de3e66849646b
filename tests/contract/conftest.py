"""Runs each test of this folder against every engine at hand.

The fake runs in the test's own loop, the embedded engine as one process for the session, and a real ComfyUI joins
when the environment variable COMFYUI_URL names one. Tests use nodes that need no model, colours and names of their
own, and expect other prompts' traces: two of the three engines are shared.
"""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.fakes.engine import FakeEngine
from tests.fakes.talker import Talker, talk

REPOSITORY = Path(__file__).parent.parent.parent
FAKES = {"fake": "0.3.64", "fake of 2026": "0.38.1"}
ENGINES = [
    *map(pytest.param, FAKES),
    pytest.param("embedded", marks=pytest.mark.timeout(180)),
]
if "COMFYUI_URL" in os.environ:
    ENGINES.append(pytest.param("real"))


@pytest.fixture(scope="session")
def embedded_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the embedded engine, started for this session."""
    folder = tmp_path_factory.mktemp("engine")
    command = [
        sys.executable,
        "-m",
        "engine",
        "--port",
        "0",
        "--test-nodes",
        "--concurrency",
        "1",
        "--base-dir",
        str(folder),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("engine listening on http://"), (line, (folder / "log").read_text())
            yield line.split()[-1]
        finally:
            process.terminate()
            process.communicate(timeout=30)


@pytest.fixture(params=ENGINES)
async def engine_url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The address of the engine under test."""
    if request.param in FAKES:
        async with FakeEngine(version=FAKES[request.param]) as engine:
            yield engine.url
    elif request.param == "embedded":
        yield request.getfixturevalue("embedded_engine")
    else:
        yield os.environ["COMFYUI_URL"].rstrip("/")


@pytest.fixture
async def talker(engine_url: str) -> AsyncIterator[Talker]:
    """A client of that engine, its socket open."""
    async with talk(engine_url) as talker:
        yield talker
