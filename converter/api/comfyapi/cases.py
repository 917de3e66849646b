"""Cases: every job of this dialect, as it is under way or as the ledger has it.

Leaves carrying jobs to `jobs`, and keeping to `ledger`. Invariant: how a job ended is in the ledger before the job is
no longer found among those under way; the ids of its outputs are made once.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from converter.api.comfyapi.outputs import Outputs
from converter.core.comfyapi import Record, call_state, measure, show_failure, show_job
from converter.database import Unkept
from converter.errors import Fault, Internal, NotFound
from converter.jobs import Jobs
from converter.ledger import Ledger
from converter.runner import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Case:
    """One job; `run` is None where only the ledger knows it."""

    record: Record
    run: Run | None = None


class Cases:
    """All jobs. `keep`: seconds for which one is known after its end."""

    def __init__(self, jobs: Jobs, ledger: Ledger, outputs: Outputs, keep: float) -> None:
        self._jobs = jobs
        self._ledger = ledger
        self._outputs = outputs
        self._keep = keep
        self._live: dict[tuple[str, str], Case] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Own the tasks that write down how jobs end; jobs that go on when this is left are nobody's any more."""
        try:
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for case in list(self._live.values()):
                if case.run is not None and case.run.outcome.done():
                    await self._write_down(case.run)

    def show(self, case: Case, origin: str) -> dict[str, Any]:
        """A job as the API has it; `origin` begins addresses."""
        if case.run is None or case.record.ended:
            self.tell(case.record)
            return show_job(case.record, self._outputs.show(case.record, origin))
        return show_job(case.record, (), case.run.status()["position"], case.run.chronicle.snapshot())

    def tell(self, record: Record) -> None:
        """Somebody is told how a job has ended, for whom a replica need not wait any more before it ends."""
        with suppress(Fault):
            self._jobs.find(record.id, record.scope).told.set()

    async def add(self, run: Run, labels: Mapping[str, str], workflow: Mapping[str, Any]) -> None:
        """A job has been begun: it is in the ledger from here on; where that fails, it is given up."""
        now = time.time()
        record = Record(run.id, run.order.scope, now, now + run.order.timeout + self._keep, labels=labels)
        self._live[record.scope, record.id] = Case(record, run)
        task = asyncio.create_task(self._follow(run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.shield(self._ledger.add(record, workflow, now))
        except Exception:
            run.leave(Internal("the job could not be written down"))
            raise

    async def drop(self, run: Run) -> None:
        """A job counts as never begun."""
        self._live.pop((run.order.scope, run.id), None)
        await self._ledger.remove(run.order.scope, run.id)

    async def find(self, scope: str, id: str) -> Case:
        """The job of this id in its scope; raises NotFound."""
        if (scope, id) in self._live:
            return self._observe(scope, id)
        record = await self._ledger.find(scope, id, time.time())
        if record is None:
            raise NotFound("there is no such job here")
        return Case(record)

    def observe(self, record: Record) -> Record:
        """A record of the ledger, or of the job at this moment, where it is under way."""
        name = record.scope, record.id
        return self._observe(*name).record if name in self._live else record

    async def _follow(self, run: Run) -> None:
        await asyncio.shield(run.outcome)
        if (run.order.scope, run.id) in self._live:
            await asyncio.shield(self._write_down(run))

    async def _write_down(self, run: Run) -> None:
        """Put how a job ended into the ledger; where that fails it is known as long as the service runs."""
        name = run.order.scope, run.id
        if name not in self._live:  # whoever was writing when the service began to end has done it
            return
        try:
            await self._ledger.update(self._observe(*name).record)
        except Unkept as error:
            log.error("how a job ended was not written down: %s", error, extra=run.order.about)
        else:
            self._live.pop(name, None)

    def _observe(self, scope: str, id: str) -> Case:
        """A job that is under way, or has just ended, as it is at this moment."""
        case = self._live[scope, id]
        run, record = case.run, case.record
        if run is None or record.ended:
            return case
        status = call_state(run.state)
        started, metrics = measure(run.times, record.created, begun=status != "queued" and run.times["executing"] > 0)
        record = replace(record, status=status, started=started, metrics=metrics)
        if not run.outcome.done():
            return Case(record, run)
        outcome, now = run.outcome.result(), time.time()
        record = replace(record, completed=now, expires=now + self._keep)
        if isinstance(outcome, Fault):
            record = replace(record, error=show_failure(outcome))
        else:
            record = replace(record, outputs=self._outputs.describe(run.items, record))
        self._live[scope, id] = Case(record, run)  # once and for all: ids of outputs say when they expire
        return self._live[scope, id]
