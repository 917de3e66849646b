"""What the tests of the doors share: a converter over a healthy engine, and the promise that callers make no errors."""

import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.converter.faults.replica import Caller, converter
from tests.fakes.engine import FakeEngine

MAX_BODY = 2**20
"""Bytes of a request's body."""


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    """An engine, whose `faults` a test may change at any time."""
    async with FakeEngine() as engine:
        yield engine


@pytest.fixture
async def caller(engine: FakeEngine) -> AsyncIterator[Caller]:
    """A ready converter that takes small bodies within a short time, and somebody who calls it."""
    async with converter(engine.url, max_body=MAX_BODY, body_timeout=10.0) as caller:
        yield caller


@pytest.fixture(autouse=True)
def no_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a caller sends, it is not an error of ours."""
    caplog.set_level(logging.INFO)
    yield
    errors = [r for phase in ("setup", "call") for r in caplog.get_records(phase) if r.levelno >= logging.ERROR]
    assert not errors, [f"{record.getMessage()}: {record.exc_info}" for record in errors]
