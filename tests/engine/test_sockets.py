"""What waits for one reader, and that a reader who stops does not stop others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from engine.server import listen
from engine.sockets import LAGGING, MAX_WAITING, MAX_WAITING_BYTES, Backlog, Hub
from engine.wire import Message
from tests.engine.waiting import until

KEYS = st.none() | st.sampled_from([("progress", "a"), ("preview", "a"), ("progress", "b")])


@given(st.lists(st.tuples(KEYS, st.booleans()), max_size=400))
def test_nothing_but_superseded_messages_is_lost(steps: list[tuple[tuple[str, ...] | None, bool]]) -> None:
    backlog = Backlog()
    sent: list[Message] = []
    taken: list[Message] = []
    for number, (key, take) in enumerate(steps):
        if take and backlog:
            taken.append(backlog.take())
        else:
            message = Message(str(number), key=key)
            sent.append(message)
            backlog.add(message)
    while backlog:
        taken.append(backlog.take())
    assert backlog.size == 0
    places = [sent.index(message) for message in taken]
    assert places == sorted(places)
    for message in set(sent) - set(taken):
        later = sent[sent.index(message) + 1 :]
        assert message.key is not None
        assert any(other.key == message.key for other in later)


def test_a_reader_that_keeps_up_gets_everything() -> None:
    backlog = Backlog()
    for number in range(LAGGING):
        backlog.add(Message(str(number), key=("progress",)))
    assert len(backlog) == LAGGING


def test_previews_of_both_layouts_do_not_supersede_each_other() -> None:
    backlog = Backlog()
    for number in range(LAGGING):
        backlog.add(Message(str(number), key=("preview",), flagged=number % 2 == 0))
    backlog.add(Message("last"))
    assert [backlog.take().payload for _ in range(len(backlog))] == [str(LAGGING - 2), str(LAGGING - 1), "last"]


def test_there_is_an_end_to_patience() -> None:
    backlog = Backlog()
    for number in range(MAX_WAITING):
        backlog.add(Message(str(number)))
    patient = [backlog.hopeless]
    backlog.add(Message("one more"))
    assert [*patient, backlog.hopeless] == [False, True]
    large = Backlog()
    large.add(Message(b"x" * MAX_WAITING_BYTES))
    patient = [large.hopeless]
    large.add(Message(b"x"))
    assert [*patient, large.hopeless] == [False, True]


@pytest.fixture
async def hub() -> AsyncIterator[tuple[Hub, str]]:
    """A hub behind a server of its own, and its address."""
    hub = Hub({"supports_preview_metadata": True})
    app = web.Application()

    async def serve(request: web.Request) -> web.WebSocketResponse:
        return await hub.serve(request, lambda: 0, lambda client: "7" if client == "busy" else None)

    app.router.add_get("/ws", serve)
    async with listen(app, "127.0.0.1", 0) as port:
        yield hub, f"http://127.0.0.1:{port}/ws"


async def receive(socket: aiohttp.ClientWebSocketResponse) -> aiohttp.WSMessage:
    return await socket.receive(timeout=30)


async def test_a_reader_that_stops_delays_nobody_and_is_closed(hub: tuple[Hub, str]) -> None:
    center, url = hub
    async with aiohttp.ClientSession() as session:
        reader = await session.ws_connect(f"{url}?clientId=reader", max_msg_size=0)
        _, stuck = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]), limit=1024)
        key = "dGhlIHNhbXBsZSBub25jZQ=="
        stuck.write(
            f"GET /ws?clientId=stuck HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        await receive(reader)
        await until(lambda: len(center._sockets) >= 2)
        megabyte = "x" * (1 << 20)
        received = 0
        for number in range(400):
            center.send(Message(f"{number} {megabyte}"))
            text = (await receive(reader)).data
            received += text.startswith(f"{number} ")
        assert received == 400
        await until(lambda: len(center._sockets) <= 1)
        assert not reader.closed
        stuck.close()
        await reader.close()


async def test_a_second_socket_takes_over_and_stays_when_the_first_one_goes(hub: tuple[Hub, str]) -> None:
    center, url = hub
    async with aiohttp.ClientSession() as session:
        old = await session.ws_connect(f"{url}?clientId=me")
        await receive(old)
        new = await session.ws_connect(f"{url}?clientId=me")
        await receive(new)
        center.send(Message("to me", "me"))
        assert (await receive(new)).data == "to me"
        center.send(Message("to all"))
        assert (await receive(old)).data == "to all"
        assert (await receive(new)).data == "to all"
        await old.close()
        await until(lambda: len(center._sockets) <= 1)
        center.send(Message("still me", "me"))
        center.send(Message("to nobody", "nobody"))
        center.send(Message("to all"))
        assert (await receive(new)).data == "still me"
        assert (await receive(new)).data == "to all"
        await new.close()


async def test_who_comes_in_the_middle_learns_the_node(hub: tuple[Hub, str]) -> None:
    _, url = hub
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}?clientId=busy") as socket:
        assert (await receive(socket)).json()["type"] == "status"
        assert (await receive(socket)).json() == {"type": "executing", "data": {"node": "7"}}


@pytest.mark.parametrize(
    ("frames", "answered"),
    [
        (['{"type": "feature_flags", "data": {"supports_preview_metadata": true}}'], True),
        (["junk", "[1]", b"binary", "[" * 5000, '{"type": "feature_flags"}'], False),
        (['{"type": "other"}', '{"type": "feature_flags", "data": {"supports_preview_metadata": true}}'], None),
        (['{"type": "feature_flags", "data": {"supports_preview_metadata": 1}}', '{"type": "feature_flags"}'], False),
    ],
    ids=["flags", "junk first", "another object first", "flags that are not exactly true"],
)
async def test_flags(hub: tuple[Hub, str], frames: list[str | bytes], answered: bool | None) -> None:
    center, url = hub
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}?clientId=me") as socket:
        await receive(socket)
        for frame in frames:
            await (socket.send_str(frame) if isinstance(frame, str) else socket.send_bytes(frame))
        if answered is not None:
            message = (await receive(socket)).json()
            assert message == {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
        await socket.ping()
        center.send(Message(b"with metadata", "me", flagged=True))
        center.send(Message(b"without", "me", flagged=False))
        center.send(Message(b"any", "me"))
        expected = b"with metadata" if answered else b"without"
        assert [(await receive(socket)).data, (await receive(socket)).data] == [expected, b"any"]


async def test_all_are_told_when_the_server_stops() -> None:
    hub = Hub({})
    app = web.Application()

    async def serve(request: web.Request) -> web.WebSocketResponse:
        return await hub.serve(request, lambda: 0, lambda client: None)

    app.router.add_get("/ws", serve)
    async with aiohttp.ClientSession() as session:
        async with listen(app, "127.0.0.1", 0) as port:
            socket = await session.ws_connect(f"http://127.0.0.1:{port}/ws")
            await receive(socket)
            await hub.close()
            assert (await receive(socket)).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == aiohttp.WSCloseCode.GOING_AWAY
