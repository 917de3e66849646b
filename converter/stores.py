"""Where the engine's files are: outputs behind `/view` or in a shared folder, inputs behind the upload route.

Joins link and media, which do not know each other: the former's routes are the latter's `Files` and `Upload`.
Invariant: a name that an engine gives never leads out of the shared folder.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from converter.core.order import Content
from converter.core.outputs import FileRef
from converter.errors import EngineFailed
from converter.link.client import EngineClient, LinkError, Missing, View
from converter.media.inputs import NotTaken
from converter.media.outputs import Broken, Files, Gone, OpenFile

CHUNK = 2**18
"""Bytes read at a time."""


SLOWEST = 2**20
"""Bytes a second that an upload has at least, or it is taken to have failed."""


class EngineInputs:
    """The engine's input folder, as `media.inputs.Upload`; `answered` waits until the engine has answered something."""

    def __init__(self, client: EngineClient, answered: Callable[[], Awaitable[object]]) -> None:
        self._client = client
        self._answered = answered

    async def __call__(self, name: str, subfolder: str, content: Content, content_type: str) -> str:
        """Upload one file; raises NotTaken, and not before the engine has answered: it may have to come back first."""
        try:
            with content.open() as stream:
                seconds = self._client.limits.answer + content.size / SLOWEST
                return await self._client.upload(name, subfolder, stream, content_type, timeout=seconds)
        except LinkError as error:
            await self._answered()
            raise NotTaken(str(error)) from error


class EngineModels:
    """The names of the engine's models, by kind."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client

    async def __call__(self) -> Mapping[str, Sequence[str]]:
        """Ask the engine; raises EngineFailed."""
        try:
            return {kind: await self._client.models(kind) or () for kind in await self._client.model_folders()}
        except LinkError as error:
            raise EngineFailed("the engine does not tell its models") from error


async def describe_engine(client: EngineClient, path: str) -> tuple[int, bytes]:
    """Status and JSON of what the engine tells of itself under a path; raises EngineFailed."""
    try:
        return await client.describe(path)
    except LinkError as error:
        raise EngineFailed("the engine does not tell of itself") from error


class EngineFiles:
    """Outputs read through `/view`."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client

    @asynccontextmanager
    async def open(self, file: FileRef) -> AsyncIterator[OpenFile]:
        """Open one file; raises Gone where the engine has none of that name."""
        try:
            async with self._client.view(file.filename, file.subfolder, file.type) as view:
                yield _Viewed(view)
        except Missing as error:
            raise Gone(str(error)) from error
        except LinkError as error:
            raise Broken(str(error)) from error


class _Viewed:
    def __init__(self, view: View) -> None:
        self._view = view

    @property
    def size(self) -> int | None:
        return self._view.size

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._view.chunks():
                yield chunk
        except LinkError as error:
            raise Broken(str(error)) from error


class SharedFolder:
    """Files read from a folder that is the engine's output folder; others than outputs through `/view`."""

    def __init__(self, folder: Path, others: Files) -> None:
        self._folder = folder.resolve()
        self._others = others

    @asynccontextmanager
    async def open(self, file: FileRef) -> AsyncIterator[OpenFile]:
        """Open one file; raises Gone where there is none."""
        if file.type != "output":
            async with self._others.open(file) as opened:
                yield opened
            return
        # Not in a thread: the engine has just written the file, so the disk isn't asked, and while the loop is busy a
        # thread waits longer for the interpreter than the read takes.
        stream, size, first = self._begin(file)
        with stream:
            yield _Read(stream, size, first)

    def _begin(self, file: FileRef) -> tuple[IO[bytes], int, bytes]:
        try:
            path = (self._folder / file.subfolder / file.filename).resolve()
            if not path.is_relative_to(self._folder):
                raise Gone(f"{file.filename} leads out of the output folder")
            if not path.is_file():  # opening a pipe would wait for its writer
                raise Gone(f"{file.filename} is no file")
            stream = path.open("rb", buffering=0)
        except OSError as error:
            raise Gone(f"{file.filename}: {error.strerror}") from error
        try:
            size = os.fstat(stream.fileno()).st_size
            return stream, size, stream.read(min(size, CHUNK))
        except OSError as error:
            stream.close()
            raise Broken(f"the file can't be read: {error.strerror}") from error


class _Read:
    """As many bytes as the file had when it was opened, whatever happens to it meanwhile."""

    def __init__(self, stream: IO[bytes], size: int, first: bytes) -> None:
        self._stream = stream
        self.size: int | None = size
        self._left = size
        self._first = first

    async def chunks(self) -> AsyncIterator[bytes]:
        chunk = self._first
        while chunk:
            self._left -= len(chunk)
            yield chunk
            chunk = await asyncio.to_thread(self._read) if self._left else b""
        if self._left:
            raise Broken("the file became shorter while it was read")

    def _read(self) -> bytes:
        try:
            return self._stream.read(min(self._left, CHUNK))
        except OSError as error:
            raise Broken(f"the file can't be read: {error.strerror}") from error
