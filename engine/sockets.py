"""Websockets: who listens, and what each of them is still to be sent.

For: carrying messages, in order, from any thread to the sockets they are for. Leaves what the messages say to `wire`.
Invariant: a socket that does not read delays nobody else: it loses superseded progress and previews first, and is
closed when its backlog passes its bound.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from engine.wire import Message, write_event, write_status

_log = logging.getLogger(__name__)

MAX_FRAME = 4 << 20  # bytes of a frame to the server, as in ComfyUI 0.3.64; larger ones close the socket with 1009
LAGGING = 64  # messages that wait before superseded ones are dropped
MAX_WAITING = 4096  # messages
MAX_WAITING_BYTES = 256 << 20  # results may travel as pictures


@dataclass(slots=True)
class Backlog:
    """What one socket is still to be sent, bounded; in the order in which it was due."""

    _waiting: deque[Message] = field(default_factory=deque)
    _limit: int = LAGGING
    size: int = 0  # bytes

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, message: Message) -> None:
        """Append a message; when many wait, those that a later one of their key supersedes are dropped."""
        self._waiting.append(message)
        self.size += message.size
        if len(self._waiting) > self._limit:
            self._drop_superseded()

    def take(self) -> Message:
        """The next message. Raises IndexError when there is none."""
        message = self._waiting.popleft()
        self.size -= message.size
        return message

    @property
    def hopeless(self) -> bool:
        """Whether more waits than may be kept for one reader."""
        return len(self._waiting) > MAX_WAITING or self.size > MAX_WAITING_BYTES

    def _drop_superseded(self) -> None:
        latest = {(m.key, m.flagged): index for index, m in enumerate(self._waiting) if m.key is not None}
        kept = [m for i, m in enumerate(self._waiting) if m.key is None or latest[(m.key, m.flagged)] == i]
        self._waiting = deque(kept)
        self.size = sum(message.size for message in kept)
        # Looking again only when as many have come as are kept makes the cost of it constant per message.
        self._limit = max(LAGGING, 2 * len(kept))


@dataclass(slots=True, eq=False)
class _Socket:
    client: str
    response: web.WebSocketResponse
    abort: Callable[[], None]
    backlog: Backlog = field(default_factory=Backlog)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    wants_metadata: bool = False

    def add(self, message: Message) -> None:
        if message.flagged not in (None, self.wants_metadata):
            return
        self.backlog.add(message)
        self.changed.set()
        if self.backlog.hopeless:
            _log.warning("a websocket does not read and is closed; client %r", self.client)
            self.backlog = Backlog()
            self.abort()


class Hub:
    """All open sockets. `send` may be called from any thread, all else from the event loop's."""

    def __init__(self, features: Mapping[str, Any]) -> None:
        self._features = features
        self._loop = asyncio.get_running_loop()
        self._outbox: deque[Message] = deque()
        self._scheduled = False
        self._sockets: set[_Socket] = set()
        self._clients: dict[str, _Socket] = {}

    def send(self, message: Message) -> None:
        """Send to whom the message is for; nobody waits for anybody."""
        self._outbox.append(message)
        if not self._scheduled:
            # One wake-up of the loop carries all messages that are there by then.
            self._scheduled = True
            self._loop.call_soon_threadsafe(self._distribute)

    def _distribute(self) -> None:
        self._scheduled = False
        while self._outbox:
            message = self._outbox.popleft()
            if message.client is None:
                for socket in self._sockets:
                    socket.add(message)
            elif (own := self._clients.get(message.client)) is not None:
                own.add(message)

    async def serve(
        self, request: web.Request, remaining: Callable[[], int], find_node: Callable[[str], str | None]
    ) -> web.WebSocketResponse:
        """Serve one websocket until it closes. A newer one with the same client id takes over what is for that client.

        `remaining` tells how many prompts are pending or running, `find_node` which node runs for a client.
        """
        response = web.WebSocketResponse(max_msg_size=MAX_FRAME, compress=False)
        await response.prepare(request)
        transport = request.transport
        abort = transport.abort if transport is not None else _do_nothing
        socket = _Socket(request.query.get("clientId") or uuid.uuid4().hex, response, abort)
        self._sockets.add(socket)
        self._clients[socket.client] = socket
        socket.add(Message(write_status(remaining(), socket.client)))
        if (node_id := find_node(socket.client)) is not None:
            socket.add(Message(write_event("executing", {"node": node_id})))
        writer = asyncio.create_task(self._write(socket))
        try:
            await self._read(socket)
        finally:
            self._sockets.discard(socket)
            # The id belongs to a newer socket if one has come; closing the old one must not make it deaf.
            if self._clients.get(socket.client) is socket:
                del self._clients[socket.client]
            writer.cancel()
            await asyncio.wait([writer])
        return response

    async def close(self) -> None:
        """Say goodbye to all sockets."""
        goodbyes = [socket.response.close(code=WSCloseCode.GOING_AWAY, message=b"stopping") for socket in self._sockets]
        await asyncio.gather(*goodbyes)

    async def _read(self, socket: _Socket) -> None:
        """Take frames until the socket closes. Only the first JSON object counts, and only if it is feature_flags."""
        first = True
        async for frame in socket.response:
            if not first or frame.type is not WSMsgType.TEXT:
                continue
            try:
                message = json.loads(frame.data)
            except (ValueError, RecursionError):
                continue
            if not isinstance(message, dict):
                continue
            first = False
            flags = message.get("data")
            if message.get("type") == "feature_flags":
                socket.wants_metadata = isinstance(flags, dict) and flags.get("supports_preview_metadata") is True
                socket.add(Message(write_event("feature_flags", self._features)))

    async def _write(self, socket: _Socket) -> None:
        try:
            while True:
                await socket.changed.wait()
                socket.changed.clear()
                while socket.backlog:
                    payload = socket.backlog.take().payload
                    if isinstance(payload, str):
                        await socket.response.send_str(payload)
                    else:
                        await socket.response.send_bytes(payload)
        except (ConnectionError, RuntimeError):
            # The socket closed in mid-send; its reader sees that too, and ends.
            return


def _do_nothing() -> None:
    """For a connection that is gone already."""
