"""The vault: assets that callers have uploaded, each a record over content that is kept once, however often it came.

For: contents by their blake3 hash, in files of the state folder, or without names beside the process where there is
none. Leaves receiving them to the doors. Scopes are names of API keys. Invariant: a content is there as long as a
record names it; a record is found only in its scope; room and number are bounded, what was used longest ago goes first.
"""

import asyncio
import os
import shutil
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from converter.core.order import Content
from converter.database import Database, Unkept
from converter.media.spool import borrow

T = TypeVar("T")

FILES = 10_000
"""Contents in files at most."""

NAMELESS = 256
"""Contents without a folder at most: each large one takes a descriptor."""

TABLES = (
    """CREATE TABLE IF NOT EXISTS contents (hash TEXT PRIMARY KEY, size INTEGER, digest BLOB, head BLOB,
    used INTEGER) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS assets (id TEXT PRIMARY KEY, scope TEXT, hash TEXT, content_type TEXT, file_path TEXT,
    created REAL, expires REAL) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS assets_by_hash ON assets (hash)",
    "CREATE INDEX IF NOT EXISTS assets_by_expiry ON assets (expires)",
)

_ASSET = """SELECT id, scope, hash, content_type, file_path, created, expires, size FROM assets JOIN contents
    USING (hash) WHERE scope = ? AND expires > ?"""


@dataclass(frozen=True, slots=True)
class Asset:
    """A record. `hash` is `blake3:` and hex digits; moments are seconds of the Unix epoch."""

    id: str
    scope: str
    hash: str
    content_type: str
    file_path: str
    created: float
    expires: float
    size: int


class NoSpace(Exception):
    """The content is larger than the room."""


class Vault:
    """All assets. `folder`: where contents are files; `room`: bytes of all of them."""

    def __init__(self, database: Database, folder: Path | None, room: int) -> None:
        self._database = database
        self._folder = folder
        self._room = room
        self._held: dict[str, Content] = {}
        self._turn = asyncio.Lock()  # a content is written or removed, not both
        self._work: asyncio.Task[Any] | None = None

    async def begin(self) -> None:
        """Forget contents whose files are gone, and remove files that nothing names."""
        if self._folder is not None:
            there = await asyncio.to_thread(_list, self._folder)
            known = await self._database.run(lambda connection: _drop_missing(connection, there))
            await asyncio.to_thread(_remove, self._folder, there - known)

    async def add(self, asset: Asset, content: Content, now: float) -> bool:
        """Keep a new record and its content; whether the scope had none of the same. Raises NoSpace and Unkept."""
        if content.size > self._room:
            raise NoSpace
        return await self._take_turn(partial(self._add, asset, content, now))

    async def _add(self, asset: Asset, content: Content, now: float) -> bool:
        most = NAMELESS if self._folder is None else FILES
        try:
            await self._write(asset.hash, content)
        except OSError as error:
            raise Unkept(str(error)) from error
        known, gone = await self._database.run(lambda c: _add(c, asset, content, now, self._room, most))
        await self._remove(gone)
        return not known

    async def mint(self, asset: Asset, now: float) -> Asset | None:
        """Keep a new record over a content that the scope has, None where it has none; what it leaves empty is as in
        the newest other record.
        """
        sql = """SELECT content_type, file_path FROM assets WHERE hash = ? AND scope = ? AND expires > ?
            ORDER BY created DESC LIMIT 1"""

        def work(connection: sqlite3.Connection) -> Asset | None:
            row = connection.execute(sql, (asset.hash, asset.scope, now)).fetchone()
            if row is None:
                return None
            filled = replace(asset, content_type=asset.content_type or row[0], file_path=asset.file_path or row[1])
            _insert(connection, filled)
            return _read(connection, asset.scope, asset.id, now)

        return await self._database.run(work)

    async def knows(self, scope: str, hash: str, now: float) -> bool:
        """Whether the scope has this content."""
        return await self._database.run(lambda connection: _knows(connection, scope, hash, now))

    async def find(self, scope: str, id: str, now: float) -> Asset | None:
        """The record of this id, if it is still there."""
        return await self._database.run(lambda connection: _read(connection, scope, id, now))

    async def content(self, asset: Asset) -> Content | None:
        """What a record is about; None where it has been forgotten meanwhile."""
        if self._folder is None:
            return self._held.get(asset.hash)
        sql = "SELECT size, digest, head FROM contents WHERE hash = ?"
        row = await self._database.run(lambda connection: connection.execute(sql, (asset.hash,)).fetchone())
        try:
            return None if row is None else await asyncio.to_thread(borrow, self._folder / _name(asset.hash), *row)
        except OSError:
            return None

    async def remove(self, scope: str, id: str, now: float) -> bool:
        """Forget a record, and its content where no other names it; whether it was there."""
        return await self._take_turn(partial(self._forget, scope, id, now))

    async def end(self) -> None:
        """Wait for what has begun."""
        await self._turn.acquire()

    async def _take_turn(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do some work alone, and to its end, also if its caller leaves: bytes of which half was done are nobody's."""
        await self._turn.acquire()
        self._work = task = asyncio.create_task(work())
        task.add_done_callback(lambda _: self._turn.release())
        return await asyncio.shield(task)

    async def _forget(self, scope: str, id: str, now: float) -> bool:
        def work(connection: sqlite3.Connection) -> tuple[bool, Sequence[str]]:
            sql = "DELETE FROM assets WHERE scope = ? AND id = ? AND expires > ?"
            found = connection.execute(sql, (scope, id, now)).rowcount > 0
            return found, _collect(connection)

        found, gone = await self._database.run(work)
        await self._remove(gone)
        return found

    async def _write(self, hash: str, content: Content) -> None:
        if self._folder is None:
            self._held.setdefault(hash, content)
        else:
            await asyncio.to_thread(_copy, content, self._folder / _name(hash))

    async def _remove(self, hashes: Sequence[str]) -> None:
        for hash in hashes:
            self._held.pop(hash, None)
        if self._folder is not None and hashes:
            await asyncio.to_thread(_remove, self._folder, {_name(hash) for hash in hashes})


@asynccontextmanager
async def open_vault(database: Database, state_dir: Path | None, room: int) -> AsyncIterator[Vault]:
    """The vault over a database that has its tables; files are in the folder `assets` of the state folder."""
    folder = None if state_dir is None else state_dir / "assets"
    if folder is not None:
        await asyncio.to_thread(folder.mkdir, mode=0o700, exist_ok=True)
    vault = Vault(database, folder, room)
    await vault.begin()
    try:
        yield vault
    finally:
        await vault.end()


# In the database ----------------------------------------------------------------------------------------------------


def _knows(connection: sqlite3.Connection, scope: str, hash: str, now: float) -> bool:
    sql = "SELECT 1 FROM assets WHERE hash = ? AND scope = ? AND expires > ?"
    return connection.execute(sql, (hash, scope, now)).fetchone() is not None


def _read(connection: sqlite3.Connection, scope: str, id: str, now: float) -> Asset | None:
    row = connection.execute(f"{_ASSET} AND id = ?", (scope, now, id)).fetchone()
    return None if row is None else Asset(*row)


def _insert(connection: sqlite3.Connection, asset: Asset) -> None:
    row = (asset.id, asset.scope, asset.hash, asset.content_type, asset.file_path, asset.created, asset.expires)
    connection.execute("INSERT INTO assets VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    latest = "UPDATE contents SET used = (SELECT max(used) + 1 FROM contents) WHERE hash = ?"
    connection.execute(latest, (asset.hash,))


def _add(
    connection: sqlite3.Connection, asset: Asset, content: Content, now: float, room: int, most: int
) -> tuple[bool, Sequence[str]]:
    """Whether the scope had the content before, and the contents that are to go."""
    connection.execute("DELETE FROM assets WHERE expires <= ?", (now,))
    known = _knows(connection, asset.scope, asset.hash, now)
    row = (asset.hash, content.size, content.digest, content.head)
    connection.execute("INSERT OR IGNORE INTO contents VALUES (?, ?, ?, ?, 0)", row)
    _insert(connection, asset)
    gone = list(_collect(connection))
    count, size = connection.execute("SELECT count(*), total(size) FROM contents").fetchone()
    while count > most or size > room:
        hash, oldest = connection.execute("SELECT hash, size FROM contents ORDER BY used LIMIT 1").fetchone()
        connection.execute("DELETE FROM assets WHERE hash = ?", (hash,))
        connection.execute("DELETE FROM contents WHERE hash = ?", (hash,))
        gone.append(hash)
        count, size = count - 1, size - oldest
    surplus = "DELETE FROM assets WHERE id IN (SELECT id FROM assets ORDER BY created DESC LIMIT -1 OFFSET ?)"
    connection.execute(surplus, (10 * FILES,))
    return known, gone


def _collect(connection: sqlite3.Connection) -> Sequence[str]:
    """Forget the contents that no record names; which they were."""
    sql = (
        "DELETE FROM contents WHERE NOT EXISTS (SELECT 1 FROM assets WHERE assets.hash = contents.hash) RETURNING hash"
    )
    return [hash for (hash,) in connection.execute(sql).fetchall()]


def _drop_missing(connection: sqlite3.Connection, there: set[str]) -> set[str]:
    """Forget contents that are not in files; the names of those that stay."""
    known = {hash for (hash,) in connection.execute("SELECT hash FROM contents")}
    for hash in known:
        if _name(hash) not in there:
            connection.execute("DELETE FROM assets WHERE hash = ?", (hash,))
            connection.execute("DELETE FROM contents WHERE hash = ?", (hash,))
    return {_name(hash) for hash in known}


# In the folder ------------------------------------------------------------------------------------------------------


def _name(hash: str) -> str:
    return hash.removeprefix("blake3:")


def _list(folder: Path) -> set[str]:
    return {entry.name for entry in os.scandir(folder)}


def _remove(folder: Path, names: set[str]) -> None:
    for name in names:
        with suppress(OSError):  # removed at the next start
            (folder / name).unlink()


def _copy(content: Content, path: Path) -> None:
    """Whole or not at all."""
    if path.exists():
        return
    part = path.with_name(f"{uuid.uuid4().hex}.part")
    try:
        with content.open() as source, part.open("xb") as target:
            shutil.copyfileobj(source, target, 2**20)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
