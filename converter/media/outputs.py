"""Outputs made ready to be sent: opened where they lie, or held in memory, converted where that was asked for.

Where files lie is behind `Files`; what a prompt made is told by `core.outputs`. Invariant: an item's size is its true
number of bytes, known before the first is sent.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Protocol

from converter.core.order import Selection
from converter.core.outputs import FileRef, Output
from converter.media.pictures import UNSTRIPPED, bare_of_metadata, convert

NEVER_EMPTY = frozenset({"image", "video", "audio", "latent"})
"""Kinds of outputs of which a file without a byte is none."""


class Gone(Exception):
    """There is no such file any more."""


class Broken(Exception):
    """The file can't be read (to its end)."""


class OpenFile(Protocol):
    """A file that is open for one reading; `size` in bytes, None where it is not known."""

    @property
    def size(self) -> int | None:
        """Bytes."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The content in pieces, once; raises Broken."""


class Files(Protocol):
    """Where the engine's files can be read."""

    def open(self, file: FileRef) -> AbstractAsyncContextManager[OpenFile]:
        """Open a file; raises Gone or Broken."""


@dataclass(frozen=True, slots=True)
class Item:
    """An output ready to be sent. `content` is None for texts, and where `link` says where it is to be had; a file can
    be read once, bytes again and again. `link` are members of its description.
    """

    output: Output
    size: int
    content: bytes | OpenFile | None = field(default=None, repr=False)
    warning: str | None = None
    link: Mapping[str, str | int] = field(default_factory=dict, repr=False)

    @property
    def held(self) -> int:
        """Bytes of it that are in memory."""
        return len(self.content) if isinstance(self.content, bytes) else len((self.output.text or "").encode())

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes in pieces."""
        if isinstance(self.content, bytes):
            yield self.content
        elif self.content is not None:
            async for chunk in self.content.chunks():
                yield chunk
        elif self.output.text is not None:
            yield self.output.text.encode()


async def open_items(
    files: Files, outputs: Sequence[Output], selection: Selection, stack: AsyncExitStack, hold: int
) -> list[Item]:
    """Open every output; files stay open until the stack is closed. Raises Gone and Broken.

    `hold` is a number of bytes: outputs are read into memory until it is spent, and those above it only opened.
    """
    items = []
    for output in outputs:
        item = await _open(files, output, selection, stack, hold)
        if not item.size and output.kind in NEVER_EMPTY:
            raise Broken("the file is empty")
        hold -= len(item.content) if isinstance(item.content, bytes) else 0
        items.append(item)
    return items


async def _open(files: Files, output: Output, selection: Selection, stack: AsyncExitStack, hold: int) -> Item:
    if output.file is None and output.data is None:
        return Item(output, size=len((output.text or "").encode()))
    opened = await stack.enter_async_context(files.open(output.file)) if output.file is not None else None
    wanted = selection.format
    if wanted is not None and output.kind == "image" and output.content_type != f"image/{wanted}":
        data = (output.data or b"") if opened is None else await _read(opened)
        converted = await convert(data, wanted, selection.quality, selection.metadata)
        if converted.format is not None:
            name = str(PurePosixPath(output.name).with_suffix(f".{converted.format}"))
            output = replace(output, name=name, content_type=f"image/{converted.format}")
        return Item(output, len(converted.data), converted.data, converted.warning)
    warning = None
    if selection.metadata == "strip" and output.kind == "image":
        bare = await bare_of_metadata((output.data or b"") if opened is None else await _read(opened))
        return Item(output, len(bare.data), bare.data, bare.warning)
    if selection.metadata == "strip" and output.kind != "text":
        warning = UNSTRIPPED
    if opened is None:
        return Item(output, len(output.data or b""), output.data)
    if opened.size is None or opened.size <= hold:
        data = await _read(opened)
        return Item(output, len(data), data, warning)
    return Item(output, opened.size, opened, warning)


async def _read(opened: OpenFile) -> bytes:
    return b"".join([chunk async for chunk in opened.chunks()])
