"""Who gets a ticket, and who gets a turn at the engine.

A ticket is the right to a place. It is taken when an order's headers arrive (provisionally: its priority is not
known until its body is read) or when the order itself does, and is held until it departs, whatever became of the
work. A turn is the leave to give the order's prompt to the engine; turns go by priority, then arrival.

Leaves to others: what an order is, ending those whose time is up, chance (the jitter), and whether the engine is fit
for work at all. Invariant: tickets with a place never grow beyond capacity less strangers, but by an exchange of one
for another; only waiting tickets of negative priority are ever evicted; turns are given strictly in order, and
never is a turn free while one that may have it waits.
"""

import math
from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

ALPHA = 0.2
"""Weight of the newest sample in the moving average of service times: about the last ten prompts count."""

UNMEASURED = 5.0
"""Seconds that a prompt is taken to need, for `Retry-After` alone, until one has been measured."""

JITTER = 0.25
"""The largest share by which `Retry-After` grows, so that those refused together do not return together."""

SOONEST, LATEST = 1.0, 120.0
"""Bounds of `Retry-After` in seconds; clients of the field stop retrying when they are told more than two minutes."""

Code = Literal["queue_full", "shed", "deadline_unmeetable"]


@dataclass(frozen=True, slots=True)
class Limits:
    """All at least 1, and busy_at at most capacity.

    capacity: the depth at which orders find no place. busy_at: the depth from which negative priorities are shed.
    engine_depth: prompts of ours given to the engine at once. parallel: prompts that the engine runs at once.
    """

    capacity: int
    busy_at: int
    engine_depth: int = 2
    parallel: int = 1


@dataclass(frozen=True, slots=True)
class Knock:
    """An order's headers have arrived. Ids of tickets are never used twice."""

    ticket_id: str


@dataclass(frozen=True, slots=True)
class Apply:
    """An order is known, whether it has knocked or not. `deadline` is a moment of the shell's clock, in seconds."""

    ticket_id: str
    priority: int
    deadline: float


@dataclass(frozen=True, slots=True)
class Ready:
    """The order's inputs are staged (or it has none): it may be given a turn."""

    ticket_id: str


@dataclass(frozen=True, slots=True)
class Requeue:
    """What had a turn needs another: it waits, ready, as of its old arrival. alone: nothing else of ours beside it."""

    ticket_id: str
    alone: bool = False


@dataclass(frozen=True, slots=True)
class LetGo:
    """The engine has let go of the prompt: its turn is over, while its ticket still counts."""

    ticket_id: str


@dataclass(frozen=True, slots=True)
class Depart:
    """The ticket is returned."""

    ticket_id: str


@dataclass(frozen=True, slots=True)
class Strangers:
    """Prompts in the engine's queue that are not ours."""

    count: int


@dataclass(frozen=True, slots=True)
class Served:
    """A prompt has occupied the engine for this long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Engine:
    """Whether the engine may be given work."""

    open: bool


@dataclass(frozen=True, slots=True)
class Resize:
    """New limits; nobody who has a ticket or a turn loses it."""

    limits: Limits


Event = Knock | Apply | Ready | Requeue | LetGo | Depart | Strangers | Served | Engine | Resize


@dataclass(frozen=True, slots=True)
class Admitted:
    """The answer to `Apply`: the ticket is held."""

    ticket_id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The answer to `Knock` or `Apply`: there is no such ticket. `retry_after` is in seconds, jitter to be added."""

    ticket_id: str
    code: Code
    retry_after: float


@dataclass(frozen=True, slots=True)
class Evicted:
    """A waiting ticket is gone: another has its place. `retry_after` as in `Refused`."""

    ticket_id: str
    retry_after: float


@dataclass(frozen=True, slots=True)
class Turn:
    """The ticket's prompt may be given to the engine."""

    ticket_id: str


Effect = Admitted | Refused | Evicted | Turn


class Ticket(NamedTuple):
    """An admitted order's. `arrival` counts admissions: a slow body arrives late, and overturns no estimate."""

    priority: int
    arrival: int
    deadline: float
    ready: bool = False
    alone: bool = False

    @property
    def rank(self) -> tuple[int, int]:
        """The order of turns, first to last; its end is also whom an eviction takes first."""
        return -self.priority, self.arrival


class Admission(NamedTuple):
    """Every ticket is in exactly one of the last five fields.

    reading: provisional, with a place. claiming: provisional, beyond capacity, in the hope of an eviction; both in
    the order of their knocks. waiting: admitted, without a turn, by rank. engaged: with a turn, in the order of
    turns. leaving: let go by the engine. service: average seconds per prompt; cold: the next one pays for loading.
    """

    limits: Limits
    open: bool = False
    strangers: int = 0
    service: float | None = None
    cold: bool = False
    arrivals: int = 0
    reading: tuple[str, ...] = ()
    claiming: tuple[str, ...] = ()
    waiting: Mapping[str, Ticket] = MappingProxyType({})
    engaged: Mapping[str, Ticket] = MappingProxyType({})
    leaving: Mapping[str, Ticket] = MappingProxyType({})


def step(state: Admission, event: Event, now: float) -> tuple[Admission, tuple[Effect, ...]]:
    """Decide one event. A knock that is not refused holds a provisional ticket, without an effect to say so."""
    effects: tuple[Effect, ...] = ()
    match event:
        case Knock():
            state, effects = _knock(state, event.ticket_id)
        case Apply():
            state, effects = _apply(state, event, now)
        case Ready() | Requeue() | LetGo() | Depart():
            state = _move(state, event)
        case _:
            state = _learn(state, event)
    state, turns = _give_turns(_settle_claims(state), now)
    return state, effects + turns


def retry_after(seconds: float, jitter: float) -> int:
    """Whole seconds for `Retry-After` (RFC 9110 section 10.2.3). `jitter`: by chance, evenly from 0 to 1."""
    return math.ceil(min(LATEST, max(SOONEST, seconds * (1 + JITTER * jitter))))


def depth(state: Admission) -> int:
    """Places taken: tickets and strangers. A claim counts once, with the ticket that it would evict."""
    return len(state.reading) + len(state.waiting) + len(state.engaged) + len(state.leaving) + state.strangers


def position(state: Admission, ticket_id: str) -> int | None:
    """Tickets that would be given a turn before this one (0: it is next), None if it does not wait for one."""
    return list(state.waiting).index(ticket_id) if ticket_id in state.waiting else None


def ahead(state: Admission, who: str | int) -> int | None:
    """Prompts between `who` and the engine: a ticket, or a newcomer of a priority. None if it has no place in line.

    Strangers count, since the engine goes by arrival and theirs are there; provisional tickets do not, since
    they may come to nothing and will have arrived later.
    """
    if isinstance(who, int):
        waiting = sum(ticket.priority >= who for ticket in state.waiting.values())
        return state.strangers + len(state.engaged) + waiting
    if who in state.engaged:
        return state.strangers + list(state.engaged).index(who)
    index = position(state, who)
    return None if index is None else state.strangers + len(state.engaged) + index


def wait_ahead(state: Admission, who: str | int) -> float | None:
    """Seconds until the engine begins with `who`, None while nothing has been measured or without a place in line.

    When `parallel` prompts run, one of them ends each (service / parallel) seconds; with fewer ahead there is no wait.
    """
    count = ahead(state, who)
    if count is None or state.service is None:
        return None
    return max(0, count + 1 - state.limits.parallel) * state.service / state.limits.parallel


def estimate(state: Admission, ticket_id: str) -> float | None:
    """Seconds until the engine should have finished the ticket's prompt (0.0 once it has), None if nobody can tell."""
    wait = wait_ahead(state, ticket_id)
    if wait is None or state.service is None:
        return 0.0 if ticket_id in state.leaving else None
    return wait + state.service


def _knock(state: Admission, ticket_id: str) -> tuple[Admission, tuple[Effect, ...]]:
    """Refuse only if there is no place for any priority: none is free, and none can be had by another eviction."""
    if _holds(state, ticket_id):
        return state, ()
    if depth(state) < state.limits.capacity:
        return state._replace(reading=(*state.reading, ticket_id)), ()
    if len(_evictable(state)) > len(state.claiming):
        return state._replace(claiming=(*state.claiming, ticket_id)), ()
    return state, (Refused(ticket_id, "queue_full", _clearance(state, 0)),)


def _apply(state: Admission, order: Apply, now: float) -> tuple[Admission, tuple[Effect, ...]]:
    """Decide an order, and whom it evicts. Nobody is evicted for one that is then refused for another reason."""
    ticket_id, priority, limits = order.ticket_id, order.priority, state.limits
    provisional = ticket_id in state.reading or ticket_id in state.claiming
    if not provisional and _holds(state, ticket_id):
        return state, ()
    others = _drop(state, ticket_id)
    if priority < 0 and depth(others) >= min(limits.busy_at, limits.capacity):
        return others, (Refused(ticket_id, "shed", _clearance(others, priority)),)
    victim: str | None = None
    if ticket_id not in state.reading and depth(others) >= limits.capacity:
        evictable = _evictable(others)
        claimed = 0 if provisional else len(others.claiming)
        if len(evictable) <= claimed:
            return others, (Refused(ticket_id, "queue_full", _clearance(others, priority)),)
        victim = evictable[0]
    lateness = _lateness(others, order, now)
    if lateness > 0:
        return others, (Refused(ticket_id, "deadline_unmeetable", min(lateness, _clearance(others, priority))),)
    effects: tuple[Effect, ...] = (Admitted(ticket_id),)
    if victim is not None:
        effects = (Evicted(victim, _clearance(others, victim)), *effects)
        others = _drop(others, victim)
    others = others._replace(arrivals=state.arrivals + 1)
    return _line_up(others, ticket_id, Ticket(priority, state.arrivals, order.deadline)), effects


def _move(state: Admission, event: Ready | Requeue | LetGo | Depart) -> Admission:
    """Move an admitted ticket to its next place; the same state if it isn't where such a move begins."""
    ticket_id = event.ticket_id
    match event:
        case Ready() if ticket_id in state.waiting:
            ticket = state.waiting[ticket_id]._replace(ready=True)
            return state._replace(waiting={**state.waiting, ticket_id: ticket})
        case Requeue() if ticket_id in state.engaged or ticket_id in state.leaving:
            had_turn = state.engaged.get(ticket_id) or state.leaving[ticket_id]
            return _line_up(_drop(state, ticket_id), ticket_id, had_turn._replace(alone=event.alone))
        case LetGo() if ticket_id in state.engaged:
            leaving = {**state.leaving, ticket_id: state.engaged[ticket_id]}
            return state._replace(engaged=_without(state.engaged, ticket_id), leaving=leaving)
        case Depart():
            return _drop(state, ticket_id)
    return state


def _learn(state: Admission, fact: Strangers | Served | Engine | Resize) -> Admission:
    match fact:
        case Strangers(count):
            return state._replace(strangers=max(0, count))
        case Served(seconds):
            if state.cold or not (math.isfinite(seconds) and seconds >= 0):
                return state._replace(cold=False)
            average = seconds if state.service is None else state.service + ALPHA * (seconds - state.service)
            return state._replace(service=average)
        case Engine(is_open):
            return state._replace(open=is_open, cold=state.cold or (is_open and not state.open))
        case _:
            return state._replace(limits=fact.limits)


def _lateness(state: Admission, order: Apply, now: float) -> float:
    """Seconds by which a newcomer would miss its deadline; with nobody ahead it is never late."""
    wait = wait_ahead(state, order.priority)
    if wait is None or state.service is None or not ahead(state, order.priority):
        return 0.0
    return now + wait + state.service - order.deadline


def _clearance(state: Admission, who: str | int) -> float:
    """Seconds in which all ahead and `who` itself are served: what a `Retry-After` is made from."""
    service = UNMEASURED if state.service is None else state.service
    return ((ahead(state, who) or 0) + 1) * service / state.limits.parallel


def _evictable(state: Admission) -> list[str]:
    """Waiting tickets of negative priority, first to be evicted first: the lowest, and of those the latest."""
    return [ticket_id for ticket_id, ticket in reversed([*state.waiting.items()]) if ticket.priority < 0]


def _settle_claims(state: Admission) -> Admission:
    """Give places that have become free to those who claim one, in the order of their knocks."""
    free = max(0, state.limits.capacity - depth(state)) if state.claiming else 0
    if not free:
        return state
    return state._replace(reading=state.reading + state.claiming[:free], claiming=state.claiming[free:])


def _give_turns(state: Admission, now: float) -> tuple[Admission, tuple[Effect, ...]]:
    """Give all turns that are free. Nobody overtakes one that waits to be alone, else it could wait for ever."""
    turns: tuple[Effect, ...] = ()
    while state.open and len(state.engaged) < state.limits.engine_depth:
        line = state.waiting.items()
        ticket_id, ticket = next((item for item in line if item[1].ready and now < item[1].deadline), ("", None))
        if ticket is None or (state.engaged and any(one.alone for one in (ticket, *state.engaged.values()))):
            break
        engaged = {**state.engaged, ticket_id: ticket}
        state = state._replace(waiting=_without(state.waiting, ticket_id), engaged=engaged)
        turns = (*turns, Turn(ticket_id))
    return state, turns


def _line_up(state: Admission, ticket_id: str, ticket: Ticket) -> Admission:
    line = list(state.waiting.items())
    insort(line, (ticket_id, ticket), key=lambda item: item[1].rank)
    return state._replace(waiting=dict(line))


def _holds(state: Admission, ticket_id: str) -> bool:
    places = (state.reading, state.claiming, state.waiting, state.engaged, state.leaving)
    return any(ticket_id in place for place in places)


def _drop(state: Admission, ticket_id: str) -> Admission:
    """The state without the ticket, wherever it is."""
    if ticket_id in state.leaving:
        return state._replace(leaving=_without(state.leaving, ticket_id))
    if ticket_id in state.engaged:
        return state._replace(engaged=_without(state.engaged, ticket_id))
    if ticket_id in state.waiting:
        return state._replace(waiting=_without(state.waiting, ticket_id))
    if ticket_id in state.reading:
        return state._replace(reading=tuple(other for other in state.reading if other != ticket_id))
    return state._replace(claiming=tuple(other for other in state.claiming if other != ticket_id))


def _without(tickets: Mapping[str, Ticket], ticket_id: str) -> Mapping[str, Ticket]:
    rest = dict(tickets)
    del rest[ticket_id]
    return rest
