"""Engines as children: one that is dead inside is replaced, and one that can't be kept alive is given up for good."""

import asyncio
import signal
from pathlib import Path

import psutil

from tests.e2e.service import open_session, running
from tests.e2e.test_process import Caller, color, workflow

SLOW = 25.0
"""Seconds that nothing here takes."""


CHEAP = 2.0
"""Seconds of processor time until a converter listens: three times what it takes."""


async def test_an_engine_that_is_dead_inside_is_replaced_and_the_next_job_is_answered(tmp_path: Path) -> None:
    flags = ("--stall-patience", "2", "--drain-delay", "0", "--engine-depth", "1")
    with running(tmp_path, *flags) as service:
        await service.listens()
        async with open_session() as session:
            await service.ready()
            caller = Caller(service, session)
            first = await service.engine()
            deaf = caller.start(workflow(1, 600.0, node="TestSleepDeaf"), timeout=6, id="deaf")
            await caller.until_running("deaf")
            waiting = caller.start(workflow(0x123456), timeout=SLOW * 3)
            probe = await caller.until("/readyz", lambda reply: reply.document["state"] == "FAILED")
            assert "no progress" in probe.document["reason"]
            assert (await deaf).status == 504
            assert color(await waiting) == 0x123456
            assert (await service.engine()).pid != first.pid


async def test_jobs_end_when_the_engine_is_given_up(tmp_path: Path) -> None:
    flags = ("--restart-budget", "0", "--grace", "60", "--drain-delay", "0", "--engine-depth", "1")
    with running(tmp_path, *flags) as service:
        await service.listens()
        async with open_session() as session:
            await service.ready()
            caller = Caller(service, session)
            at_work = caller.start(workflow(1, SLOW), id="at-work")
            await caller.until_running("at-work")
            waiting = caller.start(workflow(2, 1.0), id="waiting")
            await caller.until("/v1/jobs/waiting", lambda reply: reply.document.get("status") == "waiting")
            (await service.engine()).kill()
            async with asyncio.timeout(SLOW):
                first, second = await at_work, await waiting
            assert (first.status, first.document["code"]) == (502, "engine_failed")
            assert (second.status, second.document["code"]) == (503, "engine_down")
            assert (await caller.get("/livez")).status == 503
            [error] = [line for line in service.log.splitlines() if '"level": "error"' in line]
            assert "not started again" in error
            service.signal(signal.SIGTERM)
            assert await service.ends(SLOW) == 0


async def test_a_start_costs_little(tmp_path: Path) -> None:
    """In processor time, which hardly depends on what else the machine does; `benchmarks` has the time until then."""
    with running(tmp_path) as service:
        await service.listens()
        spent = psutil.Process(service.process.pid).cpu_times()
        assert spent.user + spent.system < CHEAP


async def test_ctrl_c_does_not_wait_for_load_balancers(tmp_path: Path) -> None:
    with running(tmp_path, "--drain-delay", "90", "--grace", "100") as service:
        await service.listens()
        service.signal(signal.SIGINT)
        assert await service.ends(SLOW * 2) == 0
