"""The gate: readiness and admission joined, tickets, and what the probes answer.

Both machines are stepped synchronously, so that every decision is atomic: between looking for a place and taking it
nothing else can happen. Leaves to others: learning about the engine (`watch`) and doing the work (`runner`).
Invariant: what a probe says comes from memory; a ticket is returned once, however often its holder tries.
"""

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Protocol, Self

from converter.core import admission, readiness
from converter.core.admission import Admission
from converter.core.readiness import Readiness, View
from converter.errors import DeadlineUnmeetable, Draining, EngineFailed, Fault, QueueFull, Refusal, Shed
from converter.telemetry import Metrics

log = logging.getLogger(__name__)

REFUSALS: Mapping[str, tuple[type[Refusal], str]] = {
    "queue_full": (QueueFull, "every place is taken"),
    "shed": (Shed, "the replica is busy, and orders of negative priority give way"),
    "deadline_unmeetable": (DeadlineUnmeetable, "by the measured service time the order could not finish in time"),
}

UNAVAILABLE_FOR = 5.0
"""Seconds after which one who was refused for the engine's sake may find it up."""

SIGN_OF_LIFE = 0.25
"""Seconds between two signs of life that are worth noting."""


class Holder(Protocol):
    """Who holds an admitted ticket. Called on the loop; raises nothing."""

    def turn(self) -> None:
        """The prompt may be given to the engine."""

    def evicted(self, fault: Fault) -> None:
        """The ticket is gone."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What both machines are bounded by; `engine_depth` None follows what the engine announces."""

    admission: admission.Limits
    readiness: readiness.Limits
    engine_depth: int | None


class Gate:
    """One replica's gate. `now` is the clock; `on_stall` is told once when the engine answers but does nothing."""

    def __init__(self, limits: Limits, now: Callable[[], float], metrics: Metrics) -> None:
        self._now = now
        self._metrics = metrics
        self._engine_depth = limits.engine_depth
        self._admission = Admission(limits.admission)
        self._readiness = Readiness(limits.readiness, since=now())
        self._holders: dict[str, Holder] = {}
        self._ids = count(1)
        self._sign_at = 0.0
        self._first: str | None = None
        self._first_since = 0.0
        self.closed = False
        self.on_stall: Callable[[str], None] = lambda reason: None
        metrics.capacity.set(limits.admission.capacity)
        metrics.waiting.set_function(lambda: self.queue()["waiting"])
        metrics.running.set_function(lambda: self.queue()["running"])
        metrics.depth.set_function(lambda: admission.depth(self._admission))
        metrics.saturation.set_function(lambda: self.saturation)
        metrics.engine_depth.set_function(lambda: self.engine_depth)

    # Orders ---------------------------------------------------------------------------------------------------------

    def knock(self) -> "Ticket":
        """An order's headers have arrived: a provisional ticket, or the fault that says why there is none."""
        self._check_state()
        ticket = Ticket(self, str(next(self._ids)), self._now())
        self.decide(admission.Knock(ticket.id))
        return ticket

    def apply(self, ticket_id: str, priority: int, deadline: float) -> None:
        """The order is known: its ticket is held from here on, or the fault says why not."""
        self._check_state()
        self.decide(admission.Apply(ticket_id, priority, deadline))

    def close(self) -> None:
        """From here on a draining replica takes no orders; until then load balancers have time to turn away."""
        self.closed = True

    def _check_state(self) -> None:
        view = self.view()
        kind = readiness.refusal(view)
        if kind is Draining and view.live and not self.closed:
            return
        if kind is not None:
            self._metrics.refusals.labels(reason=kind.code).inc()
            seconds = admission.retry_after(UNAVAILABLE_FOR, random.random())
            raise kind(view.reason, retry_after=seconds)

    def decide(self, event: admission.Event) -> None:
        """Step the admission machine; raises the fault if the event's own ticket is refused."""
        before = admission.depth(self._admission)
        self._admission, effects = admission.step(self._admission, event, self._now())
        first = next(iter(self._admission.engaged), None)
        if first != self._first:
            self._first, self._first_since = first, self._now()
        depth = admission.depth(self._admission)
        if depth != before:
            self.observe(readiness.Depth(depth))
        refused: Fault | None = None
        for effect in effects:
            match effect:
                case admission.Turn(ticket_id) if ticket_id in self._holders:
                    self._holders[ticket_id].turn()
                case admission.Evicted(ticket_id, seconds):
                    holder = self._holders.pop(ticket_id, None)
                    if holder is not None:
                        holder.evicted(self._refuse("shed", seconds))
                case admission.Refused(_, code, seconds):
                    refused = self._refuse(code, seconds)
        if refused is not None:
            raise refused

    def _refuse(self, code: str, seconds: float) -> Refusal:
        kind, detail = REFUSALS[code]
        self._metrics.refusals.labels(reason=code).inc()
        return kind(detail, retry_after=admission.retry_after(seconds, random.random()), queue=self.queue())

    def turn_away(self, detail: str, seconds: int) -> QueueFull:
        """The refusal of one for whom there is no room, whatever the places; to be raised."""
        self._metrics.refusals.labels(reason=QueueFull.code).inc()
        return QueueFull(detail, retry_after=seconds)

    def hold(self, ticket_id: str, holder: Holder) -> None:
        """Who is told about the ticket."""
        self._holders[ticket_id] = holder

    def depart(self, ticket_id: str) -> None:
        """The ticket is returned."""
        self._holders.pop(ticket_id, None)
        self.decide(admission.Depart(ticket_id))

    def position(self, ticket_id: str) -> int | None:
        """Tickets that get a turn before this one."""
        return admission.position(self._admission, ticket_id)

    def estimate(self, ticket_id: str) -> float | None:
        """Seconds until the engine should be done with the ticket's prompt; None if nobody can tell, as once the
        prompt that all wait for has taken longer than prompts do.
        """
        seconds = admission.estimate(self._admission, ticket_id)
        if not seconds or self._first is None:
            return seconds
        left = seconds - (self._now() - self._first_since)
        overdue = self.service is not None and self._now() - self._first_since > self.service
        return None if overdue else left

    # The engine -----------------------------------------------------------------------------------------------------

    def observe(self, event: readiness.Event) -> None:
        """Step the readiness machine, and let admission follow it."""
        self._readiness, effects = readiness.step(self._readiness, event, self._now())
        for effect in effects:
            match effect:
                case readiness.Opened():
                    self.decide(admission.Engine(open=True))
                case readiness.Closed():
                    self.decide(admission.Engine(open=False))
                case readiness.StateChanged(old, new, reason):
                    self._metrics.show_state(new.value)
                    level = logging.WARNING if new is readiness.State.FAILED else logging.INFO
                    log.log(level, "state %s", new.value, extra={"was": old.value, "reason": reason})
                case readiness.Stalled(reason):
                    log.error("the engine is stalled", extra={"reason": reason})
                    self.on_stall(reason)

    def progressed(self) -> None:
        """A prompt of ours shows a sign of life; called for every message, so most calls cost a comparison."""
        now = self._now()
        if now - self._sign_at >= SIGN_OF_LIFE:
            self._sign_at = now
            self.observe(readiness.Progressed())

    def resize(self, parallel: int) -> None:
        """The engine runs this many prompts at once."""
        limits = self._admission.limits
        depth = parallel + 1 if self._engine_depth is None else self._engine_depth
        self.decide(admission.Resize(admission.Limits(limits.capacity, limits.busy_at, depth, parallel)))

    # The probes -----------------------------------------------------------------------------------------------------

    def view(self) -> View:
        """What the probes say at this moment."""
        return readiness.view(self._readiness, self._now())

    def queue(self) -> dict[str, int]:
        """Depth by kind."""
        state = self._admission
        running = len(state.engaged)
        return {
            "running": running,
            "waiting": admission.depth(state) - running - state.strangers,
            "strangers": state.strangers,
            "capacity": state.limits.capacity,
        }

    @property
    def service(self) -> float | None:
        """The measured service time in seconds."""
        return self._admission.service

    @property
    def saturation(self) -> float:
        """The share of the places that is taken, from 0 to 1."""
        return min(1.0, admission.depth(self._admission) / self._admission.limits.capacity)

    @property
    def engine_depth(self) -> int:
        """Prompts given to the engine at once."""
        return self._admission.limits.engine_depth


class Ticket:
    """The right to a place. As a context manager it returns the ticket at the end, unless somebody holds it by then."""

    def __init__(self, gate: Gate, ticket_id: str, taken_at: float) -> None:
        self.id = ticket_id
        self.taken_at = taken_at
        self._gate = gate
        self._held = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._held:
            self.depart()

    def apply(self, priority: int, timeout: float) -> None:
        """The order is known, its deadline counts from the knock; raises the fault if it is not admitted."""
        self._gate.apply(self.id, priority, self.taken_at + timeout)

    def hold(self, holder: Holder) -> None:
        """The holder is told of turns and evictions, and returns the ticket."""
        self._held = True
        self._gate.hold(self.id, holder)

    def ready(self) -> None:
        """The holder can use a turn."""
        self._gate.decide(admission.Ready(self.id))

    def requeue(self, *, alone: bool) -> None:
        """The holder needs another turn; `alone`: with no other prompt of ours at the engine."""
        self._gate.decide(admission.Requeue(self.id, alone))

    def let_go(self, served: float | None) -> None:
        """The engine has let go of the holder's prompt, which occupied it for `served` seconds, if known."""
        if served is not None:
            self._gate.decide(admission.Served(served))
        self._gate.decide(admission.LetGo(self.id))

    def depart(self) -> None:
        """Return the ticket."""
        self._gate.depart(self.id)

    def position(self) -> int | None:
        """Tickets that get a turn before this one."""
        return self._gate.position(self.id)

    def estimate(self) -> float | None:
        """Seconds until the engine should be done."""
        return self._gate.estimate(self.id)


class Place(Protocol):
    """The right to a place, as `gate.Ticket` has it. `taken_at` is the moment from which the job's time counts."""

    taken_at: float

    def hold(self, holder: Holder) -> None:
        """Tell the holder of turns and evictions."""

    def ready(self) -> None:
        """The holder can use a turn."""

    def requeue(self, *, alone: bool) -> None:
        """The holder needs another turn."""

    def let_go(self, served: float | None) -> None:
        """The engine has let go of the holder's prompt."""

    def depart(self) -> None:
        """Return the place."""

    def position(self) -> int | None:
        """Tickets that get a turn before this one."""

    def estimate(self) -> float | None:
        """Seconds until the engine should be done."""


class FreePlace:
    """The place of a warm-up: beside admission, which is closed until the warm-up has succeeded. One turn, at once."""

    def __init__(self, taken_at: float) -> None:
        self.taken_at = taken_at
        self._holder: Holder | None = None

    def hold(self, holder: Holder) -> None:
        """Remember the holder."""
        self._holder = holder

    def ready(self) -> None:
        """Give the turn."""
        if self._holder is not None:
            self._holder.turn()

    def requeue(self, *, alone: bool) -> None:
        """There is no second turn: another engine gets a warm-up of its own."""
        if self._holder is not None:
            self._holder.evicted(EngineFailed("the engine went away", alone=alone))

    def let_go(self, served: float | None) -> None:
        """Nothing is measured by a warm-up, which pays for what later prompts find loaded."""

    def depart(self) -> None:
        """There is nothing to return; the holder is let go of."""
        self._holder = None

    def position(self) -> int | None:
        """Nobody is ahead."""
        return 0

    def estimate(self) -> float | None:
        """Nobody can tell."""
        return None
