"""The service against its own OpenAPI document: whatever is sent, no 5xx, and every answer as described.

Leaves the requests to schemathesis: examples, boundary values, random values that fit the schemas and others that do
not, and walks along the document's links. `fuzzing.py` and `schemathesis.toml` tell it what the document can't.
"""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.converter.api.templates import copy_templates
from tests.converter.faults.graphs import picture
from tests.converter.faults.replica import Caller, converter
from tests.fakes.engine import FakeEngine

SECRET = "a-secret-for-the-fuzzer"

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@pytest.fixture
async def caller(engine: FakeEngine, tmp_path: Path) -> AsyncIterator[Caller]:
    """A guarded converter with templates, and with places enough for all jobs that are begun in the background."""
    settings: dict[str, Any] = {"workflows_dir": copy_templates(tmp_path), "shipped_workflows": False}
    async with converter(engine.url, **settings, capacity=256, api_keys=f"fuzz:{SECRET}") as caller:
        yield caller


@pytest.mark.timeout(900)
async def test_no_request_gets_an_answer_that_the_document_does_not_have(caller: Caller) -> None:
    config = HERE / "schemathesis.toml"
    command = ["-m", "schemathesis.cli", "--config-file", str(config), "run", f"{caller.url}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {SECRET}"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = output.decode()
    assert process.returncode == 0, text
    assert int(re.findall(r"(\d+) generated", text)[0]) > 800, text
    await caller.until_empty()
    assert (await caller.run(picture(2), {"Authorization": f"Bearer {SECRET}"})).colors == [2]
