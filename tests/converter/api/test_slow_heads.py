"""Heads of requests that come too slowly, or are too long: answered and closed, while all else is served."""

import asyncio
from contextlib import suppress

import pytest

from tests.converter.api.exchange import Wire, connect, exchange, request
from tests.converter.faults.graphs import picture
from tests.converter.faults.replica import PATIENCE, Caller, converter
from tests.fakes.engine import FakeEngine

HEAD = request("GET", "/livez", None)


@pytest.mark.parametrize(("before", "begun"), [(b"", 0), (HEAD, 0), (HEAD, 5)], ids=["first", "later", "joined"])
async def test_a_head_that_does_not_end_is_a_timeout(engine: FakeEngine, before: bytes, begun: int) -> None:
    async with converter(engine.url, header_timeout=0.3) as caller, connect(caller.url) as wire:
        if before:
            await wire.send(before + HEAD[:begun])
            assert (await wire.receive()).status == 200
        for byte in HEAD[begun:-2]:
            await wire.send(bytes([byte]))
        answer = await wire.receive()
        assert (answer.status, answer.document["code"], answer.document["retry"]) == (408, "request_timeout", "same")
        assert answer.headers["content-type"] == "application/problem+json; charset=utf-8"
        assert answer.headers["connection"] == "close"
        assert answer.headers["x-request-id"] == answer.document["request_id"]
        assert await wire.ends() == b""
        assert (await caller.run(picture(1))).colors == [1]


async def trickle(url: str) -> int:
    """Send a head byte after byte for as long as the server bears it; how many it was."""
    async with connect(url) as wire:
        ending = asyncio.create_task(_until_end(wire))
        for count in range(20_000):
            if ending.done():
                return count
            await wire.send(HEAD[count : count + 1] if count < len(HEAD) - 2 else b"x")
            await asyncio.sleep(0.01)
        raise AssertionError("the server bears anything")


async def _until_end(wire: Wire) -> None:
    with suppress(ConnectionError):  # it does not read on, so what we go on to send may be answered so
        await wire.ends()


async def test_many_slow_callers_hold_up_nobody_and_are_cut_off(engine: FakeEngine) -> None:
    async with converter(engine.url, header_timeout=1.0) as caller:
        slow = [asyncio.create_task(trickle(caller.url)) for _ in range(30)]
        assert (await caller.run(picture(1))).colors == [1]
        assert all(count > 1 for count in await asyncio.gather(*slow))


async def test_bodies_and_idle_connections_have_times_of_their_own(engine: FakeEngine) -> None:
    """Neither a body that takes longer than a head may, nor a connection without a request, is cut."""
    body = b'{"workflow": {}}'
    async with (
        converter(engine.url, header_timeout=0.2) as caller,
        connect(caller.url) as idle,
        connect(caller.url) as wire,
    ):
        await wire.send(request(body=None, Content_Type="application/json", Content_Length=str(len(body))))
        await caller.until(lambda: caller.tickets == 1)
        for byte in body:
            await wire.send(bytes([byte]))
            await asyncio.sleep(0.05)
        assert (await wire.receive()).status == 422
        for connection in (wire, idle):
            await connection.send(HEAD)
            assert (await connection.receive()).status == 200


async def test_a_head_in_pieces_leaves_no_time_limit_behind(engine: FakeEngine) -> None:
    async with converter(engine.url, header_timeout=1.0) as caller, connect(caller.url) as wire:
        for piece in (HEAD[:5], HEAD[5:10], HEAD[10:]):
            await wire.send(piece)
            await asyncio.sleep(0.01)
        assert (await wire.receive()).status == 200
        await asyncio.sleep(1.2)
        await wire.send(HEAD)
        assert (await wire.receive()).status == 200


async def test_a_body_of_a_caller_who_is_answered_already_is_no_head(engine: FakeEngine) -> None:
    """What comes of a body that nobody reads does not count for the next head."""
    async with converter(engine.url, header_timeout=0.2) as caller, connect(caller.url) as wire:
        await wire.send(request(path="/v1/jobs/none/cancel", body=None, Content_Length="40"))
        assert (await wire.receive()).status == 404
        for _ in range(40):
            await wire.send(b"x")
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        await wire.send(HEAD)
        assert (await wire.receive()).status == 200


@pytest.mark.parametrize("where", ["line", "field", "count"])
async def test_heads_that_are_too_long_are_refused(engine: FakeEngine, where: str) -> None:
    async with converter(engine.url, max_header=2048) as caller:
        fits, exceeds = {
            "line": (request("GET", "/livez?" + "x" * 1900, None), request("GET", "/livez?" + "x" * 2100, None)),
            "field": (request("GET", "/livez", None, X="x" * 1900), request("GET", "/livez", None, X="x" * 2100)),
            "count": (
                request("GET", "/livez", None, **{f"X{n}": "x" for n in range(100)}),
                request("GET", "/livez", None, **{f"X{n}": "x" for n in range(130)}),
            ),
        }[where]
        assert (await exchange(caller.url, fits)).status == 200
        refused = await exchange(caller.url, exceeds)
        assert (refused.status, refused.document["code"]) == (400, "invalid_request")


async def test_a_head_without_end_is_cut_off_where_it_is_too_long(caller: Caller) -> None:
    async with connect(caller.url) as wire, asyncio.timeout(PATIENCE):
        await wire.send(b"GET /livez HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000)
        assert (await wire.receive()).status == 400
        assert await wire.ends() == b""
