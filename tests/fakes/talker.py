"""A plain client of ComfyUI's protocol, for tests of engines: one websocket, one session, no policy.

Nothing of the converter is used, so that engines and converter are judged apart.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import aiohttp

Graph = dict[str, Any]
PATIENCE = 30.0


def image_graph(
    color: int, *, prefix: str = "contract", size: int = 16, batch: int = 1, save: str = "SaveImage"
) -> Graph:
    """EmptyImage to SaveImage (or PreviewImage): the cheapest prompt that makes files."""
    inputs = {"width": size, "height": size, "batch_size": batch, "color": color}
    named = {"filename_prefix": prefix} if save == "SaveImage" else {}
    return {
        "1": {"class_type": "EmptyImage", "inputs": inputs},
        "2": {"class_type": save, "inputs": {"images": ["1", 0], **named}},
    }


@dataclass
class Talker:
    """`talk` opens one."""

    url: str
    client_id: str
    session: aiohttp.ClientSession
    socket: aiohttp.ClientWebSocketResponse

    async def receive(self) -> Any:
        """The next message: parsed JSON, or bytes. Raises ConnectionError when the socket is closed."""
        message = await self.socket.receive(timeout=PATIENCE)
        if message.type is aiohttp.WSMsgType.TEXT:
            return json.loads(message.data)
        if message.type is aiohttp.WSMsgType.BINARY:
            return message.data
        raise ConnectionError(message.type.name)

    async def follow(self, prompt_id: str) -> list[Any]:
        """Everything received up to the last message of that prompt, its `executing` null."""
        heard = []
        while True:
            heard.append(await self.receive())
            if is_end(heard[-1], prompt_id):
                return heard

    async def post(self, graph: Graph, **fields: Any) -> tuple[int, Any]:
        """Status and body of a POST /prompt with a fresh prompt id, under this client's id unless told otherwise."""
        body = {"prompt": graph, "prompt_id": str(uuid4()), "client_id": self.client_id, **fields}
        async with self.session.post(f"{self.url}/prompt", json=body) as answer:
            return answer.status, await answer.json()

    async def submit(self, graph: Graph, **fields: Any) -> str:
        """The id of a prompt that was accepted."""
        status, answer = await self.post(graph, **fields)
        assert status == 200, answer
        return str(answer["prompt_id"])

    async def run(self, graph: Graph, **fields: Any) -> tuple[str, list[Any]]:
        """Submits and follows to the end; the id and what was heard."""
        prompt_id = await self.submit(graph, **fields)
        return prompt_id, await self.follow(prompt_id)

    async def get(self, path: str) -> Any:
        async with self.session.get(self.url + path) as answer:
            assert answer.status == 200, path
            return await answer.json()

    async def tell(self, path: str, body: Any) -> int:
        """The status of a POST whose answer has no body."""
        async with self.session.post(self.url + path, json=body) as answer:
            return answer.status

    async def upload(self, data: bytes, name: str, **fields: str) -> Any:
        """The answer to an upload, which succeeds."""
        form = aiohttp.FormData(fields)
        form.add_field("image", data, filename=name, content_type="image/png")
        async with self.session.post(f"{self.url}/upload/image", data=form) as answer:
            assert answer.status == 200
            return await answer.json()

    async def record(self, prompt_id: str) -> Any:
        """The history entry, or None."""
        return (await self.get(f"/history/{prompt_id}")).get(prompt_id)

    async def view(self, image: dict[str, str], **fields: Any) -> tuple[int, bytes]:
        query = {"filename": image["filename"], "subfolder": image["subfolder"], "type": image["type"]}
        async with self.session.get(f"{self.url}/view", params=query, **fields) as answer:
            return answer.status, await answer.read()


def is_end(message: Any, prompt_id: str) -> bool:
    if not isinstance(message, dict) or message["type"] != "executing":
        return False
    return message["data"]["node"] is None and message["data"]["prompt_id"] == prompt_id


def labels(messages: list[Any]) -> list[str]:
    """The order of a run: types without progress and status, `end` for the last `executing`."""
    texts = [message for message in messages if isinstance(message, dict)]
    kept = [text for text in texts if text["type"] not in ("progress", "progress_state", "status")]
    return ["end" if text["type"] == "executing" and text["data"]["node"] is None else text["type"] for text in kept]


@asynccontextmanager
async def talk(url: str, *, client_id: str | None = None, flags: dict[str, Any] | None = None) -> AsyncIterator[Talker]:
    """A client whose socket has had its first status, and the answer to its feature flags if it sent some."""
    name = client_id or uuid4().hex
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/ws?clientId={name}", max_msg_size=0) as socket,
    ):
        talker = Talker(url, name, session, socket)
        if flags is not None:
            await socket.send_json({"type": "feature_flags", "data": flags})
        while (await talker.receive())["type"] != ("status" if flags is None else "feature_flags"):
            pass
        yield talker
