"""The fake engine's websockets: one registry by client id and ONE publish loop, as in ComfyUI 0.3.64.

The loop sends one message to one socket after the other and awaits each, so a socket that does not read stalls
everybody. The registry forgets an id when any socket that ever had it closes, so the newer of two twins goes deaf.
"""

import asyncio
import json
import struct
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from aiohttp import ClientError, WSMsgType, web

from tests.fakes.changes import Changes
from tests.fakes.faults import Faults

MAX_UPLOAD_SIZE = 104857600
FEATURES = {"supports_preview_metadata": True, "max_upload_size": MAX_UPLOAD_SIZE}
PREVIEW_IMAGE, TEXT, PREVIEW_IMAGE_WITH_METADATA = 1, 3, 4


@dataclass(eq=False)
class Socket:
    """One connection; `metadata` as its feature flags asked, `deaf` if a fault keeps everything from it."""

    ws: web.WebSocketResponse
    request: web.Request
    deaf: bool
    metadata: bool = False

    def say(self, data: bytes) -> None:
        """Sends bytes as they are, between two messages: a frame, or what is none."""
        if self.request.transport is not None:
            self.request.transport.write(data)

    def cut(self) -> None:
        """Ends the connection without a closing handshake."""
        if self.request.transport is not None:
            self.request.transport.abort()


@dataclass(frozen=True)
class Preview:
    """A picture in flight; each socket gets the layout that its flags ask for."""

    image: bytes
    kind: str
    metadata: dict[str, Any]

    def pack(self, *, with_metadata: bool) -> bytes:
        if with_metadata:
            text = json.dumps({**self.metadata, "image_type": f"image/{self.kind}"}).encode()
            return struct.pack(">II", PREVIEW_IMAGE_WITH_METADATA, len(text)) + text + self.image
        return struct.pack(">II", PREVIEW_IMAGE, 1 if self.kind == "jpeg" else 2) + self.image


Message = dict[str, Any] | bytes | Preview


def pack_text(node_id: str, text: str) -> bytes:
    """A TEXT binary, which carries no prompt id."""
    return struct.pack(">II", TEXT, len(node_id)) + node_id.encode() + text.encode()


class Sockets:
    """`publish` queues, `run` sends, `serve` keeps one connection."""

    def __init__(self, faults: Faults, changes: Changes) -> None:
        self._faults = faults
        self._changes = changes
        self._by_id: dict[str, Socket] = {}
        self._outbox: asyncio.Queue[tuple[Message, str | None]] = asyncio.Queue()
        self.open: set[Socket] = set()

    def publish(self, message: Message, client_id: str | None = None) -> None:
        """To one client, or to everybody when `client_id` is None."""
        self._outbox.put_nowait((message, client_id))

    def wants_metadata(self, client_id: str | None) -> bool:
        """Whether that client's present socket asked for previews with metadata."""
        socket = None if client_id is None else self._by_id.get(client_id)
        return socket is not None and socket.metadata

    async def flush(self) -> None:
        """Until everything published so far was sent."""
        await self._outbox.join()

    async def run(self) -> None:
        """The publish loop; ends by cancellation only."""
        while True:
            message, client_id = await self._outbox.get()
            targets = list(self._by_id.values()) if client_id is None else [self._by_id.get(client_id)]
            for socket in targets:
                if socket is not None and not socket.deaf:
                    await self._send(socket, message, broadcast=client_id is None)
            self._outbox.task_done()

    async def _send(self, socket: Socket, message: Message, *, broadcast: bool) -> None:
        if self._faults.drop_socket_at is not None:
            self._faults.drop_socket_at -= 1
            if self._faults.drop_socket_at <= 0:
                self._faults.drop_socket_at = None
                socket.cut()
                return
        try:
            if isinstance(message, dict):
                await socket.ws.send_str(json.dumps(message))
            elif isinstance(message, bytes):
                await socket.ws.send_bytes(message)
            else:
                await socket.ws.send_bytes(message.pack(with_metadata=socket.metadata and not broadcast))
        except (ClientError, ConnectionError, RuntimeError):
            return  # as ComfyUI: it logs that a socket is gone, and the reader of that socket cleans up

    async def serve(self, request: web.Request, greeting: list[dict[str, Any]]) -> web.WebSocketResponse:
        """Keeps one connection until its client leaves; `greeting` goes out first, whatever the faults."""
        client_id = request.query.get("clientId") or uuid4().hex
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        socket = Socket(ws, request, deaf=self._faults.take("deaf_socket"))
        self._by_id[client_id] = socket
        self.open.add(socket)
        greeting[0]["data"]["sid"] = client_id
        try:
            for message in greeting:
                await ws.send_str(json.dumps(message))
            self._changes.notify()
            await self._listen(socket)
        except ConnectionError:
            pass  # the client left in the middle of the greeting
        finally:
            self.open.discard(socket)
            self._by_id.pop(client_id, None)
            self._changes.notify()
        return ws

    async def _listen(self, socket: Socket) -> None:
        """Answers `feature_flags` if it is the first JSON object that comes, and ignores all else."""
        first = True
        async for message in socket.ws:
            if message.type is not WSMsgType.TEXT or not first:
                continue
            try:
                sent = json.loads(message.data)
            except ValueError:
                continue
            if isinstance(sent, dict):
                first = False
                if sent.get("type") == "feature_flags":
                    socket.metadata = (sent.get("data") or {}).get("supports_preview_metadata") is True
                    await socket.ws.send_str(json.dumps({"type": "feature_flags", "data": FEATURES}))
