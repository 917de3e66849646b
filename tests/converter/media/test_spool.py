"""What is spooled is read as it was written, is mostly not in memory, and leaves nothing behind."""

import asyncio
import gc
import hashlib
import os
import tempfile
import threading
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.signatures import SNIFFED
from converter.media import spool
from converter.media.spool import PIECE, SMALL, Content, NoRoom, Spool, hold


def descriptors() -> int:
    return int(psutil.Process().num_fds())


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def write(into: Spool, data: bytes, step: int = 50_000) -> Content:
    for at in range(0, len(data), step):
        await into.write(data[at : at + step])
    return await into.end()


def read(content: Content) -> bytes:
    with content.open() as stream:
        return stream.read()


async def test_contents_are_told_apart_however_large_they_are() -> None:
    before = descriptors()
    with Spool() as it:
        data = [os.urandom(size) for size in (10, 0, SMALL - 10, 1, SMALL + 1, 3 * PIECE + 7, 5)]
        contents = [await write(it, each) for each in data]
        assert [read(content) for content in contents] == data
        for content, each in zip(contents, data, strict=True):
            assert (content.size, content.digest) == (len(each), hashlib.sha256(each).digest())
            assert content.head == each[:SNIFFED]
        assert sum(len(content.held or b"") for content in contents) <= SMALL
        assert descriptors() == before + 1
    assert descriptors() == before


async def test_several_may_read_at_once_and_one_may_seek() -> None:
    data = os.urandom(2 * PIECE)
    with Spool() as it:
        await write(it, b"before" * SMALL)
        content = await write(it, data)
        with content.open() as one, content.open() as other:
            assert one.read(100) == other.read(100) == data[:100]
            assert one.seek(-50, os.SEEK_END) == len(data) - 50
            assert one.read() == data[-50:]
            assert one.read() == b""
            assert one.seek(7) == 7
            assert one.seek(3, os.SEEK_CUR) == 10
            assert one.read(5) == data[10:15]
            assert other.read(10) == data[100:110]


async def test_a_spool_without_an_owner_goes_with_its_last_content() -> None:
    gc.collect()  # of what others have left
    before = descriptors()
    content = await write(Spool(), bytes(2 * SMALL))
    assert descriptors() > before
    assert len(read(content)) == 2 * SMALL
    del content
    gc.collect()
    assert descriptors() <= before


async def test_what_is_closed_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Spool() as it:
        content = await write(it, bytes(2 * SMALL))
        assert not names(tmp_path)  # the file has no name
    with pytest.raises(ValueError, match="closed"):
        content.open()


async def test_a_disk_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with Spool() as it, pytest.raises(NoRoom):
        await write(it, bytes(2 * SMALL))


async def test_a_write_that_is_given_up_never_writes_to_a_file_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing waits for the thread that writes: the number of a closed file is soon another file's."""
    writing, go_on = threading.Event(), threading.Event()
    append = spool._File.append

    def append_slowly(self: spool._File, data: bytearray) -> None:
        writing.set()
        assert go_on.wait(30)
        append(self, data)

    monkeypatch.setattr(spool._File, "append", append_slowly)
    it = Spool()
    task = asyncio.create_task(write(it, bytes(2 * PIECE)))
    await asyncio.to_thread(writing.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    closing = asyncio.create_task(asyncio.to_thread(it.close))
    await asyncio.wait([closing], timeout=0.05)
    assert not closing.done()
    go_on.set()
    await closing
    await write(it, bytes(2 * PIECE))  # whoever is late writes nothing


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_pieces_make_a_whole(pieces: list[bytes]) -> None:
    async def spool_them() -> Content:
        with Spool() as it:
            for piece in pieces:
                await it.write(piece)
            assert it.size == sum(map(len, pieces))
            return await it.end()

    assert asyncio.run(spool_them()) == hold(b"".join(pieces))
