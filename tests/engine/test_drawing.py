"""A picture from start to end: the engine as a process, ComfyUI's default workflow in, a file out."""

import asyncio
import io
import json
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from PIL import Image

from tests.engine.contexts import read_default_workflow

DEADLINE = 90.0
PREVIEW = 1


@dataclass
class Watched:
    """What a client of the websocket saw of one prompt."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    previews: list[bytes] = field(default_factory=list)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [data for seen, data in self.events if seen == kind]


@dataclass
class Client:
    """One caller of the engine."""

    http: aiohttp.ClientSession
    socket: aiohttp.ClientWebSocketResponse

    async def draw(self, workflow: dict[str, Any], *, interrupt_at: int | None = None) -> Watched:
        """Run a workflow to its end, interrupting it when it has told of a step."""
        prompt_id = str(uuid.uuid4())
        body = {"prompt": workflow, "prompt_id": prompt_id, "client_id": "test"}
        async with self.http.post("/prompt", json=body) as answer:
            assert answer.status == 200, await answer.text()
        watched = Watched()
        async with asyncio.timeout(DEADLINE):
            async for message in self.socket:
                if message.type is aiohttp.WSMsgType.BINARY:
                    assert int.from_bytes(message.data[:4]) == PREVIEW
                    watched.previews.append(message.data[8:])
                    continue
                event = json.loads(message.data)
                watched.events.append((event["type"], event["data"]))
                if event["type"] == "progress" and event["data"]["value"] == interrupt_at:
                    async with self.http.post("/interrupt", json={"prompt_id": prompt_id}) as answer:
                        assert answer.status == 200
                if event["type"] == "executing" and event["data"]["node"] is None:
                    return watched
        raise AssertionError("the socket closed before the prompt ended")

    async def fetch(self, watched: Watched) -> Image.Image:
        """The picture that the prompt saved."""
        (executed,) = watched.of("executed")
        async with self.http.get("/view", params=executed["output"]["images"][0]) as answer:
            assert answer.status == 200
            return Image.open(io.BytesIO(await answer.read()))


@pytest.fixture
async def client(checkpoints: Path, tmp_path: Path) -> AsyncIterator[Client]:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "checkpoints").symlink_to(checkpoints)
    command = ("-m", "engine", "--port", "0", "--base-dir", str(tmp_path))
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            address = (await process.stdout.readline()).decode().split()[-1]
        async with (
            aiohttp.ClientSession(address) as http,
            http.ws_connect("/ws", params={"clientId": "test"}, max_msg_size=0) as socket,
        ):
            yield Client(http, socket)
    finally:
        process.terminate()
        await process.wait()


async def test_comfyuis_default_workflow_draws_a_picture(client: Client) -> None:
    workflow = read_default_workflow()
    watched = await client.draw(workflow)
    assert [data["value"] for data in watched.of("progress")] == list(range(1, 21))
    assert len(watched.previews) > 10, "steps that others keep from being told in time have none"
    assert Image.open(io.BytesIO(watched.previews[-1])).size == (512, 512)
    picture = await client.fetch(watched)
    assert picture.format == "PNG"
    assert picture.size == (128, 128)
    pixels = np.asarray(picture)
    assert pixels.std() > 10, "neither black nor gray"

    again = read_default_workflow()
    again["9"]["inputs"]["filename_prefix"] = "again"
    cached = await client.draw(again)
    assert not cached.of("progress"), "what did not change is not drawn again"
    assert np.array_equal(np.asarray(await client.fetch(cached)), pixels)

    workflow["3"]["inputs"]["steps"] = 1000
    stopped = await client.draw(workflow, interrupt_at=3)
    (interrupted,) = stopped.of("execution_interrupted")
    assert interrupted["node_type"] == "KSampler"
    assert len(stopped.of("progress")) < 500
