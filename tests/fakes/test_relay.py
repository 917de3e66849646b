"""The relay does to connections what it is told, and to nothing else."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.relay import Action, Chance, Connection, Direction, Fate, Flow, Kind, Relay, kind_of

BODY = bytes(range(256)) * 4000


@pytest.fixture
async def target() -> AsyncIterator[str]:
    """A server that sends BODY to any GET, and echoes on /ws."""

    async def give(request: web.Request) -> web.Response:
        return web.Response(body=BODY)

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            await ws.send_str(message.data)
        return ws

    app = web.Application()
    app.router.add_get("/ws", echo)
    app.router.add_get("/view", give)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@given(
    sizes=st.lists(st.integers(1, 50)),
    after=st.integers(0, 300),
    action=st.sampled_from(["cut", "close", "half_close", "stall"]),
)
def test_a_flow_lets_exactly_so_many_bytes_pass(sizes: list[int], after: int, action: Action) -> None:
    flow = Flow(Fate(action, after), "to_client")
    passed = 0
    for size in sizes:
        allowed, happens = flow.admit(size)
        passed += allowed
        assert (happens == "pass") == (passed < after)
        assert allowed == size or passed == after
    assert passed == min(sum(sizes), after)


def test_the_other_direction_passes_whole() -> None:
    assert Flow(Fate("cut", 1, "to_engine"), "to_client").admit(100) == (100, "pass")


def test_chance_is_seeded() -> None:
    chance = Chance(7, {"http": {"cut": 0.5}})
    fates = [chance.fate("http", index) for index in range(50)]
    assert fates == [Chance(7, {"http": {"cut": 0.5}}).fate("http", index) for index in range(50)]
    assert {fate.action for fate in fates} == {"cut", "pass"}
    assert {chance.fate("websocket", index).action for index in range(50)} == {"pass"}


def test_kinds_are_told_by_the_request_line() -> None:
    heads = {b"GET /ws?clientId=a HTTP/1.1": "websocket", b"GET /api/ws": "websocket", b"POST /prompt": "http"}
    assert {head: kind_of(head) for head in heads} == heads


async def test_all_passes_without_a_script(target: str) -> None:
    async with Relay(target) as relay, open_session() as session:
        async with session.get(relay.url + "/view") as answer:
            assert await answer.read() == BODY
        async with session.ws_connect(relay.url + "/ws") as ws:
            await ws.send_str("hello")
            assert await ws.receive_str(timeout=10) == "hello"
        assert {kind for kind, _ in relay.history} == {"http", "websocket"}


async def test_a_tap_is_shown_all_bytes(target: str) -> None:
    heard: dict[Direction, bytes] = {"to_client": b"", "to_engine": b""}

    def tap(connection: Connection, direction: Direction, chunk: bytes) -> None:
        heard[direction] += chunk

    async with Relay(target) as relay, open_session() as session:
        relay.tap = tap
        assert await fetch(session, relay.url + "/view") == BODY
    assert heard["to_engine"].startswith(b"GET /view HTTP/1.1")
    assert heard["to_client"].endswith(BODY)


@pytest.mark.parametrize("action", ["cut", "close", "half_close"])
async def test_a_body_is_broken_off(target: str, action: Action) -> None:
    fate = Fate(action, after=len(BODY) // 2)
    async with Relay(target, script=[("http", fate)]) as relay, open_session() as session:
        with pytest.raises(aiohttp.ClientError):
            async with session.get(relay.url + "/view") as answer:
                await answer.read()
        async with session.get(relay.url + "/view") as answer:
            assert await answer.read() == BODY


async def test_a_refused_connection_is_not_the_others(target: str) -> None:
    script: list[tuple[Kind, Fate]] = [("websocket", Fate("refuse"))] * 2  # aiohttp tries a GET once more
    async with Relay(target, script=script) as relay, open_session() as session:
        async with session.get(relay.url + "/view") as answer:
            assert answer.status == 200
        with pytest.raises(aiohttp.ClientError):
            await session.ws_connect(relay.url + "/ws")
        relay.refusing = True
        relay.cut("http")
        with pytest.raises(aiohttp.ClientError):
            await session.get(relay.url + "/view")


async def test_living_websockets_can_be_cut_and_http_left_alone(target: str) -> None:
    async with Relay(target) as relay, open_session() as session, session.ws_connect(relay.url + "/ws") as ws:
        answer = await session.get(relay.url + "/view")
        relay.cut("websocket")
        assert (await ws.receive(timeout=10)).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        assert await answer.read() == BODY


async def test_a_stalled_direction_goes_on_when_resumed(target: str) -> None:
    async with Relay(target) as relay, open_session() as session, session.ws_connect(relay.url + "/ws") as ws:
        await ws.send_str("one")
        assert await ws.receive_str(timeout=10) == "one"
        relay.stall("to_client")
        await ws.send_str("two")
        with pytest.raises(TimeoutError):
            await ws.receive_str(timeout=0.2)
        relay.resume()
        assert await ws.receive_str(timeout=10) == "two"


async def test_a_scripted_stall_keeps_the_rest_for_later(target: str) -> None:
    fate = Fate("stall", after=100)
    async with Relay(target, script=[("http", fate)]) as relay, open_session() as session:
        reading = asyncio.create_task(fetch(session, relay.url + "/view"))
        await relay.until(lambda: any(connection.stalled for connection in relay.connections))
        assert not reading.done()
        relay.resume()
        assert await reading == BODY


async def test_an_engine_that_is_not_there_resets_the_client() -> None:
    async with Relay("http://127.0.0.1:1") as relay, open_session() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(relay.url + "/view")


def open_session() -> aiohttp.ClientSession:
    """A connection for each request: aiohttp would upgrade a kept-alive one."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))


async def fetch(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url) as answer:
        return await answer.read()
