"""All outputs as one ZIP file, written while it is sent.

`zipfile` writes it to a place that can't be sought, entry by entry: its streaming relatives pull their sources, which
would take a thread for each answer, since ours are asynchronous. Entries are stored as they are: pictures, video and
sound do not get smaller. Invariant: as many bytes come as the length says, which is known before the first.
"""

import io
import time
from collections.abc import AsyncIterator, Sequence
from zipfile import ZIP64_LIMIT, ZipFile, ZipInfo

from converter.core.outputs import name_entries
from converter.media.outputs import Item

_FILE = 0o100644 << 16
"""A regular file that its owner may write, in the words of Unix (`external_attr`)."""


class ZipBody:
    """The outputs of one job under their names; `name` is that of the whole."""

    def __init__(self, items: Sequence[Item], name: str) -> None:
        self.headers = {"Content-Type": "application/zip", "Content-Disposition": f'attachment; filename="{name}"'}
        self._written_at = time.gmtime()[:6]
        self._items = list(zip(name_entries([item.output for item in items]), items, strict=True))
        self._size = self._measure()

    def __len__(self) -> int:
        """Bytes of the whole body."""
        return self._size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body in pieces."""
        sink = _Sink()
        with ZipFile(sink, "w") as archive:
            for name, item in self._items:
                with archive.open(self._head(name), "w", force_zip64=item.size > ZIP64_LIMIT) as entry:
                    async for chunk in item.chunks():
                        entry.write(chunk)
                        yield sink.take()
        yield sink.take()

    def _measure(self) -> int:
        """Write everything but the contents, in whose place the counts are told."""
        sink = _Sink()
        with ZipFile(sink, "w") as archive:
            for name, item in self._items:
                head = self._head(name)
                with archive.open(head, "w", force_zip64=item.size > ZIP64_LIMIT):
                    sink.written += item.size
                head.file_size = head.compress_size = item.size
        return sink.written

    def _head(self, name: str) -> ZipInfo:
        head = ZipInfo(name, self._written_at)
        head.external_attr = _FILE
        return head


class _Sink(io.RawIOBase):
    """Where zipfile writes: what was written waits until it is taken. Can tell its place, and not seek."""

    def __init__(self) -> None:
        self.written = 0
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.written

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._held += data
        self.written += len(data)
        return len(data)

    def take(self) -> bytes:
        held, self._held = bytes(self._held), bytearray()
        return held
