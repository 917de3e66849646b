"""Files that change are read again; what can't be used changes nothing and is said once."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from converter import renewal
from converter.api.door import Keyring
from tests.converter.faults.replica import PATIENCE, POLL, converter
from tests.fakes.engine import FakeEngine

ALICE, BOB = "alices-secret-is-long", "bobs-secret-is-longer"


class Notes:
    """A source that keeps what it has read."""

    def __init__(self, *paths: Path) -> None:
        self.paths: Sequence[Path] = paths
        self.read_so_far: list[str] = []

    def read(self) -> None:
        text = "".join(path.read_text() for path in self.paths)
        self.read_so_far.append(text)
        if text == "wrong":
            raise ValueError("that is wrong")


@asynccontextmanager
async def renewing(*sources: renewal.Source) -> AsyncIterator[None]:
    task = asyncio.create_task(renewal.renew(sources))
    await asyncio.sleep(0)  # it has looked for the first time
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "PERIOD", 0.005)


def replace(path: Path, text: str) -> None:
    """As platforms do it: never half there."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


async def until(notes: Notes, *texts: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while notes.read_so_far != list(texts):
            assert notes.read_so_far == list(texts)[: len(notes.read_so_far)]
            await asyncio.sleep(POLL)


async def test_a_source_is_read_when_one_of_its_files_changes(tmp_path: Path) -> None:
    one, two, other = tmp_path / "one", tmp_path / "two", tmp_path / "other"
    for path in (one, two, other):
        path.write_text(path.name)
    notes, others = Notes(one, two), Notes(other)
    async with renewing(notes, others):
        replace(one, "1")
        await until(notes, "1two")
        replace(two, "2")
        await until(notes, "1two", "12")
        replace(two, "2")  # another file, though it says the same
        await until(notes, "1two", "12", "12")
        assert others.read_so_far == []
        for count in range(1, 4):  # looks go by, in which it has not changed
            replace(other, "again")
            await until(others, *["again"] * count)
    assert notes.read_so_far == ["1two", "12", "12"]


async def test_a_link_that_leads_elsewhere_is_a_change(tmp_path: Path) -> None:
    """Kubernetes replaces a mounted secret so."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys").write_text(name)
    data = tmp_path / "data"
    data.symlink_to("old")
    notes = Notes(data / "keys")
    async with renewing(notes):
        fresh = tmp_path / "fresh"
        fresh.symlink_to("new")
        fresh.replace(data)
        await until(notes, "new")


async def test_what_can_not_be_used_is_said_once_and_looked_at_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    path.write_text("right")
    notes = Notes(path)
    with caplog.at_level(logging.INFO):
        async with renewing(notes):
            replace(path, "wrong")
            await until(notes, "wrong")
            path.unlink()
            async with asyncio.timeout(PATIENCE):
                while len(caplog.records) < 2:  # noqa: ASYNC110 - a log tells nobody
                    await asyncio.sleep(POLL)
            replace(path, "right")
            await until(notes, "wrong", "right")
    levels = [record.levelname for record in caplog.records if record.name == "converter.renewal"]
    assert levels == ["ERROR", "ERROR", "INFO"]
    assert "that is wrong" in caplog.records[0].getMessage()


async def test_keys_change_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# who may call\nalice:{ALICE}\n")
    async with FakeEngine() as engine, converter(engine.url, api_keys_file=str(path)) as caller:

        async def status(secret: str) -> int:
            return (await caller.ask("GET", "/v1/workflows", {"Authorization": f"Bearer {secret}"})).status

        assert [await status(secret) for secret in (ALICE, BOB)] == [200, 401]
        replace(path, f"bob:{BOB}\n")
        async with asyncio.timeout(PATIENCE):
            while await status(BOB) != 200:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(POLL)
        assert await status(ALICE) == 401


@pytest.mark.parametrize("text", ["", "nothing", f"alice:{ALICE},bob:{ALICE}", f"{ALICE}\n", "alice:\xff"])
def test_a_file_that_can_not_be_used_leaves_the_keys_as_they_were(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f"alice:{ALICE}")
    ring = Keyring(None, path)
    before = ring._keys
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError) as caught:
        ring.read()
    assert ALICE not in str(caught.value)
    assert ring._keys is before


def test_keys_of_the_environment_and_of_the_file_are_all_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"bob:{BOB}")
    assert [key.name for key in Keyring(f"alice:{ALICE}", path)._keys] == ["alice", "bob"]


def test_a_secret_that_can_be_guessed_is_warned_of_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    Keyring(f"alice:hunter2,bob:{BOB}", None)
    [record] = caplog.records
    assert (record.levelname, vars(record)["key"]) == ("WARNING", "alice")
    assert "hunter2" not in str(vars(record))
