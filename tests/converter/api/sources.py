"""Outputs of any size and temper, in the place of what the engine would serve."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from converter.core.outputs import FileRef
from converter.media.outputs import Broken, Gone

PIECE = 2**18


@dataclass
class Source:
    """Every file that is opened: `size` bytes, the same each time, `announced` or not. `files` are open at present.

    With `breaks_at` it ends there with `error`; the next `gone` openings find nothing.
    """

    size: int = 3 * 2**20
    announced: bool = True
    breaks_at: int | None = None
    error: Exception = field(default_factory=lambda: Broken("on purpose"))
    gone: int = 0
    opened: int = 0
    files: int = 0

    @asynccontextmanager
    async def open(self, file: FileRef) -> AsyncIterator["Opened"]:
        if self.gone:
            self.gone -= 1
            raise Gone(file.filename)
        self.opened += 1
        self.files += 1
        try:
            yield Opened(self.size if self.announced else None, self.chunks)
        finally:
            self.files -= 1

    async def chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, self.size, PIECE):
            if self.breaks_at is not None and start >= self.breaks_at:
                raise self.error
            yield pattern(start, min(PIECE, self.size - start))
            await asyncio.sleep(0)


@dataclass
class Opened:
    """One file, open."""

    size: int | None
    chunks: Callable[[], AsyncIterator[bytes]]


def pattern(start: int, length: int) -> bytes:
    """Bytes that differ from place to place; cheap enough for hundreds of megabytes."""
    block = (start // PIECE).to_bytes(4, "big") * 256
    return (block * (length // len(block) + 1))[:length]


def content(size: int) -> bytes:
    """What a source of this size gives."""
    return b"".join(pattern(start, min(PIECE, size - start)) for start in range(0, size, PIECE))
