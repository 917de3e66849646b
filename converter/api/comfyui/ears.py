"""Ears: the websockets of ComfyUI's clients, and what each of them is still to be sent.

Invariant: a reader that does not keep up holds up nobody, and holds no more than `BOUND` messages: it loses pictures
and steps first, then its connection.
"""

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import WSCloseCode, web

from converter.core.comfyui import Message

BOUND = 1000
"""Messages that wait for one reader."""

STALL = 60.0
"""Seconds for which a reader may take nothing."""

Client = tuple[str, str]
"""The name of an API key, and a client id."""


class Ear:
    """One websocket."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._waiting: deque[Message] = deque()
        self._grown = asyncio.Event()
        self._deaf = False

    def tell(self, message: Message) -> None:
        """Send a message when its turn comes."""
        passing = isinstance(message, bytes) or message["type"] == "progress"
        if len(self._waiting) < BOUND // 2 or (not passing and len(self._waiting) < BOUND):
            self._waiting.append(message)
        elif not passing:
            self._deaf = True
        self._grown.set()

    async def speak(self) -> None:
        """Send what there is until the reader is gone."""
        while True:
            await self._grown.wait()
            self._grown.clear()
            while self._waiting and not self._deaf:
                message = self._waiting.popleft()
                async with asyncio.timeout(STALL):
                    if isinstance(message, bytes):
                        await self._socket.send_bytes(message)
                    else:
                        await self._socket.send_str(json.dumps(message))
            if self._deaf:
                await self._socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"too slow")
                return


class Ears:
    """All websockets, by client: of several with one id, each hears everything."""

    def __init__(self) -> None:
        self._ears: defaultdict[Client, set[Ear]] = defaultdict(set)

    @property
    def count(self) -> int:
        """How many are open."""
        return sum(map(len, self._ears.values()))

    @contextmanager
    def open(self, client: Client, socket: web.WebSocketResponse) -> Iterator[Ear]:
        """Listen for as long as this is entered."""
        ear = Ear(socket)
        self._ears[client].add(ear)
        try:
            yield ear
        finally:
            self._ears[client].discard(ear)
            if not self._ears[client]:
                del self._ears[client]

    def tell(self, client: Client, message: Message) -> None:
        """Send a message to all of a client's."""
        for ear in self._ears.get(client, ()):
            ear.tell(message)
