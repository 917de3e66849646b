"""The service as an operator runs it: a converter process whose child is the embedded engine, and a caller beside it.

Invariant: when a `Service` is left, neither process lives, whatever the test did to them.
"""

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from aiohttp import ClientError, ClientSession, ClientTimeout

PATIENCE = 60.0
"""Seconds after which a wait for anything fails: the machine may be busy."""

POLL = 0.02
"""Seconds between two looks at another process."""


@dataclass(frozen=True)
class Reply:
    """One answer; `document` is its JSON."""

    status: int
    document: Any


class Service:
    """A converter process. `folder` holds the engine's files and the log. It starts the `engine` (a command, else the
    embedded one with nodes for tests; "" leaves it to the converter) unless `flags` attach it to one.
    """

    def __init__(self, folder: Path, *flags: str, engine: str | None = None) -> None:
        if engine is None:
            engine = f"{shlex.quote(sys.executable)} -m engine --port {{port}} --base-dir {folder} --test-nodes"
        command = [sys.executable, "-m", "converter.cli", "serve", "--port", "0", "--log-format", "json", *flags]
        if engine and "--engine-url" not in flags:
            command += ["--engine-command", engine]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CONVERTER_")}
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.started_at = time.monotonic()
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self._family: set[psutil.Process] = set()
        self.url = ""

    @property
    def log(self) -> str:
        """What the processes have written so far."""
        return self._log.read_text(errors="replace")

    async def until(self, condition: Callable[[], Any], timeout: float = PATIENCE) -> Any:
        """Wait until something is true, and give it; raises TimeoutError."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    if value := condition():
                        return value
                    await asyncio.sleep(POLL)
        except TimeoutError:
            raise TimeoutError(self.log[-5000:]) from None

    async def listens(self) -> str:
        """The address, once it listens."""
        self.url = await self.until(self._find_address)
        return self.url

    def _find_address(self) -> str | None:
        assert self.process.poll() is None, self.log
        for line in self.log.splitlines():
            if '"listening on ' in line:
                return str(json.loads(line)["event"].removeprefix("listening on "))
        return None

    async def ready(self) -> None:
        """`/readyz` answers 200."""
        async with asyncio.timeout(PATIENCE), open_session() as session:
            while True:
                if (await ask(session, "GET", f"{self.url}/readyz")).status == 200:
                    return
                await asyncio.sleep(POLL)

    # Its processes ---------------------------------------------------------------------------------------------------

    def engines(self) -> list[psutil.Process]:
        """The engine's processes that live."""
        self.family()
        return [process for process in self._family if _is_engine(process)]

    def family(self) -> set[psutil.Process]:
        """Every child that was ever seen here, living or not."""
        with suppress(psutil.NoSuchProcess):
            self._family |= set(psutil.Process(self.process.pid).children(recursive=True))
        return self._family

    async def engine(self) -> psutil.Process:
        """The engine, once there is one."""
        [engine] = await self.until(self.engines)
        assert isinstance(engine, psutil.Process)
        return engine

    async def ends(self, timeout: float = PATIENCE) -> int:
        """The exit status, once the process and its children have ended."""
        status = await self.until(lambda: self.process.poll() is not None and [self.process.returncode], timeout)
        await self.until(lambda: not any(_lives(process) for process in self._family), timeout)
        return int(status[0])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the converter alone."""
        self.family()
        self.process.send_signal(number)

    def close(self) -> None:
        """End whatever is left, by force."""
        self.family()
        self.process.kill()
        self.process.wait()
        for process in self._family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(filter(_lives, self._family), timeout=10)  # the dead may wait long for process 1


@contextmanager
def running(folder: Path, *flags: str, engine: str | None = None) -> Iterator[Service]:
    """A converter process for the length of the block."""
    service = Service(folder, *flags, engine=engine)
    try:
        yield service
    finally:
        service.close()


@asynccontextmanager
async def open_session() -> AsyncIterator[ClientSession]:
    """A caller."""
    async with ClientSession(timeout=ClientTimeout(total=PATIENCE)) as session:
        yield session


async def ask(session: ClientSession, method: str, url: str, **options: Any) -> Reply:
    """One request; status 0 where nobody answers."""
    try:
        async with session.request(method, url, **options) as response:
            return Reply(response.status, await response.json(content_type=None))
    except ClientError as error:
        return Reply(0, repr(error))


def _is_engine(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return words[1:3] == ["-m", "engine"] and _lives(process)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
