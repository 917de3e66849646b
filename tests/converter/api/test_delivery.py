"""Answers arrive whole or visibly broken, at their reader's pace, and cost next to no memory."""

import asyncio
import base64
import email.policy
import json
from email.parser import BytesParser
from typing import Any

import psutil
import pytest

from converter.api import answers
from converter.errors import Fault
from tests.converter.api.exchange import Wire, connect, request
from tests.converter.api.sources import Source, content
from tests.converter.faults.graphs import picture, two_pictures
from tests.converter.faults.replica import Caller, converter
from tests.fakes.engine import FakeEngine

SHAPES = {"json": "application/json", "raw": "image/png", "multipart": "multipart/mixed", "stream": "text/event-stream"}
"""What a caller accepts, by the shape of the answer."""

RAW = {"Accept": "image/png"}
MEGABYTE = 2**20


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    """Whatever the engine says that it has made: these are the bytes."""
    source = Source()
    monkeypatch.setattr("converter.fitting.EngineFiles", lambda client: source)
    return source


def order(shape: str, **fields: Any) -> bytes:
    graph = two_pictures(1, 2) if shape == "multipart" else picture(1)
    body = json.dumps({"workflow": graph, **fields}).encode()
    return request(body=body, Accept=SHAPES[shape])


async def read_body(wire: Wire) -> bytes:
    """The whole body, however it is framed; raises IncompleteReadError where it breaks off."""
    async with asyncio.timeout(60):
        head = (await wire.reader.readuntil(b"\r\n\r\n")).decode().lower()
        if "transfer-encoding: chunked" not in head:
            length = int(head.split("content-length: ")[1].split("\r\n")[0])
            return await wire.reader.readexactly(length)
        body = bytearray()
        while size := int(await wire.reader.readuntil(b"\r\n"), 16):
            body += (await wire.reader.readexactly(size + 2))[:-2]
        await wire.reader.readexactly(2)
        return bytes(body)


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_answer_that_breaks_midway_is_aborted(source: Source, caller: Caller, shape: str) -> None:
    async with connect(caller.url) as wire:
        source.breaks_at = 2 * MEGABYTE
        await wire.send(order(shape))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await read_body(wire)
    await caller.until_empty()
    assert source.files == 0
    source.breaks_at = None
    assert len((await caller.run(picture(2), RAW)).body) == source.size


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("error", [RuntimeError("a mistake"), Fault("a fault")])
async def test_a_mistake_in_the_middle_of_an_answer_is_not_followed_by_another(
    source: Source, caller: Caller, shape: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(caller.url) as wire:
        source.breaks_at, source.error = 2 * MEGABYTE, error
        await wire.send(order(shape))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await read_body(wire)
    await caller.until_empty()
    logged = [record.getMessage() for record in caplog.get_records("call") if record.exc_info]
    assert logged == ([] if isinstance(error, Fault) else ["a request failed"])
    caplog.clear()


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_reader_who_takes_nothing_is_left(
    source: Source, engine: FakeEngine, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "STALL", 0.3)
    source.size = 64 * MEGABYTE  # more than all buffers between the two
    async with converter(engine.url, deliveries=1) as caller, connect(caller.url) as wire:
        await wire.send(order(shape))
        await caller.until(lambda: source.files)
        await caller.until(lambda: not source.files)
        await caller.until_empty()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await read_body(wire)
        source.size = MEGABYTE
        assert (await caller.run(picture(2), RAW)).body == content(MEGABYTE)


async def test_a_slow_reader_holds_no_place(source: Source, engine: FakeEngine) -> None:
    source.size = 64 * MEGABYTE
    async with converter(engine.url, capacity=1) as caller, connect(caller.url) as slow:
        await slow.send(order("raw"))
        await caller.until(lambda: source.files)
        await caller.until(lambda: not caller.tickets)
        source.size = MEGABYTE
        assert (await caller.run(picture(2), RAW)).status == 200


async def test_deliveries_wait_for_their_turn_and_never_leak(source: Source, engine: FakeEngine) -> None:
    source.size = 64 * MEGABYTE
    async with converter(engine.url, deliveries=1) as caller:
        for _ in range(3):
            async with connect(caller.url) as slow:
                await slow.send(order("raw"))
                await caller.until(lambda: source.files == 1)
                waiting = caller.start(picture(2), RAW)
                await caller.until(lambda: len(engine.finished_prompts) % 2 == 1)  # the warm-up's and pairs
                assert source.files == 1
            assert len((await waiting).body) == source.size  # the other has left
        await caller.until_empty()
        assert source.files == 0


async def test_leaving_at_any_moment_of_an_answer_leaves_nothing(source: Source, engine: FakeEngine) -> None:
    source.size = 64 * MEGABYTE
    async with converter(engine.url, deliveries=1, capacity=1) as caller:
        for shape in SHAPES:
            for read in (0, 1, 2_000_000):
                async with connect(caller.url) as wire:
                    await wire.send(order(shape))
                    await caller.until(lambda: source.files)
                    if read:
                        await wire.reader.readexactly(read)
                await caller.until_empty()
                assert source.files == 0


async def test_two_hundred_megabytes_go_through_in_little_memory(source: Source, caller: Caller) -> None:
    source.size = 200 * MEGABYTE
    process, taken = psutil.Process(), 0
    before = peak = process.memory_info().rss
    url = f"{caller.url}/v1/run"
    async with caller.session.post(url, json={"workflow": picture(1)}, headers=RAW) as response:
        assert response.content_length == source.size
        async for piece in response.content.iter_any():
            taken += len(piece)
            peak = max(peak, process.memory_info().rss)
    assert taken == source.size
    assert peak - before < 32 * MEGABYTE


@pytest.mark.parametrize("size", [1, 2, 2**18 - 1, 2**18, 2**18 + 1, 3 * 2**18 + 2])
async def test_all_shapes_have_the_same_bytes(source: Source, caller: Caller, size: int) -> None:
    source.size = size
    expected = content(size)
    assert (await caller.run(picture(1), RAW)).body == expected
    document = (await caller.run(picture(1))).document
    assert [base64.b64decode(output["data"], validate=True) for output in document["outputs"]] == [expected]
    assert document["outputs"][0]["size"] == size
    reply = await caller.run(two_pictures(1, 2), {"Accept": "multipart/mixed"})
    head = f"Content-Type: {reply.headers['Content-Type']}\r\n\r\n".encode()
    message = BytesParser(policy=email.policy.HTTP).parsebytes(head + reply.body)
    parts = list(message.iter_parts())
    assert [part.get_payload(decode=True) for part in parts] == [expected] * 2
    assert [part["X-Node-Id"] for part in parts] == ["2", "4"]
    assert [part.get_content_type() for part in parts] == ["image/png"] * 2
    assert all(str(part.get_filename()).endswith("_.png") for part in parts)
    async with caller.events(picture(1)) as stream:
        last = await stream.last()
    assert last.name == "result"
    assert base64.b64decode(last.data["outputs"][0]["data"]) == expected


async def test_a_file_of_unknown_size_is_measured_before_it_is_announced(source: Source, caller: Caller) -> None:
    source.size, source.announced = MEGABYTE, False
    assert (await caller.run(picture(1), RAW)).body == content(MEGABYTE)


async def test_what_was_announced_and_is_broken_at_once_is_a_fault(source: Source, caller: Caller) -> None:
    """Small outputs are read before the answer begins: three times in vain."""
    source.size, source.breaks_at = 1000, 0
    before = source.opened
    reply = await caller.run(picture(1), RAW)
    assert (reply.status, reply.code) == (502, "engine_failed")
    assert source.opened - before == 3
    assert source.files == 0


async def test_a_picture_without_a_byte_is_a_fault(source: Source, caller: Caller) -> None:
    source.size = 0
    for shape in ("application/json", "image/png"):
        reply = await caller.run(picture(1), {"Accept": shape})
        assert (reply.status, reply.code) == (502, "engine_failed")
    assert source.files == 0


async def test_other_bytes_are_just_bytes(source: Source, caller: Caller) -> None:
    reply = await caller.run(picture(1), {"Accept": "application/octet-stream"})
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/octet-stream"
    reply = await caller.run(picture(1), {"Accept": "application/octet-stream, image/*;q=0.1"})
    assert reply.headers["Content-Type"] == "image/png"
    reply = await caller.run(picture(1), {"Accept": "video/*"})
    assert (reply.status, reply.code) == (406, "not_acceptable")
