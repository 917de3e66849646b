"""The processes that are measured: an engine and a converter, each of its own, and what the system says of them.

Linux only: peaks of memory are read from /proc. Leaves the load to others. Invariant: what was started is gone when
its block ends.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from time import perf_counter

import psutil
from aiohttp import ClientError, ClientSession

START = 60.0
"""Seconds for a process to be ready."""

STOP = 10.0
"""Seconds for a process to end before it is killed."""

MB = 2**20


@dataclass(frozen=True, slots=True)
class Engine:
    """Where an engine answers; `output` is its output folder, None where that is not known."""

    url: str
    output: Path | None


@dataclass(frozen=True, slots=True)
class Converter:
    """A converter that is ready."""

    url: str
    process: psutil.Process

    def cpu(self) -> float:
        """Seconds of processor time spent so far."""
        return _used(self.process)

    def rss(self) -> float:
        """Resident megabytes."""
        return float(self.process.memory_info().rss) / MB

    def forget_peak(self) -> None:
        """`peak` begins anew (proc(5), clear_refs)."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak(self) -> float:
        """The most resident megabytes since the start, or since `forget_peak`."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def spend() -> tuple[float, float]:
    """Seconds of processor time spent so far: by this process and what it started, and by everything else.

    What a hypervisor gave to other machines counts as spent by others.
    """
    me = psutil.Process()
    ours = sum(_used(process) for process in (me, *me.children(recursive=True)))
    times = psutil.cpu_times()
    return ours, sum(times) - times.idle - times.iowait - times.guest - times.guest_nice - ours


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


class NotStarted(Exception):
    """A process did not come up in time, or ended."""


@asynccontextmanager
async def run_engine(*flags: str) -> AsyncIterator[Engine]:
    """The embedded engine with its demo model and `flags`, in a folder of its own that is removed."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with TemporaryDirectory(prefix="benchmark-") as folder:
        command = ("-m", "engine", "--port", str(port), "--base-dir", folder, "--test-nodes", *flags)
        with _child(command) as process:
            await _wait_for(f"{url}/system_stats", process)
            yield Engine(url, Path(folder) / "output")


@asynccontextmanager
async def run_converter(engine: Engine, *flags: str) -> AsyncIterator[Converter]:
    """A converter attached to the engine, with places enough for any load, and `flags` of its own."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    given = ("--port", str(port), "--engine-url", engine.url, "--capacity", "4096", "--drain-delay", "0")
    with _child(("-m", "converter.cli", "serve", *given, *flags)) as process:
        await _wait_for(f"{url}/readyz", process)
        yield Converter(url, psutil.Process(process.pid))


async def start_converter(engine: Engine, *flags: str) -> tuple[float, float]:
    """Start a converter and end it: seconds until it listened, and those of processor time spent by then."""
    port = free_port()
    begun = perf_counter()
    given = ("--port", str(port), "--engine-url", engine.url, "--drain-delay", "0")
    with _child(("-m", "converter.cli", "serve", *given, *flags)) as process:
        while perf_counter() - begun < START:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                found = perf_counter() - begun, _used(psutil.Process(process.pid))
                writer.close()
                await writer.wait_closed()
                return found
    raise NotStarted(f"nothing listens on port {port}")


@contextmanager
def _child(arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that lives until the end of the block; if it ends before, what it wrote last is shown."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CONVERTER_")}
    with TemporaryFile() as log:
        process = subprocess.Popen((sys.executable, *arguments), stdout=log, stderr=log, env=environment)
        try:
            yield process
        finally:
            if process.poll() is not None:
                log.seek(max(0, log.tell() - 4000))
                sys.stderr.write(log.read().decode(errors="replace"))
            process.terminate()
            try:
                process.wait(STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until the address answers 200."""
    try:
        async with asyncio.timeout(START), ClientSession() as session:
            while process.poll() is None:
                try:
                    async with session.get(url) as response:
                        if response.status == 200:
                            return
                except ClientError:
                    pass
                await asyncio.sleep(0.05)
    except TimeoutError:
        pass
    raise NotStarted(f"nothing answers at {url}")


def free_port() -> int:
    """A port of this machine's loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
