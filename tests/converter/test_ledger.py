"""The ledger: what is kept of jobs is bounded and expires, and a key counts once."""

from collections.abc import AsyncIterator

import pytest

from converter import ledger
from converter.core.comfyapi import LOST, Record
from converter.database import open_database
from converter.ledger import TABLES, Ledger


@pytest.fixture
async def book() -> AsyncIterator[Ledger]:
    async with open_database(None, "test", TABLES) as database:
        yield Ledger(database)


def record(id: str, *, scope: str = "", status: str = "succeeded", expires: float = 100.0) -> Record:
    return Record(id, scope, 0.0, expires, status=status, labels={"id": id})


async def test_records_are_found_in_their_scope_until_they_expire(book: Ledger) -> None:
    await book.add(record("1"), {"1": {}}, 0.0)
    assert await book.find("", "1", 99.0) == record("1")
    assert await book.workflow("", "1", 99.0) == {"1": {}}
    assert await book.find("other", "1", 99.0) is None
    assert await book.find("", "1", 100.0) is None
    assert await book.workflow("", "1", 100.0) is None


async def test_an_update_is_of_one_job_and_brings_none_back(book: Ledger) -> None:
    await book.add(record("1", status="queued"), {}, 0.0)
    await book.add(record("1", scope="other", status="queued"), {}, 0.0)
    await book.update(record("1", status="failed"))
    await book.update(record("2"))
    found = [await book.find(scope, id, 0.0) for scope, id in (("", "1"), ("other", "1"), ("", "2"))]
    assert [each.status if each else None for each in found] == ["failed", "queued", None]
    await book.remove("", "1")
    assert await book.find("", "1", 0.0) is None


async def test_the_oldest_that_have_ended_go_where_there_are_too_many(
    book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MOST", 3)
    await book.add(record("under way", status="running"), {}, 0.0)
    for number in range(4):
        await book.add(record(str(number)), {}, 0.0)
    listed, _ = await book.list("", 0.0, {}, None, 9)
    assert [each.id for each in listed] == ["3", "2", "under way"]


async def test_workflows_take_no_more_than_their_room(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "WORKFLOWS", 100)
    for number in range(3):
        await book.add(record(str(number)), {"1": "x" * 30}, 0.0)
    listed, _ = await book.list("", 0.0, {}, None, 9)
    assert [each.id for each in listed] == ["2", "1"]


async def test_pages_follow_each_other_without_gaps(book: Ledger) -> None:
    for number in range(5):
        await book.add(record(str(number)), {}, 0.0)
    seen, cursor = [], None
    while True:
        page, cursor = await book.list("", 0.0, {}, cursor, 2)
        seen += [each.id for each in page]
        if cursor is None:
            break
    assert seen == ["4", "3", "2", "1", "0"]


async def test_jobs_that_had_not_ended_have_failed(book: Ledger) -> None:
    await book.add(record("1", status="running"), {}, 0.0)
    await book.add(record("2"), {}, 0.0)
    await book.end_all(LOST, 5.0)
    lost, ended = await book.find("", "1", 5.0), await book.find("", "2", 5.0)
    assert lost is not None
    assert (lost.status, lost.completed, lost.error) == ("failed", 5.0, LOST)
    assert ended == record("2")


async def test_a_key_counts_once_in_its_scope_until_it_expires(book: Ledger) -> None:
    assert await book.claim("", "key", 0.0, 10.0)
    assert not await book.claim("", "key", 9.0, 20.0)
    assert await book.claim("other", "key", 9.0, 20.0)
    assert await book.claim("", "key", 10.0, 20.0)
    await book.release("", "key")
    assert await book.claim("", "key", 11.0, 20.0)


async def test_the_keys_that_expire_first_go_where_there_are_too_many(
    book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MOST", 1)
    for number in range(11):
        assert await book.claim("", str(number), 0.0, 10.0 + number)
    assert await book.claim("", "0", 0.0, 99.0)
    assert not await book.claim("", "10", 0.0, 99.0)


async def test_a_secret_is_made_once(book: Ledger) -> None:
    assert await book.secret("name", b"first") == b"first"
    assert await book.secret("name", b"second") == b"first"
