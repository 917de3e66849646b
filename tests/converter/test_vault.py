"""The vault: contents are kept once, as long as somebody's record names them, within bounds."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from converter import vault
from converter.database import Unkept, open_database
from converter.media.spool import hold
from converter.vault import TABLES, Asset, NoSpace, Vault, open_vault


@pytest.fixture(params=[False, True], ids=["in memory", "in a folder"])
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Vault]:
    folder = tmp_path if request.param else None
    async with open_database(folder, "test", TABLES) as database, open_vault(database, folder, 100) as kept:
        yield kept


def asset(id: str, data: bytes, **fields: Any) -> Asset:
    about = {"scope": "", "content_type": "image/png", "file_path": "a.png", "created": 0.0, "expires": 100.0}
    return Asset(id=id, hash=f"blake3:{blake3(data).hexdigest()}", size=len(data), **{**about, **fields})


async def put(kept: Vault, id: str, data: bytes, now: float = 0.0, **fields: Any) -> bool:
    return await kept.add(asset(id, data, **fields), hold(data), now)


async def read(kept: Vault, id: str, now: float = 0.0, scope: str = "") -> bytes | None:
    found = await kept.find(scope, id, now)
    content = None if found is None else await kept.content(found)
    if content is None:
        return None
    with content.open() as stream:
        return stream.read()


async def test_a_record_is_found_in_its_scope_until_it_expires(kept: Vault) -> None:
    assert await put(kept, "1", b"data")
    assert await kept.find("", "1", 99.0) == asset("1", b"data")
    assert await read(kept, "1") == b"data"
    assert await read(kept, "1", scope="other") is None
    assert await read(kept, "1", now=100.0) is None


async def test_the_same_bytes_are_new_to_each_scope_once(kept: Vault) -> None:
    assert await put(kept, "1", b"data")
    assert not await put(kept, "2", b"data")
    assert await put(kept, "3", b"data", scope="other")
    assert await put(kept, "4", b"data", now=100.0, expires=200.0)  # what had expired is forgotten
    assert await read(kept, "4", now=150.0) == b"data"


async def test_bytes_go_with_their_last_record(kept: Vault, tmp_path: Path) -> None:
    await put(kept, "1", b"data")
    await put(kept, "2", b"data", scope="other")
    assert not await kept.remove("other", "1", 0.0)
    assert await kept.remove("", "1", 0.0)
    assert not await kept.remove("", "1", 0.0)
    assert await read(kept, "2", scope="other") == b"data"
    assert await kept.remove("other", "2", 0.0)
    assert not await kept.knows("other", asset("2", b"data").hash, 0.0)
    if (tmp_path / "assets").exists():
        assert list((tmp_path / "assets").iterdir()) == []


async def test_another_record_over_bytes_takes_what_it_does_not_say_from_the_newest(kept: Vault) -> None:
    await put(kept, "1", b"data", file_path="old.png")
    await put(kept, "2", b"data", file_path="new.png", created=1.0)
    minted = await kept.mint(asset("3", b"data", content_type="", file_path="", expires=300.0), 2.0)
    assert minted == asset("3", b"data", file_path="new.png", expires=300.0)
    named = await kept.mint(asset("4", b"data", content_type="", file_path="mine.png"), 2.0)
    assert named is not None
    assert (named.content_type, named.file_path) == ("image/png", "mine.png")
    assert await kept.mint(asset("5", b"data", scope="other"), 2.0) is None
    assert await kept.mint(asset("6", b"other"), 2.0) is None
    assert await kept.mint(asset("7", b"data"), 100.0) is None


async def test_what_was_used_longest_ago_gives_way(kept: Vault) -> None:
    for id in "ab":
        await put(kept, id, id.encode() * 40)
    await kept.mint(asset("a again", b"a" * 40), 0.0)
    await put(kept, "c", b"c" * 40)
    assert [await read(kept, id) is not None for id in ("a", "a again", "b", "c")] == [True, True, False, True]
    with pytest.raises(NoSpace):
        await put(kept, "d", b"d" * 101)
    assert await read(kept, "c") is not None


async def test_there_are_only_so_many(kept: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault, "FILES", 2)
    monkeypatch.setattr(vault, "NAMELESS", 2)
    for number in range(4):
        await put(kept, str(number), bytes([number]))
    assert [await read(kept, str(number)) for number in range(4)] == [None, None, b"\2", b"\3"]


async def test_what_is_being_read_can_be_removed(kept: Vault) -> None:
    await put(kept, "1", b"data")
    found = await kept.find("", "1", 0.0)
    assert found is not None
    content = await kept.content(found)
    await kept.remove("", "1", 0.0)
    assert content is not None
    with content.open() as stream:
        assert stream.read() == b"data"
    assert await kept.content(found) is None


async def test_what_has_begun_is_done_though_its_caller_leaves(
    kept: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    collect = vault._collect

    def stop(connection: sqlite3.Connection) -> Sequence[str]:
        begun.set()
        assert go_on.wait(30.0)
        return collect(connection)

    await put(kept, "1", b"data")
    found = asset("1", b"data")
    for work, there in ((kept.remove("", "1", 0.0), False), (put(kept, "1", b"data"), True)):
        begun.clear()
        go_on.clear()
        with monkeypatch.context() as patch:
            patch.setattr(vault, "_collect", stop)
            left = asyncio.create_task(work)
            await asyncio.to_thread(begun.wait, 30.0)
            left.cancel()
            await asyncio.wait([left])
            go_on.set()
            await kept.remove("", "nothing", 0.0)  # whose turn comes after that
        assert (await kept.find("", "1", 0.0) is not None, await kept.content(found) is not None) == (there, there)
        if (tmp_path / "assets").exists():
            assert len(list((tmp_path / "assets").iterdir())) == there


async def test_a_disk_that_refuses_keeps_nothing(tmp_path: Path) -> None:
    async with open_database(None, "test", TABLES) as database, open_vault(database, tmp_path, 100) as kept:
        (tmp_path / "assets").rmdir()
        with pytest.raises(Unkept):
            await put(kept, "1", b"data")
        assert await kept.find("", "1", 0.0) is None
