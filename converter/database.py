"""A small SQLite database: in memory, or in a file of the state folder that only one replica may have open.

For: whatever has to survive a restart where a state folder is set. Leaves tables and what is in them to others.
Invariant: all of it happens in one thread of its own, one transaction after another, so that the event loop never
waits for a disk and nobody sees half a change.
"""

import asyncio
import os
import sqlite3
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from converter.errors import CannotStart

T = TypeVar("T")


PATIENCE = 30.0
"""Seconds for a transaction, those before it included."""


class Unkept(Exception):
    """The database refuses, or does not answer: its disk is full, or broken."""


class Database:
    """An open database. Made by `open_database`."""

    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._connection = connection
        self._thread = thread

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some work as one transaction, which is rolled back where it raises. Raises Unkept.

        What has been begun is done to its end, also if its caller does not wait for it any more.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, work)
        except TimeoutError:
            raise Unkept(f"the disk did not answer within {PATIENCE:g} s") from None

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._connection:
                return work(self._connection)
        except sqlite3.Error as error:
            raise Unkept(str(error)) from error


@asynccontextmanager
async def open_database(folder: Path | None, name: str, tables: Sequence[str]) -> AsyncIterator[Database]:
    """The database NAME.sqlite of a folder, or one in memory where there is none; `tables` make it, as SQL.

    Raises CannotStart where the file can't be used: it is another replica's, another version's, or broken.
    """
    place = ":memory:" if folder is None else str(folder / f"{name}.sqlite")
    version = zlib.crc32("".join(tables).encode()) & 0x7FFFFFFF
    with ThreadPoolExecutor(1, thread_name_prefix=name) as thread:
        loop = asyncio.get_running_loop()
        try:
            connection = await loop.run_in_executor(thread, _connect, place, tables, version)
        except (OSError, sqlite3.Error) as error:
            raise CannotStart(f"{place} can't be used: {error}") from None
        try:
            yield Database(connection, thread)
        finally:
            await asyncio.shield(loop.run_in_executor(thread, connection.close))


def _connect(place: str, tables: Sequence[str], version: int) -> sqlite3.Connection:
    if place != ":memory:":  # it holds what callers have made: nobody else's business
        os.close(os.open(place, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(place, timeout=1.0)
    try:
        # One replica at a time: what is under way is known to its own alone.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # survives the end of the process; of the machine, mostly
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            [known] = connection.execute("PRAGMA user_version").fetchone()
            if known not in (0, version):
                raise sqlite3.DatabaseError("it was made by another version of the converter; move it away")
            for table in tables:
                connection.execute(table)
            connection.execute(f"PRAGMA user_version = {version}")
    except BaseException:
        connection.close()
        raise
    return connection
