"""Comfy API v2 by `@comfyorg/sdk`, the client for Node.js, where both can be had."""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.converter.faults.graphs import loaded, picture
from tests.converter.faults.replica import Caller
from tests.fakes.pictures import color_of, encode, solid

PACKAGE = "@comfyorg/sdk@0.1.9"

SCRIPT = """
import { Comfy } from "@comfyorg/sdk";
import { readFileSync } from "node:fs";
const [graph, second] = JSON.parse(readFileSync("graphs.json", "utf8"));
const client = new Comfy();
const job = await client.submit(client.workflows.fromJson(graph));
const kinds = [];
for await (const event of job.events()) kinds.push(event.kind);
await job.result();
await job.outputs[0].toFile("first.png");
const workflow = client.workflows.fromJson(second);
workflow.setInput("1", "image", client.assets.fromFile("blue.png"));
const other = await client.run(workflow);
await other.outputs[0].toFile("second.png");
console.log(JSON.stringify({ status: job.status, kinds }));
"""


@pytest.fixture(scope="module")
def sdk() -> Path:
    """The folder of the package, which is put beside the environment once."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    folder = Path(sys.prefix) / "comfyorg-sdk"
    if not (folder / "node_modules" / "@comfyorg" / "sdk" / "package.json").exists():
        command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            pytest.skip(f"{PACKAGE} can't be installed")
    return folder


async def test_the_client_for_node_runs_a_workflow_and_another_with_a_picture(
    caller: Caller, sdk: Path, tmp_path: Path
) -> None:
    (tmp_path / "node_modules").symlink_to(sdk / "node_modules")
    (tmp_path / "blue.png").write_bytes(encode(solid(0x0000FF)[0]))
    (tmp_path / "graphs.json").write_text(json.dumps([picture(0x123456), loaded("")]))
    (tmp_path / "run.mjs").write_text(SCRIPT)
    node = await asyncio.create_subprocess_exec(
        "node", "run.mjs", cwd=tmp_path, stdout=subprocess.PIPE, env={"COMFY_BASE_URL": caller.url, "PATH": _path()}
    )
    out, _ = await node.communicate()
    assert node.returncode == 0
    told = json.loads(out)
    assert told["status"] == "succeeded"
    assert told["kinds"][-2:] == ["outputReady", "statusChange"]
    assert color_of((tmp_path / "first.png").read_bytes()) == 0x123456
    assert color_of((tmp_path / "second.png").read_bytes()) == 0xFFFF00


def _path() -> str:
    return str(Path(shutil.which("node") or "node").parent)
