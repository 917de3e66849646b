"""Three replicas that keep their addresses, and can be stopped, killed and started again one by one.

Invariant: when a fleet is left, no process of it lives.
"""

import random
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import psutil
from aiohttp import ClientSession

from tests.e2e.fleet.scale import SCALE
from tests.e2e.fleet.waiting import eventually
from tests.e2e.service import Reply, Service, ask, open_session

TAGS = "abc"

_LIVES = count(1)


class Replica:
    """One replica, over all its lives. `hold` keeps an engine that is started from coming up."""

    def __init__(self, tag: str, folder: Path, session: ClientSession, *flags: str) -> None:
        self.tag = tag
        self.port = find_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.hold = folder / f"hold-{tag}"
        self._folder = folder
        self._session = session
        self._flags = flags
        self._service: Service | None = None

    @property
    def service(self) -> Service:
        """The process of its present life."""
        assert self._service is not None
        return self._service

    def start(self) -> None:
        """Begin another life."""
        folder = self._folder / f"{self.tag}-{next(_LIVES)}"
        folder.mkdir()
        flags = ("--port", str(self.port), "--replica-tag", self.tag, *SCALE.flags, *self._flags)
        self._service = Service(folder, *flags, engine=self._engine(folder))

    def _engine(self, folder: Path) -> str:
        if SCALE.full:
            command = f"{sys.executable} -m engine --port {{port}} --base-dir {folder} --test-nodes --concurrency 1"
        else:
            command = f"{sys.executable} -m tests.fakes.process {{port}} {folder}"
        script = f"while [ -e {self.hold} ]; do sleep 0.05; done; exec {command}"
        return f"sh -c {shlex.quote(script)}"

    async def ready(self) -> None:
        """Wait until it is."""
        await self.until("/readyz", lambda reply: reply.status == 200)

    async def stop(self) -> None:
        """End it as an operator does."""
        self.service.signal(signal.SIGTERM)
        assert await self.service.ends() == 0

    def close(self) -> None:
        """End it by force, if it lives."""
        if self._service is not None:
            self._service.close()

    async def engine(self) -> psutil.Process:
        """The engine's own process."""

        def find() -> psutil.Process | None:
            names = ("engine", "tests.fakes.process")
            family = [process for process in self.service.family() if process.is_running()]
            return next((one for one in family if _words(one)[1:2] == ["-m"] and _words(one)[2] in names), None)

        found = await self.service.until(find)
        assert isinstance(found, psutil.Process)
        return found

    async def get(self, path: str) -> Reply:
        """One answer of the replica itself."""
        return await ask(self._session, "GET", f"{self.url}{path}")

    async def queue(self) -> Mapping[str, int]:
        """Orders by kind."""
        document = (await self.get("/status")).document
        return document["queue"] if isinstance(document, dict) else {}

    async def until(self, path: str, condition: Callable[[Reply], bool]) -> None:
        """Ask it until the answer is as it should be."""

        async def holds() -> bool:
            return bool(condition(await self.get(path)))

        await eventually(holds)

    async def succeeded(self) -> float:
        """Jobs that have, in its present life."""
        return await self.metric('converter_jobs_total{outcome="succeeded"}')

    async def works(self, jobs: float = 1) -> None:
        """Wait until so many jobs have succeeded."""

        async def done() -> bool:
            return await self.succeeded() >= jobs

        await eventually(done)

    async def metric(self, name: str) -> float:
        """One series of its metrics."""
        async with self._session.get(f"{self.url}/metrics") as response:
            lines = (await response.text()).splitlines()
        return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + " "))

    def changes(self) -> list[str]:
        """The states that it has gone through in its present life, as its log has them."""
        marks = ('"event": "state ', '"logger"')
        lines = [line for line in self.service.log.splitlines() if marks[0] in line]
        return [line.partition(marks[0])[2].partition('"')[0] for line in lines]


Fleet = Mapping[str, Replica]


@asynccontextmanager
async def running(folder: Path, *flags: str) -> AsyncIterator[Fleet]:
    """Three replicas, ready."""
    async with open_session() as session:
        fleet = {tag: Replica(tag, folder, session, *flags) for tag in TAGS}
        try:
            for replica in fleet.values():
                replica.start()
            for replica in fleet.values():
                await replica.ready()
            yield fleet
        finally:
            for replica in fleet.values():
                replica.close()


def find_port() -> int:
    """A free port below those that connections get for themselves, so that it is free after a restart, too."""
    while True:
        port = random.randint(20000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
