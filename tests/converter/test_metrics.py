"""What `/metrics` says of a replica at work, and that it says nothing else than is written down."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from converter.api import native
from converter.core import readiness
from tests import docs
from tests.converter.faults.graphs import passed_through, picture
from tests.converter.faults.replica import PATIENCE, POLL, Caller, converter
from tests.fakes.engine import FakeEngine


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as engine:
        yield engine


async def scrape(caller: Caller) -> list[Sample]:
    """The samples of our own metrics, as Prometheus would read them."""
    text = (await caller.get("/metrics")).body.decode()
    families = [family for family in text_string_to_metric_families(text) if family.name.startswith("converter_")]
    return [sample for family in families for sample in family.samples]


async def value(caller: Caller, name: str, **labels: str) -> float:
    """One sample's value."""
    [found] = [s.value for s in await scrape(caller) if s.name == f"converter_{name}" and s.labels == labels]
    return float(found)


async def until_value(caller: Caller, name: str, wanted: float) -> None:
    """A sample without labels has the value."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if await value(caller, name) == wanted:
                return
            await asyncio.sleep(POLL)


def series(samples: list[Sample]) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return {(sample.name, tuple(sorted(sample.labels.items()))) for sample in samples}


async def test_every_series_is_there_before_anything_has_happened(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=2) as caller:
        before = series(await scrape(caller))
        engine.hold()
        held = [caller.start(picture(color)) for color in (1, 2)]
        await caller.until(lambda: caller.tickets == 2)
        assert (await caller.run(picture(3))).code == "queue_full"
        engine.release()
        for task in held:
            await task
        await caller.run(passed_through("TestRaise", kind="ValueError", message="no"))
        await caller.until_empty()
        assert series(await scrape(caller)) == before


async def test_gauges_say_how_full_a_replica_is(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=4, engine_depth=1) as caller:
        assert await value(caller, "saturation") == 0
        engine.hold()
        held = [caller.start(picture(color)) for color in (1, 2, 3)]
        await caller.until(lambda: caller.tickets == 3)
        await engine.until_held()
        found = {name: await value(caller, name) for name in ("waiting", "running", "depth", "capacity", "saturation")}
        assert found == {"waiting": 2, "running": 1, "depth": 3, "capacity": 4, "saturation": 0.75}
        assert await value(caller, "engine_depth") == 1
        assert await value(caller, "engine_up") == await value(caller, "websocket_connected") == 1
        engine.release()
        for task in held:
            await task


async def test_saturation_is_never_more_than_one(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=2) as caller:
        engine.hold()
        for color in range(4):
            engine.put_stranger(picture(color))
        await caller.until(lambda: caller.replica.gate.queue()["strangers"] == 4)
        assert await value(caller, "saturation") == 1
        assert await value(caller, "depth") == 4
        engine.release()


async def test_every_refusal_is_counted_by_its_reason(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "RETURNS", 0)
    async with converter(engine.url, capacity=1) as caller:
        engine.hold()
        held = caller.start(picture(1), {"Idempotency-Key": "once"})
        await caller.until(lambda: caller.tickets)
        assert (await caller.run(picture(2))).code == "queue_full"
        assert (await caller.run(picture(1), {"Idempotency-Key": "once"})).code == "queue_full"
        assert (await caller.run(picture(2), priority=-1)).code == "queue_full"
        assert await value(caller, "refusals_total", reason="queue_full") == 3
        engine.release()
        await held
        caller.replica.gate.observe(readiness.DrainStarted())
        caller.replica.gate.close()
        assert (await caller.run(picture(2))).code == "draining"
        assert await value(caller, "refusals_total", reason="draining") == 1


async def test_an_attached_engine_that_restarts_is_counted_once(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        assert await value(caller, "engine_restarts_total") == await value(caller, "reconnects_total") == 0
        before = caller.replica.watch.instance
        await engine.crash()
        await engine.restart()
        await caller.until(lambda: caller.ready and caller.replica.watch.instance not in (before, None))
        assert await value(caller, "engine_restarts_total") == await value(caller, "reconnects_total") == 1


async def test_a_websocket_that_is_opened_again_is_no_restart(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.drop_sockets()
        await until_value(caller, "reconnects_total", 1)
        assert await value(caller, "engine_restarts_total") == 0


async def test_the_times_of_a_job_are_parts_of_its_total(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        timings = (await caller.run(picture(1))).document["timings"]
        total = await value(caller, "total_seconds_sum")
        assert total == pytest.approx(timings["total"], abs=1e-3)
        parts = timings["waiting"] + timings["staging"] + timings["queued"] + timings["executing"]
        assert await value(caller, "overhead_seconds_sum") == pytest.approx(total - parts, abs=1e-3)
        assert await value(caller, "output_bytes_count") == 1


async def test_what_is_written_down_is_what_is_said(engine: FakeEngine) -> None:
    """The table in docs/metrics.md against a scrape of a replica, name by name, label by label, value by value."""
    rows = re.findall(r"^\| `(converter_\w+)` \| (\w+) \| (.*?) \|", docs.METRICS.read_text(), re.MULTILINE)
    told = {
        (name, kind, label, value)
        for name, kind, labels in rows
        for label, values in re.findall(r"`(\w+)`: (`[^;]*`)", labels) or [("", "``")]
        for value in re.findall(r"`(\w*)`", values)
    }
    async with converter(engine.url) as caller:
        text = (await caller.get("/metrics")).body.decode()
    said = set()
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        for sample in family.samples if name.startswith("converter_") else ():
            labels = {label: value for label, value in sample.labels.items() if label != "le"} or {"": ""}
            said |= {(name, family.type, label, value) for label, value in labels.items()}
    assert said == told
