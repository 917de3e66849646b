"""What is at the engine's address, told from real sockets that are no engine."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from converter.core.absence import Missed
from converter.link.client import EngineClient, LinkError
from converter.link.diagnosis import diagnose

SECRET = "hunter2"


@asynccontextmanager
async def saying(answer: bytes) -> AsyncIterator[str]:
    """The address of a server that says this to everyone, and hangs up."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(say, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def http(status: int, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\nServer: %s\r\nContent-Length: %d\r\n\r\n%s" % (status, SECRET.encode(), len(body), body)


async def look(url: str, timeout: float = 30.0) -> Missed:
    async with EngineClient(url) as client:
        with pytest.raises(LinkError) as caught:
            await client.queue(timeout=timeout)
    missed = diagnose(caught.value)
    assert SECRET not in missed.reason, "nothing of what the other side says is repeated"
    assert url not in missed.reason, "callers read it"
    return missed


@pytest.mark.parametrize(
    ("answer", "words", "foreign"),
    [
        (http(404), "is no ComfyUI (status 404 to /queue)", True),
        (http(302), "is no ComfyUI (status 302 to /queue)", True),
        (http(404, b'{"type": "urn:converter:fault:not_found"}'), "is a converter, and no ComfyUI", True),
        (http(401, b'{"type": "urn:converter:fault:unauthorized"}'), "is a converter, and no ComfyUI", True),
        (http(404, b'{"type": "about:blank"}'), "is no ComfyUI (status 404 to /queue)", True),
        (http(404, b"[]"), "is no ComfyUI (status 404 to /queue)", True),
        (http(200, SECRET.encode()), "is no ComfyUI (its answer can't be read)", True),
        (b"SSH-2.0-%s\r\n" % SECRET.encode(), "is no ComfyUI (its answer can't be read)", True),
        (http(401), "shows no engine (status 401 to /queue)", False),
        (http(502), "shows no engine (status 502 to /queue)", False),
        (http(503, b'{"type": "urn:converter:fault:starting"}'), "shows no engine (status 503 to /queue)", False),
        (b"", "answers", False),
    ],
)
async def test_what_answers_there(answer: bytes, words: str, foreign: bool) -> None:
    async with saying(answer) as url:
        missed = await look(url)
        assert words in missed.reason
        assert missed.foreign is foreign


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_nothing_listens(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://{host}:{free.getsockname()[1]}"
    assert await look(url) == Missed("nothing listens at the engine's address")


async def test_a_host_that_there_is_not() -> None:
    missed = await look("http://nowhere.invalid:8188")
    assert missed.reason.startswith("the engine's address can't be reached: ")
    assert not missed.foreign


async def test_plain_http_where_tls_is_wanted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"https://127.0.0.1:{deaf.getsockname()[1]}"
        asking = asyncio.create_task(look(url))
        connection, _ = await asyncio.to_thread(deaf.accept)
        with connection:
            await asyncio.to_thread(connection.recv, 1)
            connection.sendall(b"HTTP/1.1 400 X\r\n\r\n")
            assert await asking == Missed("no TLS connection to the engine's address can be made")


async def test_one_who_takes_connections_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert await look(url, timeout=0.01) == Missed("nothing at the engine's address answers")
