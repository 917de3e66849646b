"""The websocket against a fake ComfyUI, and against servers that greet late, hang, flood or leave."""

import asyncio
import json
import logging
import socket
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha1
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest
from websockets.asyncio.server import ServerConnection, serve

from converter.core.events import (
    Advanced,
    Alive,
    Began,
    Cached,
    Entered,
    Executed,
    Picture,
    Released,
    Sound,
    Succeeded,
)
from converter.link.answers import prompt_body
from converter.link.client import EngineClient
from converter.link.session import Session, Timing
from converter.link.wire import GREETING, Message, Status, parse
from tests.fakes import recordings
from tests.fakes.changes import Changes
from tests.fakes.engine import FakeEngine
from tests.fakes.faults import Faults

PATIENCE = 30.0
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
STATUS = json.dumps({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "x"}})
PREVIEW = b"\0\0\0\1\0\0\0\2pixels"
# Delays so long that a test that waits for one fails.
NEVER = Timing(delay=1e9, longest=1e9)


class Ear:
    """A listener that keeps all that it hears; `until` waits for any of it."""

    def __init__(self, *, wants: bool = True) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.client_ids: list[str] = []
        self.wants = wants
        self._changes = Changes()

    def connected(self, client_id: str) -> None:
        self.client_ids.append(client_id)
        self._note("connected", client_id)

    def disconnected(self, reason: str) -> None:
        self._note("disconnected", reason)

    def wants_progress(self, prompt_id: str) -> bool:
        return self.wants

    def message(self, prompt_id: str, sound: Sound) -> None:
        self._note(prompt_id, sound)

    def picture(self, picture: Picture) -> None:
        self._note("picture", picture)

    def status(self, remaining: int) -> None:
        self._note("status", remaining)

    def _note(self, what: str, value: Any) -> None:
        self.heard.append((what, value))
        self._changes.notify()

    def all(self, what: str) -> list[Any]:
        """Everything of one kind, or of one prompt."""
        return [value for kind, value in self.heard if kind == what]

    def words(self) -> list[str]:
        """What came, without what it said."""
        return [kind for kind, _ in self.heard]

    async def until(self, condition: Callable[[], object]) -> None:
        await self._changes.until(condition, PATIENCE)

    async def until_word(self, word: str) -> None:
        await self.until(lambda: word in self.words())

    async def until_connected(self, times: int = 1) -> None:
        await self.until(lambda: len(self.client_ids) >= times)


async def submit(engine: FakeEngine, client_id: str) -> str:
    prompt_id = str(uuid4())
    async with EngineClient(engine.url) as client:
        await client.submit(prompt_body(GRAPH, prompt_id, client_id))
    return prompt_id


# ---- with the fake engine


async def test_everything_about_a_prompt_is_heard_in_order() -> None:
    ear = Ear()
    async with FakeEngine() as engine, Session(engine.url, ear) as session:
        await ear.until_connected()
        own_id = session.client_id
        assert [own_id] == ear.client_ids
        assert ear.heard[1] == ("status", 0)
        prompt_id = await submit(engine, ear.client_ids[0])
        await ear.until(lambda: Released() in ear.all(prompt_id))
        sounds = [sound for sound in ear.all(prompt_id) if not isinstance(sound, Advanced | Alive)]
        assert sounds[:4] == [Began(), Cached(()), Entered("1"), Entered("2")]
        assert isinstance(sounds[4], Executed)
        assert sounds[5:] == [Succeeded(), Released()]
        last = next(s for s in reversed(ear.all(prompt_id)) if isinstance(s, Advanced))
        assert {(node.node_id, node.finished) for node in last.nodes} == {("1", True), ("2", True)}
        assert max(ear.all("status")) == 1
        assert all(socket.metadata for socket in engine.sockets.open), "previews shall name their prompt"
    assert session.client_id is None
    assert ear.heard[-1] == ("disconnected", "closing")


async def test_progress_that_nobody_wants_is_a_sign_of_life() -> None:
    ear = Ear(wants=False)
    async with FakeEngine() as engine, Session(engine.url, ear):
        await ear.until_connected()
        prompt_id = await submit(engine, ear.client_ids[0])
        await ear.until(lambda: Released() in ear.all(prompt_id))
        assert Alive() in ear.all(prompt_id)
        assert not any(isinstance(sound, Advanced) for sound in ear.all(prompt_id))


@pytest.mark.parametrize("at", range(1, 12))
async def test_a_socket_that_is_cut_is_replaced_at_once_by_a_fresh_one(at: int) -> None:
    ear = Ear()
    async with FakeEngine(faults=Faults(drop_socket_at=at)) as engine, Session(engine.url, ear, NEVER):
        await ear.until_connected()
        await submit(engine, ear.client_ids[0])
        await ear.until_connected(times=2)
        assert [word for word in ear.words() if word.endswith("connected")] == [
            "connected",
            "disconnected",
            "connected",
        ]
        assert ear.client_ids[0] != ear.client_ids[1]


async def test_an_engine_that_comes_later_is_found() -> None:
    ear = Ear()
    async with FakeEngine() as engine:
        await engine.crash()
        async with Session(engine.url, ear, Timing(delay=0.01, longest=0.05)):
            await engine.restart()
            await ear.until_connected()
            await engine.crash()
            await ear.until(lambda: ear.all("disconnected"))
            await engine.restart()
            await ear.until_connected(times=2)


async def test_a_deaf_socket_is_renewed() -> None:
    ear = Ear()
    async with FakeEngine() as engine, Session(engine.url, ear, NEVER) as session:
        await ear.until_connected()
        engine.deafen()
        await submit(engine, ear.client_ids[0])
        await engine.until_idle()
        assert ear.words() == ["connected", "status"]
        session.renew()
        await ear.until_connected(times=2)
        assert ear.all("disconnected") == ["renewed"]
        prompt_id = await submit(engine, ear.client_ids[1])
        await ear.until(lambda: Released() in ear.all(prompt_id))


async def test_messages_of_any_size_are_heard() -> None:
    ear = Ear()
    async with FakeEngine(faults=Faults(huge_message=5 * 2**20)) as engine, Session(engine.url, ear):
        await ear.until_connected()
        prompt_id = await submit(engine, ear.client_ids[0])
        await ear.until(lambda: Released() in ear.all(prompt_id))
        assert len(ear.client_ids) == 1


# ---- with servers by script

Script = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[str]:
    """A websocket server that runs `script` on each connection and then closes it; gives its HTTP URL."""
    async with serve(script, "127.0.0.1", 0, compression=None, max_size=None) as server:
        yield f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


def saying(*messages: str | bytes) -> Script:
    """Greets, says this, and stays."""

    async def script(connection: ServerConnection) -> None:
        for message in (STATUS, *messages):
            await connection.send(message)
        await connection.wait_closed()

    return script


def executing(node: str | None, prompt_id: str = "p") -> str:
    return json.dumps({"type": "executing", "data": {"node": node, "prompt_id": prompt_id}})


async def test_a_picture_without_metadata_belongs_to_the_node_that_runs() -> None:
    messages: list[str | bytes] = [
        PREVIEW,
        executing("3"),
        PREVIEW,
        executing("4", "q"),
        PREVIEW,
        executing(None, "q"),
        PREVIEW,
    ]
    ear = Ear()
    async with serving(saying(*messages)) as url, Session(url, ear):
        await ear.until(lambda: len(ear.all("picture")) == 4)
    assert [(p.prompt_id, p.node_id) for p in ear.all("picture")] == [
        (None, None),
        ("p", "3"),
        ("q", "4"),
        (None, None),
    ]
    assert {(p.content_type, p.data) for p in ear.all("picture")} == {("image/png", b"pixels")}


async def test_what_comes_before_the_greeting_or_concerns_nobody_is_passed_over() -> None:
    async def script(connection: ServerConnection) -> None:
        assert await connection.recv() == GREETING
        await connection.send(executing("1"))
        await connection.send(json.dumps({"data": {"prompt_id": "p"}, "type": "progress_state"}))
        await connection.send("junk")
        await connection.send(STATUS)
        await connection.send(json.dumps({"type": "executing", "data": {"node": "1"}}))
        await connection.send(json.dumps({"type": "feature_flags", "data": {}}))
        await connection.send(executing("2"))
        await connection.wait_closed()

    ear = Ear()
    async with serving(script) as url, Session(url, ear):
        await ear.until(lambda: ear.all("p"))
    assert ear.words() == ["connected", "status", "p", "disconnected"]


async def test_a_server_that_never_greets_is_asked_again() -> None:
    attempts = []

    async def script(connection: ServerConnection) -> None:
        attempts.append(connection)
        if len(attempts) > 1:
            await connection.send(STATUS)
        await connection.wait_closed()

    ear = Ear()
    async with serving(script) as url, Session(url, ear, Timing(opening=0.2, closing=0.1)):
        await ear.until_connected()
    assert len(attempts) >= 2


async def test_a_server_that_leaves_at_once_is_not_stormed() -> None:
    """The second attempt follows at once; then only `renew` brings another before its delay is over."""
    attempts = Changes()
    number = 0

    async def script(connection: ServerConnection) -> None:
        nonlocal number
        number += 1
        attempts.notify()
        await connection.recv()
        await connection.send(STATUS)

    ear = Ear()
    async with serving(script) as url, Session(url, ear, NEVER) as session:
        await ear.until(lambda: len(ear.all("disconnected")) == 2)
        assert number == 2
        session.renew()
        await attempts.until(lambda: number == 3, PATIENCE)


async def test_a_long_connection_begins_the_delays_anew() -> None:
    async def script(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(STATUS)

    ear = Ear()
    async with serving(script) as url, Session(url, ear, Timing(delay=1e9, longest=1e9, steady=0.0)):
        await ear.until_connected(times=5)


async def test_an_answer_that_is_no_websocket_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    attempts = 0
    changes = Changes()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        attempts += 1
        changes.notify()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    ear = Ear()
    with caplog.at_level(logging.WARNING, "converter.link.session"):
        async with server, Session(url, ear, Timing(delay=0.001, longest=0.001)):
            await changes.until(lambda: attempts == 4, PATIENCE)
    assert ear.heard == []
    assert [record.message for record in caplog.records] == [
        "no websocket to the engine: server rejected WebSocket connection: HTTP 404"
    ]


async def test_that_nobody_listens_yet_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr("converter.link.session.log.log", lambda level, *words: told.set_result(level))
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    async with Session(url, Ear(), Timing(delay=0.001, longest=0.001)), asyncio.timeout(PATIENCE):
        assert await told == logging.DEBUG


async def test_others_get_their_turn_during_a_flood() -> None:
    count = 5000
    flood = json.dumps({"type": "progress", "data": {"value": 1, "max": 2, "prompt_id": "p", "node": "1"}})
    turns = 0
    heard_at: dict[int, int] = {}

    class Counting(Ear):
        def message(self, prompt_id: str, sound: Sound) -> None:
            heard_at[turns] = heard_at.get(turns, 0) + 1
            super().message(prompt_id, sound)

    ear = Counting()
    async with serving(saying(*[flood] * count, executing(None))) as url, Session(url, ear):
        while Released() not in ear.all("p"):
            turns += 1
            await asyncio.sleep(0)
    assert sum(heard_at.values()) == count + 1
    assert max(heard_at.values()) <= 64


async def test_every_recording_is_heard_as_it_was_sent() -> None:
    for name in recordings.names():
        texts = [json.dumps(row["msg"]) for row in recordings.load(name) if row["kind"] == "ws_text"]
        words = [parse(text, lambda prompt_id: True) for text in texts]
        expected = [(w.prompt_id, w.sound) for w in words if isinstance(w, Message) and w.prompt_id is not None]
        statuses = [word.queue_remaining for word in words if isinstance(word, Status)]
        ear = Ear()
        async with serving(saying(*texts, executing(None, "end"))) as url, Session(url, ear):
            await ear.until_word("end")
        known = {"connected", "disconnected", "status", "end"}
        assert [pair for pair in ear.heard if pair[0] not in known] == expected
        assert ear.all("status") == [0, *statuses]


# ---- the end


@asynccontextmanager
async def mute() -> AsyncIterator[str]:
    """Greets, and then neither reads nor writes: an engine that was stopped."""
    tasks = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        key = head.lower().partition(b"sec-websocket-key:")[1] and head[head.lower().index(b"sec-websocket-key:") :]
        nonce = key.split(b"\r\n")[0].split(b":")[1].strip()
        accept = b64encode(sha1(nonce + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        writer.write(b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        writer.write(bytes([0x81, len(STATUS)]) + STATUS.encode())
        try:
            await asyncio.Event().wait()
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(
        lambda reader, writer: tasks.append(asyncio.create_task(greet(reader, writer))), "127.0.0.1", 0
    )
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_stopped_engine_does_not_hold_up_the_end() -> None:
    ear = Ear()
    async with mute() as url:
        async with Session(url, ear):
            await ear.until_connected()
            leaving = monotonic()
        # 0.5 s for the farewell; the rest is for a busy machine.
        assert monotonic() - leaving < 5
    assert ear.words() == ["connected", "status", "disconnected"]


async def test_it_ends_while_it_waits_for_its_next_attempt() -> None:
    ear = Ear()
    async with FakeEngine() as engine:
        await engine.crash()
        async with asyncio.timeout(PATIENCE), Session(engine.url, ear, NEVER):
            pass
    assert ear.heard == []


async def test_exceptions_of_the_block_come_out_as_they_are() -> None:
    async with FakeEngine() as engine:
        with pytest.raises(ZeroDivisionError):
            async with Session(engine.url, Ear()):
                raise ZeroDivisionError


async def test_cancellation_of_the_block_stays_a_cancellation() -> None:
    ear = Ear()

    async def block(url: str) -> None:
        async with Session(url, ear):
            await asyncio.Event().wait()

    async with FakeEngine() as engine:
        task = asyncio.create_task(block(engine.url))
        await ear.until_connected()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert ear.words()[-1] == "disconnected"


async def test_a_listener_that_raises_ends_the_block() -> None:
    class Broken(Ear):
        def message(self, prompt_id: str, sound: Sound) -> None:
            raise ZeroDivisionError

    async def block(url: str) -> None:
        async with Session(url, Broken()):
            await asyncio.Event().wait()

    async with serving(saying(executing("1"))) as url:
        with pytest.raises(ExceptionGroup) as caught:
            await block(url)
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)
