"""HTTP byte by byte: what a caller says that no HTTP library would, and what comes back.

Invariant: an answer is whole (its head, and as many bytes as it announces) or the exchange fails.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

PATIENCE = 30.0
"""Seconds after which a wait for anything fails."""


@dataclass(frozen=True)
class Answer:
    """One answer; names of headers are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send, if the server still listens: it may have answered and left in the middle."""
        self.writer.write(data)
        with suppress(ConnectionError):
            await self.writer.drain()

    async def receive(self) -> Answer:
        """The next answer; raises IncompleteReadError where it breaks off."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
            length = int(headers.get("content-length", "0"))
            return Answer(int(line.split(" ")[1]), headers, await self.reader.readexactly(length))

    async def ends(self) -> bytes:
        """What else comes until the server closes the connection."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Wire]:
    """A connection to `http://HOST:PORT`."""
    host, port = url.removeprefix("http://").rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def exchange(url: str, data: bytes) -> Answer:
    """One request, as bytes, and its answer."""
    async with connect(url) as wire:
        await wire.send(data)
        return await wire.receive()


def request(method: str = "POST", path: str = "/v1/run", body: bytes | None = b"", **headers: str) -> bytes:
    """A request; names of headers are written with underscores. A body of None announces nothing."""
    if body is not None:
        headers = {"Content_Type": "application/json", "Content_Length": str(len(body)), **headers}
    lines = [f"{method} {path} HTTP/1.1", "Host: converter"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def multipart(*parts: tuple[str, bytes], boundary: str = "b", end: bool = True) -> bytes:
    """A body of multipart/form-data: (header lines, content) each."""
    pieces = [f"--{boundary}\r\n{head}\r\n\r\n".encode("latin-1") + content + b"\r\n" for head, content in parts]
    return b"".join(pieces) + (f"--{boundary}--\r\n".encode() if end else b"")


def field(name: str) -> str:
    """The header line of a part."""
    return f'Content-Disposition: form-data; name="{name}"'


def check_refusal(answer: Answer, status: int) -> None:
    """The answer is a problem as the contract has it, of a kind that is never to be tried again."""
    assert answer.status == status, answer
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.document["status"] == status
    assert answer.document["request_id"] == answer.headers["x-request-id"]
    assert answer.document["retry"] == "never"
    assert answer.headers["x-should-retry"] == "false"
    if status == 400:
        assert [problem.keys() for problem in answer.document["problems"]] == [
            {"pointer", "detail"} for _ in answer.document["problems"]
        ]
