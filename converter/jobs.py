"""The hall behind every door: jobs are begun, found and canceled here, whatever dialect asked for them.

Leaves to others: what a request may say (the doors), carrying a job out (`runner`), and how long one that has ended
is remembered (`core.archive`). Ids and idempotency keys belong to a scope, the name of an API key: jobs of another one
are unknown. Invariant: an id names one job of a scope at a time, and a key one that goes on or whose answer is kept;
every run is owned by the group that this hall opens, and none outlives it.
"""

import asyncio
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from converter.core import deeds, idempotency
from converter.core.archive import Archive
from converter.core.idempotency import Claim
from converter.core.order import Delivery, Order, Selection
from converter.core.outputs import FileRef, Output
from converter.core.workflow import check, wanted_outputs
from converter.errors import Canceled, Draining, EngineFailed, Expired, Fault, IdInUse, InvalidInput, NotFound
from converter.gate import FreePlace, Ticket
from converter.means import Means
from converter.media.outputs import Broken, Gone, Item, OpenFile, open_items
from converter.runner import Run
from converter.telemetry import Metrics

WITHDRAWAL = 5.0
"""Seconds that the engine is given at the end to let go of what is given up."""

RETURN = 30.0
"""Seconds after the end of a job within which a caller who polls it is back."""


class Jobs:
    """All jobs of one replica, as an async context manager that owns their tasks.

    `keep_jobs` is in seconds; `warmup` is the workflow that shows that the engine works; `tag` begins every id that is
    made here.
    """

    def __init__(
        self, means: Means, keep_jobs: float, warmup: Mapping[str, Any], warmup_timeout: float, tag: str
    ) -> None:
        self._means = means
        self._warmup = warmup
        self._warmup_timeout = warmup_timeout
        self._live: dict[tuple[str, str], Run] = {}
        self._claimed: dict[tuple[str, str], Run] = {}
        self._keep_jobs = keep_jobs
        self._archive: Archive[Run] = Archive(keep_jobs, means.keep_bytes, Run.strip)
        self.tag = tag
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._now = asyncio.get_running_loop().time

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up what is left; the engine has a few seconds to let go of it."""
        self.give_up()
        with suppress(TimeoutError):
            async with asyncio.timeout(WITHDRAWAL):
                await self.idle()
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(None, None, None)

    def give_up(self) -> None:
        """End every job: the replica is shutting down."""
        for run in list(self._live.values()):
            run.leave(Draining("the replica is shutting down", retry_after=1))

    def engine_lost(self) -> None:
        """End every job that needs the engine: it is gone for good."""
        for run in list(self._live.values()):
            run.feed(deeds.EngineLost())

    async def idle(self) -> None:
        """Wait until no job is being carried."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def fetched(self) -> None:
        """Wait until those who poll jobs that go on alone have been told how they ended; each has `RETURN` for that."""
        for run, until in self._unfetched():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await run.told.wait()

    def _unfetched(self) -> list[tuple[Run, float]]:
        """Jobs of whose end somebody may still ask, and until when."""
        alone = [run for run in self._archive.records() if run.alone and not run.told.is_set()]
        ended = [(run, run.ended_at + RETURN) for run in alone if run.ended_at is not None]
        return [(run, until) for run, until in ended if until > self._now()]

    @property
    def carried(self) -> int:
        """Jobs that are being carried."""
        return len(self._tasks)

    @property
    def unfetched(self) -> int:
        """Jobs that went on alone, whose caller may still come back for how they ended."""
        return len(self._unfetched())

    def check_delivery(self, delivery: Delivery) -> None:
        """Raise InvalidInput for a way of outputs that is not open to callers."""
        self._means.dispatch.check(delivery)

    def name(self) -> str:
        """A fresh id; it begins with this replica's tag, so that a load balancer can route it back."""
        return f"{self.tag}-{uuid.uuid4().hex[:20]}"

    @property
    def upload_inputs(self) -> Collection[tuple[str, str]]:
        """Class and name of inputs that take uploads, as the engine declares them."""
        return self._means.inputs.engine.uploads

    def foresee(self, order: Order) -> tuple[str, ...] | None:
        """The output nodes that will answer, None where the workflow does not show it; raises InvalidWorkflow."""
        check(order.workflow)
        return wanted_outputs(order.workflow, order.selection.nodes, self._means.watch.output_classes)

    def begin(self, order: Order, ticket: Ticket, *, alone: bool, claim: Claim | None = None) -> Run:
        """Admit the order and start to carry it; `alone`: it goes on without a caller; `claim`: the key it stands for.

        Raises IdInUse, InvalidWorkflow, InvalidInput, and every refusal.
        """
        known = self._known((order.scope, order.id))
        if known is not None and not _gives_way(known, claim):
            raise IdInUse(f"the id {order.id} names another job, which goes on or whose result is kept")
        self._means.warden.check(order.workflow)
        try:
            staging = self._means.inputs.stage(order)
        except InvalidInput as fault:
            raise order.tell(fault) from None
        ticket.apply(order.priority, order.timeout)
        run = Run(self._means, order, ticket, staging, kept=alone or claim is not None, alone=alone, claim=claim)
        self._live[order.scope, order.id] = run
        if claim is not None:
            self._claimed[claim.name] = run
        task = self._group.create_task(self._carry(run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return run

    def knows(self, scope: str, key: str) -> bool:
        """Whether there is a job that stands for the key, whatever the request."""
        return self._claimant((scope, key)) is not None

    def recall(self, claim: Claim) -> Run | None:
        """The job of the same request: it goes on, or its answer is kept. Raises IdempotencyMismatch."""
        run = self._claimant(claim.name)
        idempotency.check(claim, None if run is None else run.claim)
        return run

    def _claimant(self, name: tuple[str, str]) -> Run | None:
        run = self._claimed.get(name)
        if run is not None and (not run.outcome.done() or idempotency.is_kept(run.outcome.result())):
            return run
        return self._archive.find_by_key(name, self._now())

    def find(self, job_id: str, scope: str = "") -> Run:
        """The job of this id in its scope; raises NotFound or Expired."""
        run = self._known((scope, job_id))
        if run is not None:
            return run
        if self._archive.expired((scope, job_id), self._now()):
            raise Expired(f"the job {job_id} has ended and its result is no longer kept")
        raise NotFound(f"there is no job {job_id} here")

    def _known(self, name: tuple[str, str]) -> Run | None:
        return self._live.get(name) or self._archive.find(name, self._now())

    def cancel(self, run: Run) -> None:
        """Cancel a job; one that has ended stays as it is, its delivery included."""
        if not run.outcome.done():
            run.leave(Canceled("the job was canceled by request"))

    async def reopen(self, run: Run, stack: AsyncExitStack, selection: Selection | None = None) -> Sequence[Item]:
        """The outputs of a job that has succeeded, once more; raises Expired where their files are gone.

        `selection`: what this caller asked for, where that may be another format than the first caller's. Files that
        are open take one of the bounded number of deliveries, for which the caller waits.
        """
        selection = selection or run.order.selection
        if selection == run.order.selection and all(
            item.content is None or isinstance(item.content, bytes) for item in run.items
        ):
            return run.items
        return await self._open(run.outputs, selection, stack)

    def link(self, output: Output) -> Mapping[str, str] | None:
        """`url` and `expires_at` of a link to an output, as it is; None where it is in no file."""
        return None if output.file is None else self._means.dispatch.links.make(output, output.file, Selection())

    async def follow(self, text: str, stack: AsyncExitStack) -> tuple[Item, int]:
        """The output that a link's reference stands for, and the seconds for which it does so still.

        Raises NotFound for a reference that is none of ours, Expired for one whose time is over or whose file is gone.
        """
        links = self._means.dispatch.links
        reference = links.read(text)
        [item] = await self._open([reference.output], reference.selection, stack)
        return item, links.seconds_left(reference)

    async def _open(self, outputs: Sequence[Output], selection: Selection, stack: AsyncExitStack) -> Sequence[Item]:
        await stack.enter_async_context(self._means.deliveries)
        try:
            return await open_items(self._means.files, outputs, selection, stack, hold=0)
        except Gone as error:
            raise Expired("the engine no longer has the output") from error
        except Broken as error:
            raise EngineFailed("an output could not be read from the engine") from error

    async def fetch(self, file: FileRef, stack: AsyncExitStack) -> OpenFile:
        """A file of the engine, open until the stack is closed; it takes one of the bounded number of deliveries.

        Raises Expired where it is gone, and EngineFailed.
        """
        await stack.enter_async_context(self._means.deliveries)
        try:
            return await stack.enter_async_context(self._means.files.open(file))
        except Gone as error:
            raise Expired("the engine no longer has this file") from error
        except Broken as error:
            raise EngineFailed("a file could not be read from the engine") from error

    async def warm_up(self) -> str:
        """Run the warm-up, outputs included, beside all orders; the id of its prompt. Raises its fault."""
        order = Order(self.name(), self._warmup, self._warmup_timeout)
        place = FreePlace(self._now())
        uncounted = replace(self._means, metrics=Metrics(), tracing=None)  # it is no job that anybody asked for
        run = Run(uncounted, order, place, self._means.inputs.stage(order), kept=True, alone=True)
        await run.carry()
        run.strip()
        outcome = run.outcome.result()
        if isinstance(outcome, Fault):
            raise outcome
        return run.prompt_id or ""

    async def _carry(self, run: Run) -> None:
        try:
            await run.carry()
        finally:
            name = (run.order.scope, run.id)
            claim, current = run.claim, self._live.get(name) is run
            if claim is not None and self._claimed.get(claim.name) is run:
                del self._claimed[claim.name]
            run.strip(lasting=current and run.kept)
            if current:  # else another attempt under the same key has its id
                del self._live[name]
                key = claim.name if claim is not None and idempotency.is_kept(run.outcome.result()) else None
                self._archive.add(name, run, run.held, self._now(), lasting=run.kept, key=key)
                if run.kept and self._means.removal.active:
                    self._means.removal.after(self._keep_jobs, lambda: self._archive.tidy(self._now()))


def _gives_way(run: Run, claim: Claim | None) -> bool:
    """Whether a job leaves its id to another: one that failed, unless how it ended is kept for somebody."""
    if not run.outcome.done() or not isinstance(run.outcome.result(), Fault):
        return False
    if run.claim is None:
        return not run.alone
    return run.claim == claim and not idempotency.is_kept(run.outcome.result())
