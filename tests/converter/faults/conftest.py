"""What tests of whole runs share: an engine, shorter patiences, and a check that nothing was a mistake of ours."""

import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from converter.core import evidence
from tests.fakes.engine import FakeEngine


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    """A healthy engine, whose `faults` a test may change at any time."""
    async with FakeEngine() as engine:
        yield engine


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The patiences of evidence, in the same proportions and ten times as short."""
    for name in ("SILENCE", "ABSENCE", "LATENESS", "DELIVERY", "LAST_RETRY"):
        monkeypatch.setattr(evidence, name, getattr(evidence, name) / 10)


@pytest.fixture(autouse=True)
def no_mistakes(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever goes wrong around the converter, it is never an exception that nobody had thought of."""
    caplog.set_level(logging.INFO)
    yield
    records = [record for phase in ("setup", "call") for record in caplog.get_records(phase)]
    mistakes = [record for record in records if record.exc_info]
    assert not mistakes, [f"{record.getMessage()}: {record.exc_info}" for record in mistakes]
