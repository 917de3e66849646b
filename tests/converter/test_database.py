"""The small database: whole changes or none, one replica at a time, and clear words at the start."""

import sqlite3
import stat
from pathlib import Path

import pytest

from converter.database import Unkept, open_database
from converter.errors import CannotStart

TABLES = ("CREATE TABLE IF NOT EXISTS things (name TEXT PRIMARY KEY)",)


def names(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM things ORDER BY name")]


def add_twice(connection: sqlite3.Connection) -> None:
    for _ in range(2):
        connection.execute("INSERT INTO things VALUES ('twice')")


@pytest.mark.parametrize("kept", [False, True], ids=["in memory", "in a folder"])
async def test_work_that_fails_leaves_nothing(tmp_path: Path, kept: bool) -> None:
    async with open_database(tmp_path if kept else None, "test", TABLES) as database:
        await database.run(lambda connection: connection.execute("INSERT INTO things VALUES ('once')"))
        with pytest.raises(Unkept, match="UNIQUE"):
            await database.run(add_twice)
        assert await database.run(names) == ["once"]


async def test_a_file_keeps_what_was_put_in_and_is_nobody_elses_business(tmp_path: Path) -> None:
    async with open_database(tmp_path, "test", TABLES) as database:
        await database.run(lambda connection: connection.execute("INSERT INTO things VALUES ('kept')"))
    assert stat.S_IMODE((tmp_path / "test.sqlite").stat().st_mode) == 0o600
    async with open_database(tmp_path, "test", TABLES) as database:
        assert await database.run(names) == ["kept"]


async def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    async with open_database(tmp_path, "test", TABLES):
        pass
    with pytest.raises(CannotStart, match=r"test\.sqlite can't be used: it was made by another version"):
        async with open_database(tmp_path, "test", ("CREATE TABLE IF NOT EXISTS others (name TEXT)",)):
            pass


async def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="can't be used"):
        async with open_database(tmp_path / "nothing", "test", TABLES):
            pass
