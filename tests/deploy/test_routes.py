"""Whatever names a job or an output by an id with a tag is sent to the replica of that tag, by every load balancer."""

import asyncio
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession, web

from converter.link.loopback import free_port
from tests.deploy.balancers import KINDS, Changes, Kind

PATIENCE = 60.0
"""Seconds after which a wait for a load balancer fails."""

PATHS = ("/v1/jobs/", "/v1/outputs/", "/api/v2/jobs/", "/runpod/status/", "/runpod/cancel/")


@asynccontextmanager
async def replica(tag: str) -> AsyncIterator[int]:
    """Answers everything with its tag; its port."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=tag)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield port
    finally:
        await runner.cleanup()


@asynccontextmanager
async def balancer(kind: Kind, folder: Path, ports: dict[str, int]) -> AsyncIterator[str]:
    """The load balancer in front of the replicas, once it serves."""
    port = free_port()
    command = kind.command(kind.run, kind.write(folder, ports, Changes(port)))
    process = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(PATIENCE), ClientSession() as session:
            while True:
                with suppress(ClientError):
                    async with session.get(url) as response:
                        if response.status == 200:
                            break
                await asyncio.sleep(0.05)
        yield url
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_jobs_are_looked_for_where_they_are(kind: Kind, tmp_path: Path) -> None:
    if kind.program() is None:
        pytest.skip(f"{kind.name} is not installed")
    async with AsyncExitStack() as stack:
        ports = {tag: await stack.enter_async_context(replica(tag)) for tag in "abc"}
        url = await stack.enter_async_context(balancer(kind, tmp_path, ports))
        session = await stack.enter_async_context(ClientSession())
        for path in PATHS:
            for tag in ports:
                async with session.get(f"{url}{path}{tag}-1") as response:
                    assert await response.text() == tag, path
