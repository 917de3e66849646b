"""Carries one job: asks `core.job` what to do, does it, and reports back what happened.

Leaves to others: who may have a place (`gate`), what state the engine is in (`watch`), which jobs are known (`jobs`),
how answers look (the doors). Invariant: whatever happens to a run's tasks, its machine is told of it; a run ends when
its machine says so, and then nothing of it goes on.
"""

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from converter.alarm import Alarm
from converter.chronicle import Chronicle
from converter.core import deeds, evidence, job
from converter.core.deeds import Effect, Event
from converter.core.events import Advanced, Alive, Cached, Entered, Picture, QueueView, Sound
from converter.core.idempotency import Claim
from converter.core.job import Phase
from converter.core.order import Order
from converter.core.outputs import Output
from converter.errands import Errands
from converter.errors import Canceled, Fault, Internal
from converter.gate import Place
from converter.means import Means
from converter.media.deliver import describe
from converter.media.inputs import Staging
from converter.media.outputs import Item
from converter.trail import Trail

log = logging.getLogger(__name__)

SMALL = 2**18
"""Bytes up to which an output is read at once, so that the engine's connection is free again."""

MURMUR = 1.0
"""Seconds within which a machine that is not about to look needs to hear only once that its prompt moves on."""

STATES = {
    Phase.SUBMITTING: "queued",
    Phase.CHECKING: "queued",
    Phase.DELIVERING: "collecting",
}
"""Public states of phases that have another name outside."""

UNSETTLED = (Phase.STAGING, Phase.WAITING, Phase.SUBMITTING)
"""Phases before the engine has said anything about a workflow."""


class Run:
    """One job being carried. `kept`: its outputs are held in memory, to be answered again; `alone`: it goes on without
    a caller; `claim`: the idempotency key that it stands for. `told` is set once somebody was told how it ended,
    `settled` once the engine has taken its workflow or refused it.
    """

    def __init__(
        self,
        means: Means,
        order: Order,
        place: Place,
        staging: Staging,
        *,
        kept: bool,
        alone: bool,
        claim: Claim | None = None,
    ) -> None:
        self.id = order.id
        self.order = order
        self.kept = kept
        self.alone = alone
        self.claim = claim
        self.chronicle = Chronicle(order.workflow)
        self.outcome: asyncio.Future[deeds.Outcome] = asyncio.get_running_loop().create_future()
        self.ended_at: float | None = None
        self.told = asyncio.Event()
        self.settled = asyncio.Event()
        self._means = means
        self._place = place
        self._followed: str | None = None
        self._heard_at = 0.0
        self._interest = 0
        self._inbox: deque[Event] = deque()
        self._feeding = self._frees_memory = self.claimed = False
        self._alarm = Alarm()
        self._done = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._now = asyncio.get_running_loop().time
        self._begun_at = place.taken_at
        deadline = place.taken_at + order.timeout
        self._errands = Errands(means, order, staging)
        self._trail = Trail(order, means.metrics, means.tracing)
        self._state, self._first = job.begin(
            deadline,
            means.max_attempts,
            self._now(),
            stages=staging.needed,
            wanted=order.foreseen,
            begun=place.taken_at,
        )
        self._trail.begin(self._state.phase)
        place.hold(self)

    # For the doors ---------------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """The public state."""
        if self.outcome.done():
            outcome = self.outcome.result()
            if isinstance(outcome, Canceled):
                return "canceled"
            return "failed" if isinstance(outcome, Fault) else "succeeded"
        return STATES.get(self._state.phase, self._state.phase.value)

    @property
    def submitted(self) -> bool:
        """Whether the engine has taken the prompt, as far as is known."""
        return self._state.phase not in (Phase.STAGING, Phase.WAITING, Phase.SUBMITTING)

    @property
    def items(self) -> Sequence[Item]:
        """The outputs, once they are collected."""
        return self._errands.items

    @property
    def outputs(self) -> Sequence[Output]:
        """What the outputs are, wherever their bytes may be."""
        return self._errands.outputs

    @property
    def held(self) -> int:
        """Bytes of outputs that are held in memory; texts are, too."""
        return sum(item.held for item in self.items)

    @property
    def times(self) -> dict[str, float]:
        """Seconds by part, so far."""
        return job.timings(self._state, self._now())

    def status(self) -> dict[str, Any]:
        """The data of a `status` event: state, prompts that will run before, estimated seconds until the end."""
        estimate = self._place.estimate()
        return {
            "state": self.state,
            "position": self._place.position(),
            "estimated_seconds": None if estimate is None else round(estimate, 1),
        }

    def document(self) -> dict[str, Any]:
        """The result without its outputs; or, of a job that has not ended, how far it is."""
        end = self._now() if self.ended_at is None else self.ended_at
        prompt = self._state.prompt
        document: dict[str, Any] = {"id": self.id, "status": self.state, "outputs": []}
        document["timings"] = {name: round(seconds, 4) for name, seconds in self.times.items()}
        document["timings"]["total"] = round(end - self._begun_at, 4)
        document["engine"] = {"instance": self._errands.instance, "prompt_id": prompt.prompt_id if prompt else None}
        if self.order.inputs is not None:
            document["inputs"] = self.order.inputs
        return document

    @contextmanager
    def interested(self) -> Iterator[None]:
        """Want the job for as long as this is entered. When nobody does, it is canceled, unless it goes on alone."""
        self._interest += 1
        try:
            yield
        finally:
            self._interest -= 1
            if not self._interest and not self.alone:
                self.leave(Canceled("everybody who waited for the job has left"))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Want to be told what happens for as long as this is entered; how things stand is told first."""
        with self.chronicle.watched():
            self._announce()
            yield

    def leave(self, fault: Fault) -> None:
        """Nobody wants the job any more, or the replica gives it up; the fault is told to whoever still listens."""
        self.feed(deeds.Left(fault))

    def keep(self) -> None:
        """Somebody will come back for the result: go on without a caller, and be remembered."""
        self.kept = self.alone = True

    def delivered(self) -> None:
        """The answer has been taken, as far as it will be; what is open for it, or would be, is closed."""
        self.claimed = True
        self.feed(deeds.Delivered())

    def strip(self, *, lasting: bool = False) -> None:
        """Let go of what a job that has ended has no more use for; `lasting`: its outputs are still to be had."""
        self.order = replace(self.order, workflow={}, extra_data={}, parts={})
        self.chronicle.strip()
        self._errands.strip(lasting=lasting)

    # For the gate and the link ---------------------------------------------------------------------------------------

    @property
    def prompt_id(self) -> str | None:
        """The prompt that is at the engine, as far as is known."""
        return self._state.prompt.prompt_id if self._state.prompt else None

    @property
    def node_class(self) -> str | None:
        """The class of the node that runs (`link.engine.Follower`)."""
        return self.chronicle.node_class

    def turn(self) -> None:
        """A place at the engine is ours (`gate.Holder`)."""
        self.feed(deeds.Turn(str(uuid.uuid4()), listening=self._means.link.client_id is not None))

    def evicted(self, fault: Fault) -> None:
        """The ticket is gone: an order of higher priority has its place (`gate.Holder`)."""
        self.leave(fault)

    def wants_progress(self) -> bool:
        """Whether a snapshot of progress is worth decoding just now."""
        return self.chronicle.wants_progress(self._now())

    def hear(self, sound: Sound) -> None:
        """A sound of the run's prompt."""
        now = self._now()
        if type(sound) is not Alive:
            self.chronicle.hear(sound, now)
            self._trail.hear(sound)
        murmur = isinstance(sound, Alive | Advanced | Cached | Entered)
        if not murmur or now - self._heard_at >= MURMUR or self._alarm.rings_before(now + MURMUR):
            self._heard_at = now
            self.feed(sound)

    def show(self, picture: Picture) -> None:
        """A preview, or an output that is sent in place of being stored."""
        if picture.prompt_id != self.prompt_id or not self._errands.receive(picture):
            self.chronicle.preview(picture)

    def socket_lost(self) -> None:
        """The websocket that would have told of the prompt is gone."""
        self.feed(evidence.SocketLost())

    def socket_back(self) -> None:
        """Another websocket is open."""
        self.feed(evidence.SocketBack())

    def engine_gone(self, *, ended: bool) -> None:
        """The engine to which the prompt was given is gone; `ended`: and there is no other yet."""
        self.feed(evidence.EngineGone(ended))

    def endangered(self) -> None:
        """An interrupt that is meant for another prompt may hit ours."""
        self.feed(deeds.Endangered())

    def glance(self, view: QueueView) -> None:
        """A read of the engine's whole queue."""
        self.feed(view)
        self._announce()

    def feed(self, event: Event) -> None:
        """Tell the machine what happened, and do what it decides; in order, also if one step causes another."""
        self._inbox.append(event)
        if self._feeding:
            return
        self._feeding = True
        try:
            while self._inbox:
                before, now = self._state, self._now()
                self._state, effects = job.step(before, self._inbox.popleft(), now)
                moves = self._state.phase is not before.phase
                if moves:
                    if self._state.phase not in UNSETTLED:
                        self.settled.set()
                    spent = now - before.timings.since
                    self._trail.move(before.phase, self._state.phase, spent, self._errands.instance)
                for effect in effects:
                    self._perform(effect)
                if moves:
                    self._announce()
        finally:
            self._feeding = False
        if self._state.phase is Phase.DONE:
            self._done.set()
        self._alarm.set(job.wake_at(self._state), self._wake)

    def _wake(self) -> None:
        self.feed(evidence.Wake())

    async def carry(self) -> None:
        """Carry the job to its end."""
        try:
            async with self._errands, asyncio.TaskGroup() as group:
                self._group = group
                for effect in self._first:
                    self._perform(effect)
                self._alarm.set(job.wake_at(self._state), self._wake)
                await self._done.wait()
                for task in self._tasks:
                    task.cancel()
        finally:
            self._alarm.drop()
            self._place.depart()
            self._means.link.forget(self._followed)
            if not self.outcome.done():
                self._answer(Internal("the job was given up"))
            self._trail.close()
        if self._frees_memory:
            await self._means.link.free_memory()

    # Effects ---------------------------------------------------------------------------------------------------------

    def _perform(self, effect: Effect) -> None:  # noqa: C901 - a table of effects
        errands = self._errands
        match effect:
            case deeds.Stage():
                self._spawn(errands.stage())
            case deeds.Ready():
                self._place.ready()
            case deeds.Submit():
                self._followed = effect.prompt_id
                self._spawn(errands.submit(effect.prompt_id, self, fresh=effect.fresh))
            case deeds.Look(prompt_id):
                self._spawn(self._look(prompt_id))
            case deeds.CheckInstance():
                self._spawn(errands.check_instance())
            case deeds.Withdraw(prompt_id):
                self._spawn(errands.withdraw(prompt_id))
            case deeds.Collect(finished):
                self._spawn(self._collect(finished))
            case deeds.Answer(outcome):
                self._answer(outcome)
            case deeds.LetGo(served):
                self._place.let_go(served)
            case deeds.Requeue(alone, crashed):
                self._requeue(alone=alone, crashed=crashed)
            case deeds.Blame():
                self._means.warden.blame(self.order.workflow)
            case deeds.Depart():
                self._place.depart()
            case deeds.FreeMemory():
                self._frees_memory = True  # once the run has ended: its tasks end with it
            case deeds.RenewSocket():
                self._means.link.renew_socket()

    def _spawn(self, work: Coroutine[Any, Any, Event | None]) -> None:
        task = self._group.create_task(self._do(work), context=self._trail.context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # which a task that is canceled at once has never begun

    async def _do(self, work: Coroutine[Any, Any, Event | None]) -> None:
        try:
            event = await work
        except Exception:  # a boundary: a mistake of ours ends this job, and never the replica
            log.exception("a task of a job failed", extra=self._trail.about)
            for unknown in (evidence.Unanswered(), evidence.Unseen(), deeds.Withdrawn()):
                self.feed(unknown)  # what the task was to tell, as far as anything waits for it
            event = deeds.Left(Internal("the service made a mistake with this job"))
        if event is not None:
            self.feed(event)

    async def _look(self, prompt_id: str) -> Event | None:
        news = await self._errands.look(prompt_id)
        return news if prompt_id == self.prompt_id else None

    async def _collect(self, finished: evidence.Finished) -> Event:
        prompt = self._state.prompt
        heard = prompt is not None and prompt.unbroken and prompt.succeeded
        event = await self._errands.collect(finished, hold=None if self.kept else SMALL, heard=heard)
        for item in self.items:
            self.chronicle.output(describe(item))
        return event

    def _requeue(self, *, alone: bool, crashed: bool) -> None:
        for task in self._tasks:
            task.cancel()
        self._means.link.forget(self._followed)
        if crashed:
            self.chronicle.restart(self.status() | {"state": "restarted"})
        self._place.requeue(alone=alone)

    def _answer(self, outcome: deeds.Outcome) -> None:
        if self.outcome.done():
            return
        self.ended_at = self._now()
        if isinstance(outcome, Fault):
            outcome = self.order.tell(outcome).detached()
        self.outcome.set_result(outcome)
        sizes = [item.size for item in self.items]
        self._trail.end(outcome, self.times, self.ended_at - self._begun_at, sizes)
        self.chronicle.end(outcome)
        if (self.kept or self.claimed) and not isinstance(outcome, Fault):
            self.delivered()

    def _announce(self) -> None:
        if self.chronicle.is_watched and not self.outcome.done():
            self.chronicle.status(self.status())
