"""Does what `strikes` says, one after the other. Invariant: whatever a strike has stopped goes on when it is over."""

import asyncio
import signal
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout

from tests.e2e.chaos.orders import graph
from tests.e2e.chaos.records import Struck
from tests.e2e.chaos.scene import Scene
from tests.e2e.chaos.strikes import Strike
from tests.e2e.service import POLL, ask
from tests.fakes.changes import Changes
from tests.fakes.relay import Direction

STRANGERS = 0xF00000
"""Colour of the first stranger's picture."""

PATIENCE = ClientTimeout(total=10.0)
"""Seconds that others wait for the engine."""

RECOVERY = 300.0
"""Seconds that an engine which was killed has to be back."""

FIT = ("READY", "BUSY")
"""States of a replica whose engine works."""


class Mischief:
    """Strikes a scene; `struck` gets what was done."""

    def __init__(self, scene: Scene, struck: list[Struck]) -> None:
        self._scene = scene
        self._struck = struck
        self._sent = 0
        self._changes = Changes()

    def hear(self, sent: int) -> None:
        """So many orders were sent."""
        self._sent = sent
        self._changes.notify()

    async def strike_all(self, strikes: Iterable[Strike]) -> None:
        """Carry them out, each when its time has come and the one before is over."""
        async with ClientSession(timeout=PATIENCE) as self._session:
            for strike in strikes:
                await self._changes.until(partial(self._is_due, strike))
                if strike.kind == "kill":
                    await self._until_fit()
                begun = time.time()
                about = await self._strike(strike)
                self._struck.append(Struck(strike, begun, time.time(), about))

    def _is_due(self, strike: Strike) -> bool:
        return self._sent >= strike.after

    async def _strike(self, strike: Strike) -> str:
        """The prompt that a stranger has queued, if that was it."""
        relay = self._scene.relay
        match strike.kind:
            case "kill":
                self._scene.signal_engine(signal.SIGKILL)
            case "cut_http":
                relay.cut("http")
            case "cut_socket":
                relay.cut("websocket")
            case "twin":
                await self._open_twin()
            case "interrupt":
                await self._post("/interrupt", {})
            case "clear":
                await self._post("/queue", {"clear": True})
            case "forget":
                await self._post("/history", {"clear": True})
            case "stranger":
                prompt_id = str(uuid.uuid4())
                workflow = graph(STRANGERS + len(self._struck), 0.1)
                body = {"prompt": workflow, "prompt_id": prompt_id, "client_id": "stranger"}
                return prompt_id if await self._post("/prompt", body) else ""
            case _:
                with self._standstill(strike):
                    await asyncio.sleep(strike.lasts)
        return ""

    @contextmanager
    def _standstill(self, strike: Strike) -> Iterator[None]:
        """Something stands still for as long as this is entered."""
        scene, relay = self._scene, self._scene.relay
        direction: Direction = "to_engine" if strike.to_engine else "to_client"
        if strike.kind == "stop":
            scene.signal_engine(signal.SIGSTOP)
        elif strike.kind == "refuse":
            relay.refusing = True
            relay.cut()
        else:
            relay.stall(direction, "http" if strike.kind == "stall_http" else "websocket")
        try:
            yield
        finally:
            scene.signal_engine(signal.SIGCONT)
            relay.refusing = False
            relay.resume()

    async def _until_fit(self) -> None:
        """The engine has recovered from the kill before: how quickly it does depends on the machine."""
        async with asyncio.timeout(RECOVERY):
            while True:
                probe = await ask(self._session, "GET", f"{self._scene.url}/readyz")
                if probe.document["state"] in FIT:
                    return
                await asyncio.sleep(POLL)

    async def _post(self, path: str, body: Any) -> bool:
        """Past the relay; whether the engine took it, which one that is down does not."""
        try:
            async with self._session.post(f"{self._scene.engine_url}{path}", json=body) as response:
                return response.status == 200
        except (ClientError, OSError):
            return False

    async def _open_twin(self) -> None:
        try:
            url = f"{self._scene.engine_url}/ws?clientId={self._scene.client_id}"
            async with self._session.ws_connect(url) as socket:
                await socket.receive(timeout=5.0)
        except (ClientError, OSError):
            pass
