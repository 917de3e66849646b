"""The same scenes with real processes: engines, converters, and HAProxy with the configuration of deploy/.

Service times are drawn as in the simulation and slept through by the engines' test node, so that no model takes the
processors from what is measured. Leaves judging to `fleet`. Invariant: when a scene has ended, its processes have, too.
"""

import asyncio
import random
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from urllib.parse import urlsplit

from aiohttp import ClientSession

from benchmarks.clients import open_session
from benchmarks.fleet_simulation import Result, Scene, draw
from benchmarks.processes import free_port, run_converter, run_engine
from benchmarks.workflows import doze
from tests.deploy.balancers import HAPROXY, Changes

SERVICE = 0.5
"""Seconds of the mean prompt: long beside what the processes themselves need."""

SETTLING = 5.0
"""Seconds until the load balancer has probed everybody."""


def scenes(seconds: float) -> list[Scene]:
    """Two ends of what is simulated, each for so long."""
    better = Scene("least connections", "readiness", 8, 0.9, service=SERVICE)
    orders = int(better.rate * seconds)
    return [replace(one, orders=orders) for one in (Scene("round robin", "none", 8, 0.9, service=SERVICE), better)]


async def run_all(scenes: Sequence[Scene]) -> list[tuple[Scene, Result]]:
    """One scene after the other, each with processes of its own."""
    return [(scene, await _run(scene)) for scene in scenes]


async def _run(scene: Scene) -> Result:
    result, chance = Result(), random.Random(scene.seed)
    async with _open_fleet(scene) as url, open_session() as session:
        begun, at = perf_counter(), 0.0
        async with asyncio.TaskGroup() as group:
            for _ in range(scene.orders):
                at += chance.expovariate(scene.rate)
                await asyncio.sleep(max(0.0, begun + at - perf_counter()))
                group.create_task(_ask(session, url, draw(chance, scene.service), result))
        result.seconds = perf_counter() - begun
    result.used /= len(scene.slowness) * result.seconds
    return result


async def _ask(session: ClientSession, url: str, seconds: float, result: Result) -> None:
    asked = perf_counter()
    async with session.post(f"{url}/v1/run", json={"workflow": doze("fleet", seconds)}) as response:
        document = await response.json()
        if response.status == 200:
            result.latencies.append(perf_counter() - asked)
            result.used += seconds
        else:
            result.refused[document["code"]] += 1


@asynccontextmanager
async def _open_fleet(scene: Scene) -> AsyncIterator[str]:
    """Where callers of a fleet as the scene has it are awaited."""
    flags = ["--capacity", str(scene.capacity), *(["--busy-is-ready"] if scene.steering == "none" else [])]
    async with AsyncExitStack() as stack:
        ports = {}
        for tag in "abc"[: len(scene.slowness)]:
            engine = await stack.enter_async_context(run_engine("--concurrency", "1"))
            converter = await stack.enter_async_context(run_converter(engine, *flags))
            ports[tag] = urlsplit(converter.url).port or 0
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="benchmark-")))
        port = free_port()
        path = HAPROXY.write(folder, ports, Changes(port))
        if scene.balance == "round robin":
            path.write_text(path.read_text().replace("balance leastconn", "balance roundrobin"))
        stack.enter_context(_run_haproxy(path))
        await asyncio.sleep(SETTLING)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _run_haproxy(path: Path) -> Iterator[None]:
    process = subprocess.Popen(HAPROXY.command(HAPROXY.run, path), stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
