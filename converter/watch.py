"""The watch: finds out what state the engine is in, all the time, and tells the gate and the runs.

It reads the engine's queue at short intervals, notices restarts, runs the warm-up after each, and (where the engine
is our child) asks the supervisor for a restart of one that is dead inside. Leaves to others: what follows from it
(`core.readiness`, `core.job`). Invariant: while the watch runs, what the gate knows is never older than the reading
interval plus the engine's own delay, or the gate can see that it is.
"""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryError,
    retry_if_exception_type,
    retry_if_result,
    stop_after_delay,
    wait_random_exponential,
)

from converter.core import absence, admission, readiness
from converter.core.events import QueueView
from converter.errors import Canceled, EngineFailed, Fault
from converter.gate import Gate
from converter.link.client import LinkError, Unreachable
from converter.link.diagnosis import diagnose
from converter.link.engine import EngineLink
from converter.link.supervisor import BudgetSpent, Event, Exited, Started
from converter.telemetry import Metrics

T = TypeVar("T")

log = logging.getLogger(__name__)

INTERVAL = 0.5
"""Seconds between two reads of the engine's queue, at most a quarter of the staleness."""

SHORTEST = 0.1
"""The least: while connections are refused, which costs the engine nothing, or prompts take no longer than that."""

WARMUP_RETRY = 5.0
"""Seconds between two warm-ups when the first fails."""

SETTLING = 10.0
"""Seconds in which an engine must tell, after its warm-up, what it knows of it and which nodes it has."""

LAST_LINE = 500
"""Characters of what a dead engine wrote last that are told once more."""

GIVEN_UP = "the engine died too often and is not started again; see the log"


class Child(Protocol):
    """The engine as a process of ours (`link.supervisor.Supervisor`)."""

    def confirm_warm(self, generation: int) -> None:
        """The child of this generation has completed its warm-up."""

    async def restart(self, reason: str, *, generation: int | None = None) -> None:
        """Stop the child and start it again; returns when the old one is gone."""


WarmUp = Callable[[], Awaitable[str]]
"""Runs the warm-up and gives the id of its prompt; raises the fault with which it failed."""


class Watch:
    """Watches one engine. `instance` names its present start, None while it is not known to be up.

    The history record of the warm-up is the mark by which an engine is known again: it is gone after a restart. So is
    every prompt in its queue; one that is still there shows the same where somebody has cleared the history.
    `classes`: those of nodes that the engine has, none until they are known; `output_classes`: those that are outputs,
    None until then; `uploads`: inputs that take the name of an uploaded file; `max_upload_size`: bytes of an upload,
    where the engine tells. `warmed` is set for good by the first warm-up that succeeds. `lost`: the engine is not
    started again, of which `on_loss` is told once.
    """

    def __init__(self, gate: Gate, staleness: float, metrics: Metrics) -> None:
        self.instance: str | None = None
        self.classes: frozenset[str] = frozenset()
        self.output_classes: frozenset[str] | None = None
        self.uploads: frozenset[tuple[str, str]] = frozenset()
        self.max_upload_size: int | None = None
        self.warmed = asyncio.Event()
        self.lost = False
        self.on_loss: Callable[[], None] = lambda: None
        self._gate = gate
        self._staleness = staleness
        self._interval = min(INTERVAL, staleness / 4)
        self._metrics = metrics
        self._mark: str | None = None
        self._is_warm = False
        self._seen: frozenset[str] = frozenset()
        self._generation: int | None = None
        self._doubt = True
        self._stall: str | None = None
        self._nudge = asyncio.Event()
        self._certain = asyncio.Event()
        self._listened = False
        self._absence = absence.Absence()
        self._last_line = ""

    def warm_instance(self) -> str | None:
        """The engine's instance, once it is warm."""
        return self.instance if self._is_warm else None

    # What others tell -----------------------------------------------------------------------------------------------

    def unreachable(self, reason: str) -> None:
        """A connection to the engine was refused: no more turns until it answers again."""
        log.info("the engine can't be reached: %s", reason)
        self._unreached()
        self._nudge.set()

    def socket_changed(self, *, connected: bool) -> None:
        """The websocket was opened or lost (`link.engine.Listener`). One that is lost may mean a restart."""
        self._metrics.websocket_connected.set(connected)
        if connected and self._listened:
            self._metrics.reconnects.inc()
        self._listened = True
        if not connected:
            self._question()
        self._nudge.set()

    def progressed(self) -> None:
        """A prompt of ours shows a sign of life (`link.engine.Listener`)."""
        self._gate.progressed()

    def stalled(self, reason: str) -> None:
        """The engine answers but does nothing (`gate`)."""
        self._stall = reason
        self._nudge.set()

    async def check_instance(self) -> str | None:
        """The engine's instance as of now; waits until the engine has answered. None where there will be no other."""
        if self.lost:
            return None
        self._question()
        self._nudge.set()
        await self._certain.wait()
        return self.instance

    # The round ------------------------------------------------------------------------------------------------------

    async def run(self, link: EngineLink, warm_up: WarmUp, child: Child | None) -> None:
        """Watch until canceled."""
        async with asyncio.TaskGroup() as group:
            warming: asyncio.Task[None] | None = None
            while True:
                self._nudge.clear()
                reached = await self._read(link)
                cold = self.instance is not None and not self._is_warm and link.client_id is not None
                if cold and (warming is None or warming.done()):
                    warming = group.create_task(self._warm(link, warm_up, child))
                if self._stall is not None and child is not None:
                    reason, self._stall = self._stall, None
                    await child.restart(reason, generation=self._generation)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause(link) if reached else SHORTEST):
                        await self._nudge.wait()

    def _pause(self, link: EngineLink) -> float:
        """Seconds until the next read: that a quick prompt has ended is soon seen, be the socket deaf."""
        pace = self._gate.service if link.prompts else None
        return self._interval if pace is None else min(self._interval, max(SHORTEST, pace))

    def child_event(self, event: Event, link: EngineLink) -> None:
        """What happened to the engine's process."""
        match event:
            case Started(_, generation):
                self._generation = generation
                self._absence = absence.Absence(absence.STARTED)
            case Exited():
                self._exited(event, link)
            case BudgetSpent():
                log.error(
                    "the engine died too often and is not started again: %s",
                    "restart the service" if self.warmed.is_set() else "mend what ends it, then restart the service",
                    extra={"last_line": self._last_line},
                )
                self._gate.observe(readiness.BudgetSpent(GIVEN_UP))
                self.lost = True
                self._certain.set()
                self.on_loss()
        self._nudge.set()

    def _exited(self, exited: Exited, link: EngineLink) -> None:
        """The engine's process has ended. What it wrote last may be anything: that is for the log, not for callers."""
        reason, self._last_line = f"the engine {exited.reason}", exited.last_line[:LAST_LINE]
        if exited.restart_in is not None:
            self._metrics.engine_restarts.inc()
        if exited.cause == "death":
            seconds = None if exited.restart_in is None else round(exited.restart_in, 1)
            log.warning("%s", reason, extra={"last_line": self._last_line, "restart_in": seconds})
            if self.instance is None and self._last_line:
                reason += " before it was up; see the log"
        self._gone(reason, link, ended=True)

    async def _read(self, link: EngineLink) -> bool:
        """Read the queue once, and find out whether the engine is the one that it was, where that is in doubt. False
        where nobody takes connections.

        Of a warm one it always is without a websocket: nothing else tells of a restart for sure, since what is sent to
        an engine that is away may be refused, reset or held.
        """
        listener = link.client_id
        self._doubt = self._doubt or (self._is_warm and listener is None)
        try:
            view = await link.read_queue(timeout=self._staleness)
            if self._doubt:
                await self._identify(link, view)
                self._doubt = self._is_warm and listener != link.client_id
        except Unreachable as error:
            self._unreached(self._explain(error, link))
            return False
        except LinkError as error:
            log.debug("the engine's queue was not read: %s", error)
            self._gate.observe(readiness.Tick(link.explain_silence(link.prompts), self._explain(error, link)))
        else:
            self._share(view, link)
            if link.client_id is None:
                link.renew_socket()  # its attempts have grown rare while the engine was away
        return True

    async def _identify(self, link: EngineLink, view: QueueView) -> None:
        if self.instance is not None and not await self._recognizes(link, view):
            self._metrics.engine_restarts.inc()  # one of a child of ours is counted when it exits, and known by then
            self._gone("the engine has restarted", link, ended=False)
        if self.instance is None:
            features = await link.client.features(timeout=self._staleness)
            self._gate.resize(features.concurrent_prompts)
            self.max_upload_size = features.max_upload_size
            self.instance = uuid.uuid4().hex[:12]
            self._absence = absence.Absence(self._absence.patience)
            log.info("the engine is up", extra={"instance": self.instance})
        self._metrics.engine_up.set(1)
        self._gate.observe(readiness.EngineUp(self.instance))
        if self._is_warm:
            self._gate.observe(readiness.WarmedUp())
        self._certain.set()

    async def _recognizes(self, link: EngineLink, view: QueueView) -> bool:
        """Whether the engine has what only the one that we know can have: a prompt that was seen there before, or the
        warm-up, which is all that a cold engine is ever given.
        """
        warm_ups = list(link.prompts) if self._mark is None else [self._mark]
        if not self._seen.union(warm_ups).isdisjoint(view.running + view.pending):
            return True
        try:
            records = [await link.client.history(prompt_id, timeout=self._staleness) for prompt_id in warm_ups]
        except EngineFailed:  # there is a record, whatever it says
            return True
        return any(record is not None for record in records)

    def _share(self, view: QueueView, link: EngineLink) -> None:
        """Pass on what the queue shows. A prompt of ours of which the open socket hears nothing counts as a stranger
        for the stall detection: its silence says nothing.
        """
        heard = frozenset(filter(link.hears, view.running))
        pending = frozenset(view.pending) & frozenset(link.prompts)
        looked = readiness.Looked(
            view.asked_at,
            ours_running=tuple(p for p in view.running if p in heard),
            ours_pending=tuple(p for p in view.pending if p in pending),
            strangers_running=tuple(p for p in view.running if p not in heard),
            strangers_pending=tuple(p for p in view.pending if p not in pending),
            explained=link.explain_silence(heard),
        )
        self._gate.observe(looked)
        self._seen = frozenset(view.running + view.pending)
        strangers = self._seen - link.departed.union(link.prompts)
        self._gate.decide(admission.Strangers(len(strangers)))
        link.glance(view)

    async def _warm(self, link: EngineLink, warm_up: WarmUp, child: Child | None) -> None:
        """Run the warm-up on the engine that is up; the record of its prompt becomes the mark."""
        instance, generation = self.instance, self._generation
        try:
            prompt_id = await warm_up()
            if instance == self.instance:
                self._mark = prompt_id
            await self._insist(partial(link.client.history, prompt_id))
            nodes = await self._insist(link.client.object_info)
        except Canceled:
            log.info("the warm-up was interrupted by someone else")
            return  # which says nothing of the engine: the next one begins at once
        except (Fault, LinkError, RetryError) as trouble:
            detail = trouble.detail if isinstance(trouble, Fault) else "the engine's answers can't be read"
            log.warning("the warm-up failed: %s", trouble)
            if instance == self.instance:
                self._gate.observe(readiness.WarmupFailed(f"the warm-up failed: {detail}"))
                await asyncio.sleep(WARMUP_RETRY)
            return  # else the engine went away under it, and the next one is warmed up at once
        if nodes is not None and instance == self.instance:
            self._is_warm, self.classes = True, nodes.classes
            self.output_classes, self.uploads = nodes.outputs, nodes.uploads
            self.warmed.set()
            self._gate.observe(readiness.WarmedUp())
            if child is not None and generation is not None:
                child.confirm_warm(generation)

    async def _insist(self, question: Callable[[], Awaitable[T | None]]) -> T | None:
        """Ask until there is an answer, as long as the engine is the same; raises RetryError. ComfyUI writes the record
        of a prompt after it says that the prompt is done.
        """
        instance, late = self.instance, stop_after_delay(SETTLING)
        retrying = AsyncRetrying(
            retry=retry_if_result(lambda answer: answer is None) | retry_if_exception_type(LinkError),
            wait=wait_random_exponential(0.01, max=0.5),
            stop=lambda state: late(state) or self.instance != instance,
        )
        return await retrying(question)

    def _question(self) -> None:
        self._doubt = True
        self._certain.clear()

    def _explain(self, error: LinkError, link: EngineLink) -> str:
        """Why an engine that is not up yet was not found; the log warns of what will not pass by itself."""
        if self.instance is not None or self.lost:
            return ""
        missed = diagnose(error)
        self._absence, warnings = absence.step(self._absence, missed, asyncio.get_running_loop().time())
        for warning in warnings:
            log.warning("the engine is not up: %s", warning.reason, extra={"address": link.client.url})
        return missed.reason

    def _unreached(self, missed: str = "") -> None:
        """Connections are refused. Before the engine was first up that is to be expected, and time goes on."""
        if self.instance is None:
            self._gate.observe(readiness.Tick(missed=missed))
        else:
            self._down("the engine refuses connections")

    def _down(self, reason: str) -> None:
        """The engine can't be reached; whether it will be back as it was is not known."""
        self._question()
        self._metrics.engine_up.set(0)
        self._gate.observe(readiness.EngineDown(reason))

    def _gone(self, reason: str, link: EngineLink, *, ended: bool) -> None:
        """The engine is gone with all that it knew."""
        self._down(reason)
        self.instance, self._mark, self._is_warm, self._seen = None, None, False, frozenset()
        link.engine_gone(ended=ended)
