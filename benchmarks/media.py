"""What large files cost the converter in memory, on their way in and out.

The engine is the tests' own, in this process, as are a bucket and who takes PUTs: what they hold is not measured. Each
figure comes from a converter that was started for it. Invariant: peaks are the system's own, not samples.
"""

import json
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from uuid import uuid4

from aiohttp import ClientResponse, ClientSession, FormData

from benchmarks.clients import Unexpected, open_session
from benchmarks.plan import Plan
from benchmarks.processes import MB, Engine, run_converter
from benchmarks.report import AtMost, Finding
from tests.fakes.bucket import NAME, serve_bucket
from tests.fakes.engine import FakeEngine
from tests.fakes.origin import Origin
from tests.fakes.pictures import encode, solid
from tests.fakes.taker import Taker

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


async def outputs(plan: Plan) -> list[Finding]:
    """An output of 200 MB: by how much the memory rises, for every way in which it can be delivered."""
    return await measure_outputs(FILM, *plan.flags)


async def measure_outputs(size: int, *flags: str, only: Collection[str] = ()) -> list[Finding]:
    """The same for an output of `size` bytes, and, if that is given, for these ways only."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session())
        engine = await stack.enter_async_context(FakeEngine())
        taker = await stack.enter_async_context(Taker())
        bucket = stack.enter_context(serve_bucket())
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="benchmark-")))
        destinations = folder / "destinations.toml"
        options = ", ".join(f'{name} = "{value}"' for name, value in bucket.options.items())
        stores = {
            "folder": f'url = "{(folder / "store").as_uri()}"',
            "s3": f'url = "s3://{NAME}"\noptions = {{{options}}}',
        }
        destinations.write_text("\n".join(f"[{name}]\n{store}" for name, store in stores.items()))
        ways: dict[str, object] = {
            "JSON": "inline",
            "bytes": "raw",
            "multipart": "multipart",
            "ZIP": "zip",
            "link": "url",
            "store in a folder": {"storage": "folder"},
            "store of S3's protocol": {"storage": "s3"},
            "PUT": {"put": f"{taker.url}/ok/film"},
        }
        findings = []
        for title in only or ways:
            way = ways[title]
            known = ("--destinations-file", str(destinations), "--put-origins", taker.url, *flags)
            async with run_converter(Engine(engine.url, None), *known) as converter:
                await _take(session, converter.url, "small", way)
                name = uuid4().hex  # what engines have cached lasts until they are asked for something else
                await _take(session, converter.url, name, way)
                _grow(engine.folders.root / "output", name, size)
                before = converter.rss()
                converter.forget_peak()
                begun = perf_counter()
                taken = await _take(session, converter.url, name, way)
                seconds = perf_counter() - begun
                rise = converter.peak() - before
            if isinstance(way, str) and taken < size:
                raise Unexpected(f"{taken} bytes of a large output came")
            megabytes = size // MB
            findings.append(Finding("outputs", f"{megabytes} MB as {title}: rise of RSS", rise, "MB", RISE))
            findings.append(Finding("outputs", f"{megabytes} MB as {title}: rate", megabytes / seconds, "MB/s"))
    return findings


def _grow(folder: Path, name: str, size: int) -> None:
    """Let the one picture that was saved under this name have so many bytes."""
    [path] = folder.rglob(f"{name}_*.png")
    with path.open("r+b") as file:
        file.truncate(size)


async def _take(session: ClientSession, url: str, name: str, delivery: object) -> int:
    """Have a picture delivered, the same each time; the bytes that came, those of a link included."""
    empty = {"width": 64, "height": 64, "batch_size": 1, "color": 0}
    workflow = {
        "1": {"class_type": "EmptyImage", "inputs": empty},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": name}},
    }
    body = {"workflow": workflow, "outputs": {"delivery": delivery}}
    async with session.post(f"{url}/v1/run", json=body) as response:
        if response.status != 200:
            raise Unexpected(await response.text())
        if delivery != "url":
            return await _count(response)
        link = (await response.json())["outputs"][0]["url"]
    async with session.get(f"{url}{link}") as response:
        return await _count(response)


async def _count(response: ClientResponse) -> int:
    return sum([len(chunk) async for chunk in response.content.iter_any()])


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
