"""`python -m benchmarks.soak`: whether the converter's memory stays as it is over thousands of outputs of 1 MB.

Several callers take turns in every form of a request and its answer: base64 and raw bytes, events, a picture as base64
and as a part of a form. Jobs whose results are kept on purpose (in the background, by key) are left out: they have a
bound of their own, `--keep-bytes`. Leaves starting processes to `processes`. Invariant: memory is read while nothing is
in flight, and every answer has had the right bytes.
"""

import argparse
import asyncio
import json
import os
import sys
from base64 import b64decode, b64encode
from collections.abc import Sequence
from io import BytesIO
from itertools import count, islice
from typing import Any

import psutil
from aiohttp import ClientSession, FormData
from PIL import Image

from benchmarks.clients import Caller, Unexpected, open_bare, open_session
from benchmarks.plan import plant_picture
from benchmarks.processes import MB, Converter, Engine, run_converter, run_engine
from benchmarks.workflows import paint_beside, pass_on, repeat

INTERVAL = 500
"""Requests between two readings of memory; the first is what the last is compared with."""

RISE = 0.10
"""Share by which memory may have risen at the end."""

SIDE = 590
"""Pixels of a square of noise that is a PNG of 1 MB."""


class Soak:
    """The callers. `drawn` is what the engine answers from its cache, `photo` what is sent in."""

    def __init__(self, url: str, session: ClientSession, drawn: bytes, photo: bytes) -> None:
        self._run = f"{url}/v1/run"
        self._session = session
        self._drawn = drawn
        self._photo = photo
        self._pixels = _read_pixels(photo)
        self._callers = {
            accept: Caller(url, session, accept) for accept in ("application/json", "image/png", "text/event-stream")
        }

    async def ask(self, number: int) -> None:
        """One request, in the form that its number gives it; raises Unexpected unless the answer is right."""
        forms = (self._take_json, self._take_bytes, self._follow, self._send_base64, self._send_form)
        await forms[number % len(forms)]()

    async def _take_json(self) -> None:
        self._check(await self._callers["application/json"].run(paint_beside(repeat("soak"))), self._drawn)

    async def _take_bytes(self) -> None:
        self._check(await self._callers["image/png"].run(paint_beside(repeat("soak"))), self._drawn)

    async def _follow(self) -> None:
        body = await self._callers["text/event-stream"].ask(paint_beside(repeat("soak")))
        *_, last = body.strip().rpartition(b"data: ")
        self._check(_find_picture(json.loads(last)), self._drawn)

    async def _send_base64(self) -> None:
        body = json.dumps({"workflow": paint_beside(pass_on("soak-photo", b64encode(self._photo).decode()))}).encode()
        await self._send(data=BytesIO(body), headers={"Content-Type": "application/json"})

    async def _send_form(self) -> None:
        form = FormData()
        workflow = paint_beside(pass_on("soak-photo", {"part": "photo"}))
        form.add_field("request", json.dumps({"workflow": workflow}), content_type="application/json")
        form.add_field("photo", self._photo, filename="photo.png", content_type="image/png")
        await self._send(data=form)

    async def _send(self, **request: Any) -> None:
        async with self._session.post(self._run, **request) as response:
            body = await response.read()
        if response.status != 200:
            raise Unexpected(f"the converter answers {response.status}: {body[:300]!r}")
        self._check(_read_pixels(_find_picture(json.loads(body))), self._pixels)

    def _check(self, data: bytes, expected: bytes) -> None:
        if data != expected:
            raise Unexpected(f"not the picture that was expected: {len(data)} bytes, {data[:16]!r}")


def _find_picture(result: Any) -> bytes:
    return b64decode(result["outputs"][0]["data"])


def _read_pixels(png: bytes) -> bytes:
    with Image.open(BytesIO(png)) as picture:
        return picture.tobytes()


def _make_noise() -> bytes:
    data = BytesIO()
    Image.frombytes("RGB", (SIDE, SIDE), os.urandom(3 * SIDE * SIDE)).save(data, "PNG")
    return data.getvalue()


async def soak(engine: Engine, requests: int, callers: int) -> list[float]:
    """Ask so many times; megabytes after each interval."""
    print(f"{'requests':>10} {'RSS, MB':>10} {'peak, MB':>10} {'open files':>10}")
    found: list[float] = []
    async with (
        open_bare(engine.url) as bare,
        open_session() as session,
        run_converter(engine) as converter,
    ):
        drawn = await plant_picture(bare, "soak", MB)
        crowd = Soak(converter.url, session, drawn, _make_noise())
        numbers = count()
        for begun in range(0, requests, INTERVAL):
            turns = islice(numbers, min(INTERVAL, requests - begun))
            await _take_turns(crowd, turns, callers)
            found.append(await _read(converter, min(begun + INTERVAL, requests)))
    return found


async def _take_turns(crowd: Soak, turns: "islice[int]", callers: int) -> None:
    async def call() -> None:
        for number in turns:
            await crowd.ask(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call())


async def _read(converter: Converter, requests: int) -> float:
    """One line; resident megabytes."""
    files = psutil.Process(converter.process.pid).num_fds()
    rss, peak = converter.rss(), converter.peak()
    converter.forget_peak()
    print(f"{requests:>10} {rss:>10.1f} {peak:>10.1f} {files:>10}", flush=True)
    return rss


def judge(found: Sequence[float]) -> str:
    """What is wrong with the megabytes after each interval; nothing, if there are too few to be compared."""
    rise = found[-1] / found[0] - 1
    return f"memory rose by {rise:.0%}, more than {RISE:.0%}" if rise > RISE else ""


def main(words: Sequence[str]) -> int:
    """Run and print. Returns the exit status: 1 where memory rose."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description="Watch the converter's memory over many outputs of 1 MB."
    )
    parser.add_argument("--requests", type=int, default=5000, help="how many (default: %(default)s)")
    parser.add_argument("--callers", type=int, default=8, help="how many ask at once (default: %(default)s)")
    options = parser.parse_args(words)

    async def run() -> list[float]:
        async with run_engine() as engine:
            return await soak(engine, options.requests, options.callers)

    wrong = judge(asyncio.run(run()))
    print(wrong or "memory is flat")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
