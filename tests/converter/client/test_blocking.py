"""The client in code that is not asynchronous: in scripts and threads, and refused where it would block a loop."""

import asyncio
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from converter import errors
from converter.client import Result, Status, SyncClient
from tests.converter.client.scripted import (
    OUTPUT,
    PICTURE,
    STATUS,
    WORKFLOW,
    hang,
    playing,
    problem,
    result,
    serving,
)

PATIENCE = 60.0
"""Seconds after which a wait for anything fails."""

ROOT = Path(__file__).parents[3]
DONE = playing(("status", STATUS), ("result", result(OUTPUT)))


def heed_interrupts() -> None:
    """Undo what a shell does to commands in its background, where these tests may run."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def test_calls_block_their_thread_and_nothing_stays_behind() -> None:
    def work(url: str) -> Result:
        with SyncClient(url, api_key="s3cret", timeout=50.0) as client:
            first = client.run(WORKFLOW, id="mine")
            assert client.run(WORKFLOW) == first
            return first

    async with serving(DONE) as server:
        await asyncio.to_thread(work, server.url)  # libraries keep a thread from their first use on
        threads = threading.active_count()
        done = await asyncio.to_thread(work, server.url)
        assert [output.content for output in done.outputs] == [PICTURE]
    assert {asked.headers["Authorization"] for asked in server.asked} == {"Bearer s3cret"}
    assert server.asked[0].document == {"workflow": WORKFLOW, "id": "mine", "timeout": 50.0}
    assert threading.active_count() <= threads + 1, "one more that `to_thread` may keep"


def test_who_has_not_entered_it_is_told_so() -> None:
    client = SyncClient("http://127.0.0.1:9")
    for _ in range(2):
        for call in (lambda: client.run(WORKFLOW), lambda: client.describe("a"), client.stream(WORKFLOW).__enter__):
            with pytest.raises(RuntimeError, match=r"use it in `with SyncClient\(\.\.\.\) as client:`"):
                call()
        with client:
            pass  # and who has left it, too


async def test_events_are_followed() -> None:
    def work(url: str) -> list[type]:
        with SyncClient(url) as client, client.stream(WORKFLOW) as events:
            return [type(event) for event in events]

    async with serving(DONE) as server:
        assert await asyncio.to_thread(work, server.url) == [Status, Result]


async def test_who_leaves_a_stream_closes_its_connection() -> None:
    async with serving(playing(("status", STATUS), then=hang)) as server:

        def work() -> None:
            with SyncClient(server.url) as client:
                with client.stream(WORKFLOW) as events:
                    next(events)
                gone = asyncio.run_coroutine_threadsafe(server.gone.wait(), loop)
                assert gone.result(PATIENCE), "while the client goes on"

        loop = asyncio.get_running_loop()
        await asyncio.to_thread(work)


async def test_faults_are_raised_as_they_are() -> None:
    def work(url: str) -> None:
        with SyncClient(url, patience=0.0) as client:
            with pytest.raises(errors.QueueFull) as raised:
                client.run(WORKFLOW)
            assert raised.value.retry_after == 7
            with client.stream(WORKFLOW) as events, pytest.raises(errors.QueueFull):
                next(events)

    async with serving(problem(429, "queue_full", {"Retry-After": "7"})) as server:
        await asyncio.to_thread(work, server.url)


async def test_threads_may_share_a_client() -> None:
    def work(url: str) -> list[str]:
        with SyncClient(url, limit=4) as client, ThreadPoolExecutor(8) as pool:
            return [done.id for done in pool.map(client.run, [WORKFLOW] * 24)]

    async with serving(DONE) as server:
        assert await asyncio.to_thread(work, server.url) == ["j1"] * 24
    assert len(set(server.keys)) == 24


async def test_inside_a_loop_it_is_refused_clearly() -> None:
    with pytest.raises(RuntimeError, match=r"use `async with Client\(\.\.\.\)`"), SyncClient():
        pass

    def enter() -> SyncClient:
        return SyncClient("http://127.0.0.1:9").__enter__()

    client = await asyncio.to_thread(enter)
    with pytest.raises(RuntimeError, match=r"use `async with Client\(\.\.\.\)`"):
        client.run(WORKFLOW)
    await asyncio.to_thread(client.__exit__, None, None, None)


SCRIPT = """
import sys
from converter.client import SyncClient
with SyncClient(sys.argv[1]) as client:
    try:
        client.run({})
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        sys.stdin.readline()
    client.run({})
"""


async def test_ctrl_c_ends_a_call_and_its_connection() -> None:
    """The first time the program goes on, the second time it ends."""
    pipe = asyncio.subprocess.PIPE
    async with serving(playing(("status", STATUS), then=hang)) as server, asyncio.timeout(PATIENCE):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SCRIPT, server.url),
            cwd=ROOT,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            preexec_fn=heed_interrupts,
        )
        assert child.stdout
        await server.came.wait()
        child.send_signal(signal.SIGINT)
        assert await child.stdout.readline() == b"interrupted\n"
        await server.gone.wait()
        server.came.clear()
        server.gone.clear()
        assert child.stdin
        child.stdin.write(b"\n")
        await server.came.wait()
        child.send_signal(signal.SIGINT)
        _, said = await child.communicate()
        await server.gone.wait()
    assert said.splitlines()[-1] == b"KeyboardInterrupt"
