"""The converter's memory, seen from outside its process. `make soak` is the long form of the first."""

import asyncio
import struct

import pytest

from benchmarks import soak
from benchmarks.clients import Caller, open_session
from benchmarks.media import measure_inputs, measure_outputs
from benchmarks.processes import MB, Engine, run_converter
from tests.converter.faults.graphs import passed_through
from tests.converter.faults.junk import PREVIEW
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of

FLOOD = 200
"""Messages of 1 MB each, of which none may be kept."""

BOUND = 64.0
"""Megabytes: a few messages on their way through sockets, and no more."""


def test_every_form_of_a_request_gets_its_output(capsys: pytest.CaptureFixture[str]) -> None:
    """Whether memory is flat takes thousands to be seen."""
    assert soak.main(["--requests", "50", "--callers", "4"]) == 0
    *_, reading, verdict = capsys.readouterr().out.splitlines()
    assert reading.split()[0] == "50"
    assert verdict == "memory is flat"


def test_memory_that_rose_is_told() -> None:
    assert not soak.judge([70.0, 90.0, 76.9])
    assert "12%" in soak.judge([70.0, 71.0, 78.4])


async def test_large_inputs_go_through_without_being_held() -> None:
    rises = [finding for finding in await measure_inputs(64 * MB) if "rise" in finding.name]
    assert len(rises) == 2
    assert all(finding.verdict == "met" for finding in rises), rises


async def test_large_outputs_go_through_without_being_held() -> None:
    """Bytes as such have a test of their own; a link leads to no others."""
    only = ("ZIP", "store of S3's protocol")
    rises = [finding for finding in await measure_outputs(64 * MB, only=only) if "rise" in finding.name]
    assert len(rises) == len(only)
    assert all(finding.verdict == "met" for finding in rises), rises


async def test_a_flood_of_messages_is_not_kept() -> None:
    async with (
        FakeEngine() as engine,
        open_session() as session,
        run_converter(Engine(engine.url, None)) as converter,
    ):
        caller = Caller(converter.url, session, "image/png")
        await caller.run(passed_through("TestPreview", 1, steps=1))
        before = converter.rss()
        converter.forget_peak()
        engine.hold("TestPreview")
        running = asyncio.create_task(caller.run(passed_through("TestPreview", 2, steps=1)))
        await engine.until_held()
        [socket] = engine.sockets.open
        for number in range(FLOOD):
            if number % 2:
                await socket.ws.send_str('{"type": "x", "data": "' + "x" * MB + '"}')
            else:
                await socket.ws.send_bytes(struct.pack(">II", PREVIEW, 2) + b"x" * MB)
        engine.release()
        assert color_of(await running) == 2
        assert converter.peak() - before < BOUND
