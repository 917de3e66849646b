"""What the converter costs in memory: idle, with large outputs, with many callers and many readers.

Each figure comes from a converter that was started for it, since memory that was once used stays with a process.
Invariant: peaks are the system's own, not samples.
"""

import asyncio
import re
from contextlib import AsyncExitStack
from functools import partial
from statistics import median
from time import perf_counter

from aiohttp import ClientSession

from benchmarks.clients import Caller, Unexpected, open_bare, open_session
from benchmarks.load import load, percentile
from benchmarks.plan import PICTURE, Plan, plant_picture
from benchmarks.processes import MB, run_converter
from benchmarks.report import AtMost, Finding
from benchmarks.workflows import paint, repeat, sleep

FILM = 200 * MB
"""Bytes of a large output."""

CALLERS = 64
READERS = 500


async def rss(plan: Plan) -> list[Finding]:
    """Idle; then 64 callers with 3 MB each at once, raw and as JSON."""
    find = partial(Finding, "rss")
    findings: list[Finding] = []
    async with open_bare(plan.engine.url) as bare, open_session() as session:
        await plant_picture(bare, "rss")
        for name, accept in (("raw", "image/png"), ("json", "application/json")):
            async with run_converter(plan.engine, *plan.flags) as converter:
                if not findings:
                    findings.append(find("idle", converter.rss(), "MB", AtMost(60.0)))
                converter.forget_peak()
                caller = Caller(converter.url, session, accept)
                await load(caller, partial(repeat, "rss"), CALLERS, 2.0 if plan.quick else 6.0, size=PICTURE)
                title = f"{CALLERS} callers, 3 MB {name}"
                findings.append(find(f"{title}: peak", converter.peak(), "MB", AtMost(90.0)))
                findings.append(find(f"{title}: afterwards, connections open", converter.rss(), "MB"))
    return findings


async def stream(plan: Plan) -> list[Finding]:
    """An output of 200 MB, raw: by how much the memory rises."""
    output = plan.engine.output
    if output is None:
        return []
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session())
        bare = await stack.enter_async_context(open_bare(plan.engine.url))
        file = await bare.execute(repeat("stream"))
        with (output / file["subfolder"] / file["filename"]).open("r+b") as large:
            large.truncate(FILM)
        findings = []
        for name, flags in (("over HTTP", ()), ("shared folder", ("--output-dir", str(output), "--keep-outputs"))):
            converter = await stack.enter_async_context(run_converter(plan.engine, *flags, *plan.flags))
            await Caller(converter.url, session, "image/png").run(paint("stream"))
            before = converter.rss()
            converter.forget_peak()
            seconds = await _download(session, f"{converter.url}/v1/run")
            rise = converter.peak() - before
            findings.append(Finding("stream", f"200 MB {name}: rise of RSS", rise, "MB", AtMost(32.0)))
            findings.append(Finding("stream", f"200 MB {name}: rate", FILM / MB / seconds, "MB/s"))
    return findings


async def _download(session: ClientSession, url: str) -> float:
    """Take the large output without keeping it; the seconds that this took."""
    begun, size = perf_counter(), 0
    async with session.post(url, json={"workflow": repeat("stream")}, headers={"Accept": "image/png"}) as response:
        async for chunk in response.content.iter_any():
            size += len(chunk)
    if size != FILM:
        raise Unexpected(f"{size} bytes of a large output came")
    return perf_counter() - begun


async def sse(plan: Plan) -> list[Finding]:
    """500 open event streams on one running job: by how much the memory rises, and how late progress arrives."""
    length = 6.0 if plan.quick else 20.0
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session())
        bare = await stack.enter_async_context(open_bare(plan.engine.url))
        converter = await stack.enter_async_context(run_converter(plan.engine, *plan.flags))
        if not await bare.knows("TestSleep"):
            return []
        await Caller(converter.url, session, "image/png").run(paint("sse"))
        before = converter.rss()
        converter.forget_peak()
        headers = {"Prefer": "respond-async"}
        body = {"workflow": sleep("sse", length)}
        async with session.post(f"{converter.url}/v1/run", json=body, headers=headers) as response:
            job = (await response.json())["id"]
        host, _, port = converter.url.removeprefix("http://").partition(":")
        request = f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        readers: list[Reader] = []
        loop, spent, opened = asyncio.get_running_loop(), converter.cpu(), perf_counter()
        for _ in range(READERS):
            _, reader = await loop.create_connection(lambda: Reader(request, length), host, int(port))
            readers.append(reader)
        async with asyncio.timeout(length + 60):
            await asyncio.gather(*(reader.ended for reader in readers))
        busy = (converter.cpu() - spent) / (perf_counter() - opened)
        rise = converter.peak() - before
    return _judge(readers, rise, busy)


class Reader(asyncio.Protocol):
    """Reads one event stream, and notes when which progress came: (moment, seconds that the job had run by then).

    `ended` is done with the last event. Does as little as can be, since 500 of them must not be what is slow.
    """

    def __init__(self, request: bytes, length: float) -> None:
        self.heard: list[tuple[float, float]] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._length = length

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        for match in _SNAPSHOT.finditer(data):
            share = float(match[1]) * int(match[3]) - int(match[2])
            if 0 < share < 1:
                self.heard.append((now, share * self._length))
        if b"event: result" in data or b"event: error" in data:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


_SNAPSHOT = re.compile(rb'"value":([\d.]+),"nodes_done":(\d+),"nodes_total":(\d+)')


def _judge(readers: list[Reader], rise: float, busy: float) -> list[Finding]:
    """The job began at an unknown moment: delays are counted from the quickest snapshot of all."""
    offsets = [moment - ran for reader in readers for moment, ran in reader.heard]
    quickest = min(offsets)
    delays = [1000 * (offset - quickest) for offset in offsets]
    find = partial(Finding, "sse")
    title = f"{READERS} streams"
    return [
        find(f"{title}: rise of RSS", rise, "MB", AtMost(40.0)),
        find(f"{title}: delay of progress, median", median(delays), "ms"),
        find(f"{title}: delay of progress, 99th percentile", percentile(delays, 0.99), "ms", AtMost(500.0)),
        find(f"{title}: delay of progress, largest", max(delays), "ms"),
        find(f"{title}: snapshots a reader", len(offsets) / len(readers), ""),
        find(f"{title}: CPU a second", 1000 * busy, "ms"),
    ]
