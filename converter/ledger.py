"""The ledger: what is kept of jobs beyond themselves, in a database.

For: records by id and by time, workflows, and idempotency keys that count once, with what is bounded and expires.
Leaves what a record says to `core.comfyapi`. Scopes are names of API keys. Invariant: a key is claimed once until it
is released or expires; the oldest records go first where there are too many.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from converter.core.comfyapi import Record, matches
from converter.database import Database

MOST = 10_000
"""Records at most, and keys ten times as many."""

KEYS = 86_400.0
"""Seconds for which an idempotency key counts."""

WORKFLOWS = 64 * 2**20
"""Characters of all workflows that are kept; beyond it the oldest jobs are forgotten."""

TABLES = (
    """CREATE TABLE IF NOT EXISTS jobs (number INTEGER PRIMARY KEY AUTOINCREMENT, scope TEXT, id TEXT, expires REAL,
    ended INTEGER, document TEXT, size INTEGER, workflow TEXT, UNIQUE (scope, id))""",
    "CREATE INDEX IF NOT EXISTS jobs_by_expiry ON jobs (expires)",
    "CREATE TABLE IF NOT EXISTS keys (scope TEXT, key TEXT, expires REAL, PRIMARY KEY (scope, key)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS keys_by_expiry ON keys (expires)",
    "CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, secret BLOB)",
)


class Ledger:
    """Moments are seconds of the Unix epoch."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, record: Record, workflow: Mapping[str, Any], now: float) -> None:
        """Keep a new job, and forget what there is no more room or time for."""
        text = json.dumps(workflow, separators=(",", ":"))
        row = (*_row(record), len(text), text)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM jobs WHERE expires <= ?", (now,))
            connection.execute("INSERT OR REPLACE INTO jobs VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", row)
            _bound(connection)

        await self._database.run(work)

    async def update(self, record: Record) -> None:
        """Keep how a job is; one that has been forgotten stays so."""
        scope, id, expires, ended, document = _row(record)
        sql = "UPDATE jobs SET expires = ?, ended = ?, document = ? WHERE scope = ? AND id = ?"
        await self._database.run(lambda connection: connection.execute(sql, (expires, ended, document, scope, id)))

    async def remove(self, scope: str, id: str) -> None:
        """Forget a job, as if it had never been."""
        sql = "DELETE FROM jobs WHERE scope = ? AND id = ?"
        await self._database.run(lambda connection: connection.execute(sql, (scope, id)))

    async def find(self, scope: str, id: str, now: float) -> Record | None:
        """The record of a job, if it is still known."""
        sql = "SELECT document FROM jobs WHERE scope = ? AND id = ? AND expires > ?"
        row = await self._database.run(lambda connection: connection.execute(sql, (scope, id, now)).fetchone())
        return None if row is None else _record(row[0])

    async def workflow(self, scope: str, id: str, now: float) -> dict[str, Any] | None:
        """The workflow of a job, as it came."""
        sql = "SELECT workflow FROM jobs WHERE scope = ? AND id = ? AND expires > ?"
        row = await self._database.run(lambda connection: connection.execute(sql, (scope, id, now)).fetchone())
        return None if row is None else json.loads(row[0])

    async def list(
        self, scope: str, now: float, labels: Mapping[str, str], before: int | None, most: int
    ) -> tuple[Sequence[Record], int | None]:
        """The newest jobs with these labels, and what `before` has to be for the next; None where that is all."""
        sql = "SELECT number, document FROM jobs WHERE scope = ? AND expires > ? AND number < ? ORDER BY number DESC"
        given = (scope, now, 2**62 if before is None else before)

        def work(connection: sqlite3.Connection) -> tuple[list[Record], int | None]:
            found: list[Record] = []
            last = None
            for number, document in connection.execute(sql, given):
                if len(found) == most:
                    return found, last
                record = _record(document)
                if matches(record, labels):
                    found.append(record)
                    last = number
            return found, None

        return await self._database.run(work)

    async def end_all(self, error: Mapping[str, Any], now: float) -> None:
        """Jobs that had not ended when the service did have failed."""

        def work(connection: sqlite3.Connection) -> None:
            for (document,) in connection.execute("SELECT document FROM jobs WHERE NOT ended").fetchall():
                scope, id, expires, ended, ending = _row(
                    replace(_record(document), status="failed", completed=now, error=error)
                )
                sql = "UPDATE jobs SET expires = ?, ended = ?, document = ? WHERE scope = ? AND id = ?"
                connection.execute(sql, (expires, ended, ending, scope, id))

        await self._database.run(work)

    async def claim(self, scope: str, key: str, now: float, until: float) -> bool:
        """Take an idempotency key; whether it was free."""

        def work(connection: sqlite3.Connection) -> bool:
            connection.execute("DELETE FROM keys WHERE expires <= ?", (now,))
            bound = (
                "DELETE FROM keys WHERE (SELECT count(*) FROM keys) > ? AND expires = (SELECT min(expires) FROM keys)"
            )
            connection.execute(bound, (10 * MOST,))
            return connection.execute("INSERT OR IGNORE INTO keys VALUES (?, ?, ?)", (scope, key, until)).rowcount > 0

        return await self._database.run(work)

    async def release(self, scope: str, key: str) -> None:
        """Give an idempotency key back."""
        sql = "DELETE FROM keys WHERE scope = ? AND key = ?"
        await self._database.run(lambda connection: connection.execute(sql, (scope, key)))

    async def secret(self, name: str, fresh: bytes) -> bytes:
        """The secret of this name; `fresh`, where there was none."""

        def work(connection: sqlite3.Connection) -> bytes:
            connection.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?)", (name, fresh))
            [secret] = connection.execute("SELECT secret FROM secrets WHERE name = ?", (name,)).fetchone()
            return bytes(secret)

        return await self._database.run(work)


def _bound(connection: sqlite3.Connection) -> None:
    """Forget the oldest jobs that have ended, as far as there are too many; those under way are bounded elsewhere."""
    count, size = connection.execute("SELECT count(*), total(size) FROM jobs").fetchone()
    while count > MOST or size > WORKFLOWS:
        sql = "SELECT number, size FROM jobs WHERE ended ORDER BY number LIMIT 1"
        oldest = connection.execute(sql).fetchone()
        if oldest is None:
            return
        connection.execute("DELETE FROM jobs WHERE number = ?", (oldest[0],))
        count, size = count - 1, size - oldest[1]


def _row(record: Record) -> tuple[str, str, float, bool, str]:
    document = json.dumps(asdict(record), separators=(",", ":"))
    return record.scope, record.id, record.expires, record.ended, document


def _record(document: str) -> Record:
    known = json.loads(document)
    return Record(**{**known, "outputs": tuple(known["outputs"])})
