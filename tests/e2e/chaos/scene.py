"""The processes of a round: converter, engine, and the relay between them, put together in one of two ways.

`supervised`: the converter starts the engine and has its input folder; outputs come over HTTP. `attached`: the engine
is started, and started again, by the scene as a container's platform would; the converter has its output folder.
Invariant: when a scene is left, none of its processes lives.
"""

import asyncio
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit
from weakref import WeakKeyDictionary

import psutil

from converter.link.loopback import free_port
from tests.e2e.chaos.records import Log, Post, Probe, Run
from tests.e2e.service import Service
from tests.fakes.relay import Chance, Connection, Direction, Relay

Way = Literal["supervised", "attached"]

CONCURRENCY = 2
"""Prompts that the engine runs at once."""

CAPACITY = 16
"""Places of the converter."""

REVIVAL = 0.2
"""Seconds after which an attached engine that has died is started again."""

ODDS = Chance(0, {"http": {"cut": 0.02, "close": 0.02, "half_close": 0.02}, "websocket": {"cut": 0.1, "close": 0.1}})
"""What becomes of new connections by chance, beside what strikes."""

_NUMBER = re.compile(rb"chaos/(\d+)-")
_PROMPT_ID = re.compile(rb'"prompt_id": ?"([0-9a-f-]{36})"')
_LINE = re.compile(r"([\d.]+) (\d+) (?:engine starts|prompt (\S+) (?:begins|ended: (\w+)))")


class Scene:
    """One service, running. `engine_url` leads to the engine past the relay; `files` are open when nothing happens."""

    def __init__(self, folder: Path, way: Way, service: Service, relay: Relay, engine_url: str) -> None:
        self.folder = folder
        self.way = way
        self.service = service
        self.relay = relay
        self.engine_url = engine_url
        self.posts: list[Post] = []
        self.client_id = ""
        self.files = 0
        self._tails: WeakKeyDictionary[Connection, bytes] = WeakKeyDictionary()
        relay.tap = self._overhear

    @property
    def url(self) -> str:
        """Where callers ask."""
        return self.service.url

    @property
    def converter(self) -> psutil.Process:
        """The converter's process."""
        return psutil.Process(self.service.process.pid)

    def engine(self) -> psutil.Process | None:
        """The engine's process that lives, if there is one."""
        lives = self.read_engine_log()[0]
        with suppress(psutil.NoSuchProcess, IndexError):
            process = psutil.Process(list(lives)[-1])
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None

    def signal_engine(self, number: signal.Signals) -> None:
        """Send a signal to the engine, if there is one."""
        engine = self.engine()
        if engine is not None:
            with suppress(psutil.NoSuchProcess):
                engine.send_signal(number)

    def read_engine_log(self) -> tuple[dict[int, float], list[Run]]:
        """Which engine processes there were since when, and what they ran."""
        lives: dict[int, float] = {}
        runs: dict[tuple[int, str], Run] = {}
        for line in (self.folder / "engine.log").read_text().splitlines():
            if (match := _LINE.match(line)) is None:
                continue
            at, pid, prompt_id, end = float(match[1]), int(match[2]), match[3], match[4]
            if prompt_id is None:
                lives[pid] = at
            elif end is None:
                runs[pid, prompt_id] = Run(at, pid, prompt_id)
            else:
                runs[pid, prompt_id].ended, runs[pid, prompt_id].ended_at = end, at
        return lives, list(runs.values())

    def read_converter_log(self) -> Iterator[dict[str, Any]]:
        """The lines of the converter's log; `time` is a moment."""
        for line in self.service.log.splitlines():
            if line.startswith("{"):
                entry = json.loads(line)
                yield entry | {"time": datetime.fromisoformat(entry["time"]).timestamp()}

    def fill(self, log: Log) -> None:
        """Add what the processes have written down."""
        log.posts = self.posts
        log.lives, log.runs = self.read_engine_log()
        for line in (self.folder / "probes").read_text().splitlines():
            log.probes.append(Probe(*json.loads(line)))
        entries = list(self.read_converter_log())
        log.noticed = {entry["request"]: entry["time"] for entry in entries if entry.get("status") == 499}
        log.errors = [
            f"{entry['event']}: {entry.get('exception', '')[-500:]}"
            for entry in entries
            if entry["level"] in ("error", "critical") or "exception" in entry
        ]

    def _overhear(self, connection: Connection, direction: Direction, chunk: bytes) -> None:
        """Note submissions, and the id under which the converter listens."""
        if direction == "to_client":
            return
        if connection.kind == "websocket":
            if chunk.startswith(b"GET "):
                query = parse_qs(urlsplit(chunk.split(b" ", 2)[1].decode()).query)
                self.client_id = query["clientId"][0]
            return
        begun = self._tails.pop(connection, b"")
        heard = chunk if chunk.startswith((b"GET ", b"POST ")) else begun + chunk
        number, prompt_id = _NUMBER.search(heard), _PROMPT_ID.search(heard)
        if number and prompt_id:
            self.posts.append(Post(time.time(), prompt_id[1].decode(), int(number[1])))
        elif heard.startswith(b"POST /prompt"):
            self._tails[connection] = heard  # the rest of the body is still to come


@asynccontextmanager
async def open_scene(folder: Path, way: Way) -> AsyncIterator[Scene]:
    """A service that is ready, with a prober that asks it all the time. All breaks by chance only later."""
    (folder / "engine.log").touch()
    port = free_port()
    async with Relay(f"http://127.0.0.1:{port}") as relay:
        at = str(urlsplit(relay.url).port)
        module = ["-m", "tests.e2e.chaos.engine", "--port", at, "--behind", str(port)]
        given = ["--log", str(folder / "engine.log"), "--base-dir", str(folder), "--test-nodes"]
        command = [sys.executable, *module, *given, "--concurrency", str(CONCURRENCY), "--verbose"]
        for name in ("input", "output"):
            (folder / name).mkdir()
        flags = ["--capacity", str(CAPACITY), "--keep-jobs", "60", "--drain-delay", "0"]
        async with asyncio.TaskGroup() as group:
            if way == "supervised":
                flags += ["--restart-budget", "1000", "--input-dir", str(folder / "input")]
                service = Service(folder, *flags, engine=shlex.join(command))
                reviving = None
            else:
                flags += ["--engine-url", relay.url, "--output-dir", str(folder / "output"), "--keep-outputs"]
                reviving = group.create_task(_revive(command, folder))
                service = Service(folder, *flags, engine="")
            try:
                scene = Scene(folder, way, service, relay, f"http://127.0.0.1:{port}")
                await service.listens()
                await service.ready()
                with _probing(service.url, folder):
                    await service.until(lambda: (folder / "probes").stat().st_size)
                    scene.files = scene.converter.num_fds()
                    yield scene
            finally:
                service.close()
                if reviving is not None:
                    reviving.cancel()


async def _revive(command: list[str], folder: Path) -> None:
    """Keep an engine running that nobody else starts."""
    with (folder / "engine.out").open("wb") as output:
        while True:
            process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
            try:
                await process.wait()
                await asyncio.sleep(REVIVAL)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


@contextmanager
def _probing(url: str, folder: Path) -> Iterator[None]:
    with (folder / "probes").open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "tests.e2e.chaos.prober", url], stdout=output)
        try:
            yield
        finally:
            process.kill()
            process.wait()
