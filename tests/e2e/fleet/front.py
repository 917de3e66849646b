"""A load balancer of `deploy/`, running in front of a fleet.

Invariant: it has the configuration that ships, but for addresses, and for times where the scale says so.
"""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.deploy.balancers import NGINX, Changes, Kind
from tests.e2e.fleet.crowd import ask_once, callers_session, graph
from tests.e2e.fleet.replicas import Fleet, find_port
from tests.e2e.fleet.scale import SCALE
from tests.e2e.fleet.waiting import eventually
from tests.e2e.service import PATIENCE, POLL


class Front:
    """A load balancer's process; callers come to `url`. `times` stand in for some of its own."""

    def __init__(self, kind: Kind, folder: Path, fleet: Fleet, times: Mapping[str, str]) -> None:
        self.kind = kind
        self._folder = folder
        self._times = times
        self._addresses = {tag: replica.port for tag, replica in fleet.items()}
        self._port = find_port()
        self.url = f"http://127.0.0.1:{self._port}"
        path = self._write(frozenset())
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(kind.command(kind.run, path), stdout=log, stderr=log, cwd=folder)

    def _write(self, down: frozenset[str]) -> Path:
        return self.kind.write(self._folder, self._addresses, Changes(self._port, down, self._times))

    @property
    def log(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace")

    async def listens(self) -> None:
        """Wait until it takes connections."""
        async with asyncio.timeout(PATIENCE):
            while True:
                assert self.process.poll() is None, self.log
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self._port)
                except OSError:
                    await asyncio.sleep(POLL)
                else:
                    writer.close()
                    return

    def take_out(self, *tags: str) -> None:
        """Give replicas no new work, where the load balancer has to be told (nginx: `down` and a reload)."""
        if self.kind is NGINX:
            self._write(frozenset(tags))
            self.process.send_signal(signal.SIGHUP)

    def close(self) -> None:
        """End it by force."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@asynccontextmanager
async def opened(
    kind: Kind, parent: Path, fleet: Fleet, times: Mapping[str, str] = SCALE.times
) -> AsyncIterator[Front]:
    """A load balancer for the length of the block; skips the test where there is none of the kind."""
    if kind.program() is None:
        pytest.skip(f"there is no {kind.name} on this machine")
    front = Front(kind, Path(mkdtemp(dir=parent)), fleet, times)
    try:
        await front.listens()
        await _meet(front, fleet)
        yield front
    finally:
        front.close()


async def _meet(front: Front, fleet: Fleet) -> None:
    """Wait until it has given something to every replica: it knows then that they are ready."""
    before = {tag: await replica.succeeded() for tag, replica in fleet.items()}

    async def all_have_worked() -> bool:
        await ask_once(session, front.url, {"workflow": graph(0.0)})
        return all([await replica.succeeded() > before[tag] for tag, replica in fleet.items()])

    async with callers_session() as session:
        await eventually(all_have_worked)
