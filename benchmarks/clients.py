"""Those who ask: a direct client of the engine, which is the measure of all things here, and callers of the converter.

The direct client does what the best hand-written one does: one websocket opened before the first prompt, prompt ids
of its own, events matched by id, `/history` for the outputs and `/view` for the bytes. Leaves the timing to `load`.
Invariant: what `run` gives are the bytes of the one picture, or it raises.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol
from uuid import uuid4

from aiohttp import ClientSession, ClientTimeout, ClientWebSocketResponse, FormData, TCPConnector, WSMsgType

from benchmarks.workflows import Graph

PATIENCE = 120.0
"""Seconds for one picture."""


class Client(Protocol):
    """Whoever gets a workflow run."""

    async def run(self, workflow: Graph) -> bytes:
        """The bytes of the one picture that it makes."""


class Unexpected(Exception):
    """An answer that ends the measurement: what is slow may be measured, what is wrong may not."""


@asynccontextmanager
async def open_session() -> AsyncIterator[ClientSession]:
    """HTTP without a bound on connections and without proxies."""
    timeout = ClientTimeout(total=PATIENCE)
    async with ClientSession(connector=TCPConnector(limit=0), timeout=timeout, trust_env=False) as session:
        yield session


class Bare:
    """The direct client of the engine at `url`; `messages` counts what its websocket has heard."""

    def __init__(self, url: str, session: ClientSession, socket: ClientWebSocketResponse, client_id: str) -> None:
        self.messages = 0
        self._url = url
        self._session = session
        self._socket = socket
        self._client_id = client_id
        self._ended: dict[str, tuple[asyncio.Event, asyncio.Event]] = {}

    async def run(self, workflow: Graph) -> bytes:
        return await self.view(await self.execute(workflow))

    async def execute(self, workflow: Graph) -> Mapping[str, str]:
        """Run to the end; the file that was made, as `/view` is asked for it."""
        prompt_id = str(uuid4())
        succeeded, released = self._ended[prompt_id] = asyncio.Event(), asyncio.Event()
        body = {"prompt": workflow, "prompt_id": prompt_id, "client_id": self._client_id}
        async with asyncio.timeout(PATIENCE):
            async with self._session.post(f"{self._url}/prompt", json=body) as response:
                if response.status != 200:
                    raise Unexpected(f"the engine refuses: {await response.text()}")
                await response.read()
            await succeeded.wait()
            record = await self._history(prompt_id)
            if record is None:  # ComfyUI writes it after it says that the prompt has succeeded
                await released.wait()
                record = await self._history(prompt_id)
        del self._ended[prompt_id]
        if record is None:
            raise Unexpected("the engine has no record of a prompt")
        images: list[Mapping[str, str]] = [i for ui in record["outputs"].values() for i in ui.get("images", [])]
        return images[0]

    async def view(self, file: Mapping[str, str]) -> bytes:
        """The bytes of a file."""
        async with self._session.get(f"{self._url}/view", params=dict(file)) as response:
            if response.status != 200:
                raise Unexpected(f"/view answers {response.status}")
            return await response.read()

    async def replace(self, file: Mapping[str, str], data: bytes) -> None:
        """Put other bytes in the place of a file that was made."""
        form = FormData({"type": file["type"], "subfolder": file["subfolder"], "overwrite": "true"})
        form.add_field("image", data, filename=file["filename"], content_type="image/png")
        async with self._session.post(f"{self._url}/upload/image", data=form) as response:
            if response.status != 200 or (await response.json())["name"] != file["filename"]:
                raise Unexpected("the engine does not let a file be replaced")

    async def knows(self, class_type: str) -> bool:
        """Whether the engine has a class of nodes."""
        async with self._session.get(f"{self._url}/object_info/{class_type}") as response:
            return class_type in await response.json()

    async def _history(self, prompt_id: str) -> Any:
        async with self._session.get(f"{self._url}/history/{prompt_id}") as response:
            return json.loads(await response.read()).get(prompt_id)

    async def _listen(self) -> None:
        async for message in self._socket:
            self.messages += 1
            if message.type is not WSMsgType.TEXT:
                continue
            event = json.loads(message.data)
            kind, data = event["type"], event["data"]
            succeeded, released = self._ended.get(data.get("prompt_id"), (None, None))
            if kind == "execution_success" and succeeded is not None:
                succeeded.set()
            elif kind == "executing" and data["node"] is None and released is not None:
                released.set()


@asynccontextmanager
async def open_bare(url: str) -> AsyncIterator[Bare]:
    """The direct client, its websocket open."""
    client_id = uuid4().hex
    async with (
        open_session() as session,
        session.ws_connect(f"{url}/ws?clientId={client_id}", max_msg_size=0) as socket,
    ):
        await socket.receive()
        bare = Bare(url, session, socket, client_id)
        listening = asyncio.create_task(bare._listen())
        try:
            yield bare
        finally:
            listening.cancel()


class Caller:
    """A caller of the converter at `url` who accepts pictures (`image/png`) or JSON."""

    def __init__(self, url: str, session: ClientSession, accept: str) -> None:
        self._url = f"{url}/v1/run"
        self._session = session
        self._headers = {"Accept": accept}

    async def run(self, workflow: Graph) -> bytes:
        body = await self.ask(workflow)
        if self._headers["Accept"] != "application/json":
            return body
        return base64.b64decode(json.loads(body)["outputs"][0]["data"])

    async def ask(self, workflow: Graph) -> bytes:
        """The body of the answer, whatever it holds."""
        async with self._session.post(self._url, json={"workflow": workflow}, headers=self._headers) as response:
            body = await response.read()
            if response.status != 200:
                raise Unexpected(f"the converter answers {response.status}: {body[:300]!r}")
            return body
