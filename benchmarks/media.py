"""What large files cost the converter in memory, on their way in.

The engine is the tests' own, in this process: what it holds is not measured, and it takes uploads of any size. Each
figure comes from a converter that was started for it. Invariant: peaks are the system's own, not samples.
"""

import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from aiohttp import ClientSession, FormData

from benchmarks.clients import Unexpected, open_session
from benchmarks.plan import Plan
from benchmarks.processes import MB, Engine, run_converter
from benchmarks.report import AtMost, Finding
from tests.fakes.engine import FakeEngine
from tests.fakes.origin import Origin
from tests.fakes.pictures import encode, solid

FILM = 200 * MB
"""Bytes of a large input."""

LIMITS = ("--max-body", "1GiB", "--max-input", "1GiB", "--max-input-total", "1GiB", "--body-timeout", "600")

RISE = AtMost(32.0)


async def inputs(plan: Plan) -> list[Finding]:
    """An input of 200 MB: by how much the memory rises, for a part of the request and for a URL."""
    return await measure_inputs(FILM, *plan.flags)


async def measure_inputs(size: int, *flags: str) -> list[Finding]:
    """The same for inputs of `size` bytes."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session())
        engine = await stack.enter_async_context(FakeEngine(max_upload_size=2 * FILM))
        origin = await stack.enter_async_context(Origin())
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="benchmark-")))
        small, large = _plant(folder / "small.png", 2**19), _plant(folder / "large.png", size)
        origin.files |= {f"/{path.name}": path.read_bytes() for path in (small, large)}

        async def send(url: str, path: Path) -> None:
            await _send_part(session, url, path)

        async def name(url: str, path: Path) -> None:
            await _run(session, url, _order(f"{origin.url}/{path.name}"))

        ways: dict[str, Callable[[str, Path], Awaitable[None]]] = {"part of a form": send, "URL": name}
        findings = []
        for title, way in ways.items():
            known = ("--fetch-origins", origin.url, *LIMITS, *flags)
            async with run_converter(Engine(engine.url, None), *known) as converter:
                await way(converter.url, small)
                before = converter.rss()
                converter.forget_peak()
                begun = perf_counter()
                await way(converter.url, large)
                seconds = perf_counter() - begun
                rise = converter.peak() - before
            megabytes = size // MB
            findings.append(Finding("inputs", f"{megabytes} MB as {title}: rise of RSS", rise, "MB", RISE))
            findings.append(Finding("inputs", f"{megabytes} MB as {title}: rate", megabytes / seconds, "MB/s"))
    return findings


def _plant(path: Path, size: int) -> Path:
    """A picture with so many bytes: what comes after its end is nothing to whoever reads it."""
    with path.open("wb") as file:
        file.write(encode(solid(0xFF0000, 64, 64)[0]))
        file.truncate(size)
    return path


def _order(film: object) -> str:
    """A workflow whose loader does not look at the rest of the file, as the fake LoadImage would."""
    save = {"images": ["1", 0], "filename_prefix": "inputs"}
    workflow = {
        "1": {"class_type": "CustomLoader", "inputs": {"clip": film}},
        "2": {"class_type": "SaveImage", "inputs": save},
    }
    return json.dumps({"workflow": workflow})


async def _send_part(session: ClientSession, url: str, path: Path) -> None:
    form = FormData()
    form.add_field("request", _order({"part": "film"}))
    with path.open("rb") as file:
        form.add_field("film", file, filename=path.name, content_type="image/png")
        await _run(session, url, form)


async def _run(session: ClientSession, url: str, body: FormData | str) -> None:
    headers = {"Content-Type": "application/json"} if isinstance(body, str) else {}
    async with session.post(f"{url}/v1/run", data=body, headers=headers) as response:
        if response.status != 200:
            raise Unexpected(await response.text())
        await response.read()
