"""The backlog: notices that are not delivered yet, in a SQLite file where the operator has named a folder for it, else
in memory.

Leaves to others: what a notice says, and when it is sent (`postbox`). Invariant: what is in a file is there after any
end of the process; a file belongs to one process at a time.
"""

import json
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from converter.core.retries import Tries
from converter.database import Database, open_database

_TABLE = """
CREATE TABLE IF NOT EXISTS notices (
    id TEXT PRIMARY KEY, url TEXT NOT NULL, about TEXT NOT NULL,
    failures INTEGER NOT NULL, since REAL, due REAL NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL
)
"""


@dataclass(frozen=True, slots=True)
class Letter:
    """A notice without its body. `about` is for log lines; `size` is the body's, in bytes.

    `due` is the moment of the next attempt, in seconds since the epoch, as `tries` has them.
    """

    id: str
    url: str = field(repr=False)
    about: Mapping[str, str]
    due: float
    size: int
    tries: Tries = field(default_factory=Tries)


@asynccontextmanager
async def open_backlog(folder: Path | None) -> AsyncIterator["Backlog"]:
    """The letters of one replica; raises CannotStart."""
    async with open_database(folder, "webhooks", [_TABLE]) as database:
        await database.run(_overwrite)
        yield Backlog(database)


def _overwrite(connection: sqlite3.Connection) -> None:
    """What is removed is nowhere in the file any more."""
    connection.execute("PRAGMA secure_delete = ON")


class Backlog:
    """Made by `open_backlog`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def letters(self) -> list[Letter]:
        """All that are there, the longest due first."""
        return await self._database.run(_list)

    async def body(self, letter: Letter) -> bytes:
        """The body that was put last."""
        return await self._database.run(partial(_read, letter))

    async def put(self, letter: Letter, body: bytes) -> None:
        """Keep a letter, in place of one of the same id."""
        await self._database.run(partial(_put, letter, body))

    async def postpone(self, letter: Letter) -> None:
        """Keep what is remembered of its attempts, and when the next one is due."""
        await self._database.run(partial(_postpone, letter))

    async def remove(self, letter: Letter) -> None:
        """Forget a letter. Once there is none, nothing of any is left in the files."""
        if not await self._database.run(partial(_remove, letter)):
            await self._database.run(_empty_log)


def _list(connection: sqlite3.Connection) -> list[Letter]:
    query = "SELECT id, url, about, due, size, failures, since FROM notices ORDER BY due"
    return [
        Letter(id, url, json.loads(about), due, size, Tries(failures, 0, since))
        for id, url, about, due, size, failures, since in connection.execute(query)
    ]


def _read(letter: Letter, connection: sqlite3.Connection) -> bytes:
    [body] = connection.execute("SELECT body FROM notices WHERE id = ?", (letter.id,)).fetchone()
    return bytes(body)


def _put(letter: Letter, body: bytes, connection: sqlite3.Connection) -> None:
    about, tries = json.dumps(dict(letter.about)), letter.tries
    row = (letter.id, letter.url, about, tries.failures, tries.since, letter.due, letter.size, body)
    connection.execute("INSERT OR REPLACE INTO notices VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)


def _postpone(letter: Letter, connection: sqlite3.Connection) -> None:
    row = (letter.tries.failures, letter.tries.since, letter.due, letter.id)
    connection.execute("UPDATE notices SET failures = ?, since = ?, due = ? WHERE id = ?", row)


def _remove(letter: Letter, connection: sqlite3.Connection) -> int:
    """How many are left."""
    connection.execute("DELETE FROM notices WHERE id = ?", (letter.id,))
    [left] = connection.execute("SELECT count(*) FROM notices").fetchone()
    return int(left)


def _empty_log(connection: sqlite3.Connection) -> None:
    """The write-ahead log holds what was written before, until it is written over."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
