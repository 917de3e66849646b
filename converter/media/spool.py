"""Bytes that arrive piece by piece: held in memory while they are few, else in a temporary file without a name.

For: parts of requests, and downloads, on their way to the engine. Leaves what the bytes are to others.

Invariant: no more than `SMALL` bytes and one piece of a spool are in memory, and nothing of it outlives it, not even
where the process is killed: the file has no name from its beginning on.
"""

import asyncio
import hashlib
import io
import os
import tempfile
import threading
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from converter.core.signatures import SNIFFED

SMALL = 2**18
"""Bytes of one spool that are held in memory."""

PIECE = 2**19
"""Bytes that are gathered before they are written: each write is a turn in a thread."""


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes that are whole (`core.order.Content`). They can be read as long as their spool is open."""

    size: int
    digest: bytes
    head: bytes = field(repr=False)
    held: bytes | None = field(default=None, repr=False)
    file: "_File | None" = field(default=None, repr=False)
    start: int = 0

    def open(self) -> BinaryIO:
        """A stream of its own, to be closed."""
        if self.file is None:
            return io.BytesIO(self.held or b"")
        return io.BufferedReader(_Slice(self.file.duplicate(), self.start, self.size))


def hold(data: bytes) -> Content:
    """Bytes that are in memory already."""
    return Content(len(data), hashlib.sha256(data).digest(), data[:SNIFFED], held=data)


def borrow(path: Path, size: int, digest: bytes, head: bytes) -> Content:
    """What lies in a file, which may lose its name meanwhile; the rest is what a content says. Raises OSError."""
    return Content(size, digest, head, file=_File(os.open(path, os.O_RDONLY)))


class NoRoom(Exception):
    """The temporary file can't be written: its disk is full, or not there."""


class _File:
    """An open file. It is closed by `close`, or when the last content that lies in it is forgotten."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.close = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def nameless(cls) -> Self:
        """A fresh one, which nobody else can find."""
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    def duplicate(self) -> int:
        """A descriptor of its own, to be closed; raises ValueError when the file is closed."""
        if not self.close.alive:
            raise ValueError("the spool is closed")
        return os.dup(self._descriptor)

    def append(self, data: bytearray) -> None:
        with memoryview(data) as rest:
            at = 0
            while at < len(rest):
                at += os.write(self._descriptor, rest[at:])


class Spool:
    """Write pieces, `end` a content, write those of the next. Writing raises NoRoom.

    A context manager for whoever needs the contents no longer than that; else they are let go of when the last of them
    is forgotten.
    """

    def __init__(self) -> None:
        self._file: _File | None = None
        self._closed = False
        # A write that was given up goes on in its thread: closed under it, its file's number may be another's.
        self._lock = threading.Lock()
        self._held = 0
        self._start = 0
        self._begin()

    def _begin(self) -> None:
        self._gathered = bytearray()
        self._written = 0
        self._hash = hashlib.sha256()
        self._head = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all contents."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()

    @property
    def size(self) -> int:
        """Bytes so far of the content that is being written."""
        return self._written + len(self._gathered)

    async def write(self, piece: bytes | bytearray | memoryview) -> None:
        """Take one more piece."""
        self._gathered += piece
        if len(self._gathered) >= PIECE:
            await asyncio.to_thread(self._flush)

    async def end(self) -> Content:
        """What was written since the last end, as a whole."""
        if self._written or self._held + len(self._gathered) > SMALL:
            await asyncio.to_thread(self._flush)
            content = Content(
                self._written, self._hash.digest(), self._head, file=self._file, start=self._start - self._written
            )
        else:
            content = hold(bytes(self._gathered))
            self._held += content.size
        self._begin()
        return content

    def _flush(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._hash.update(self._gathered)
            self._head = self._head or bytes(self._gathered[:SNIFFED])
            try:
                self._file = self._file or _File.nameless()
                self._file.append(self._gathered)
            except OSError as error:
                raise NoRoom(error.strerror) from error
            self._written += len(self._gathered)
            self._start += len(self._gathered)
            self._gathered = bytearray()


class _Slice(io.RawIOBase):
    """Part of a file, read without the file's own position: several may read at once."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor = descriptor
        self._start = start
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        with memoryview(buffer) as whole:
            wanted = min(len(whole), max(0, self._size - self._at))
            count = os.preadv(self._descriptor, [whole[:wanted]], self._start + self._at)
        self._at += count
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()
