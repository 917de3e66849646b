"""A web server that hands out files as servers on the internet do: well, badly, and with bad intent.

    async with Origin() as origin:
        origin.files["/a.png"] = data
        await fetch(f"{origin.url}/a.png")

It writes plain bytes on sockets, so that it can lie. Leaves TLS to the context that it is given. Invariant: whoever
leaves the block has closed every connection; `requests` are the heads that were read, as text, and `asked` is set by
the first.
"""

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

HEAD = "HTTP/1.1 {status} X\r\nConnection: close\r\n{headers}\r\n"


class Origin:
    """Listens on the loopback. `files` by path; `places` are redirects by path, as (status, Location)."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.places: dict[str, tuple[int, str]] = {}
        self.headers: dict[str, str] = {}
        """Of every answer with a file."""
        self.requests: list[str] = []
        self.asked = asyncio.Event()
        self.connections = 0
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.requests.append(head)
                self.asked.set()
                await self._answer(head.split()[1].partition("?")[0], writer)
        finally:
            writer.close()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        mood, _, rest = path[1:].partition("/")
        data = self.files.get(f"/{rest}" if f"/{rest}" in self.files else path, b"")
        if path in self.places:
            status, place = self.places[path]
            await _send(writer, status, {"Location": place, "Set-Cookie": "a=b"} if place else {})
        elif mood == "silent":
            await asyncio.Future()
        elif mood == "stalling":
            await _send(writer, 200, {**self.headers, "Content-Length": len(data)}, data[: len(data) // 2])
            await asyncio.Future()
        elif mood == "short":
            await _send(writer, 200, {**self.headers, "Content-Length": len(data) + 10}, data)
        elif mood == "broken-chunks":
            await _send(writer, 200, {"Transfer-Encoding": "chunked"}, b"%x\r\n%s\r\n" % (len(data), data))
        elif mood == "chunked":
            await _send(writer, 200, {"Transfer-Encoding": "chunked"}, b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
        elif mood == "endless":
            await _send(writer, 200, {}, data)
            while True:
                await _write(writer, bytes(2**16))
        elif mood == "endless-head":
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                await _write(writer, b"X-More: and more\r\n" * 64)
        elif mood == "encoded":
            await _send(writer, 200, {"Content-Encoding": "gzip", "Content-Length": len(data)}, data)
        elif mood == "garbage":
            await _write(writer, b"SSH-2.0-OpenSSH_9.6\r\n")
        elif mood.isdigit():
            await _send(writer, int(mood), {"Content-Length": 0})
        elif path in self.files:
            await _send(writer, 200, {**self.headers, "Content-Length": len(data)}, data)
        else:
            await _send(writer, 404, {"Content-Length": 0})


async def _send(writer: asyncio.StreamWriter, status: int, headers: Mapping[str, object], body: bytes = b"") -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    await _write(writer, HEAD.format(status=status, headers=lines).encode() + body)


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()
