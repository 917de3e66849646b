"""Whether this replica should be given work, what state it says it is in, and whether the engine is fit for turns.

For the probes, for refusals, and for the supervisor, which restarts an engine that answers but has died inside.
Leaves to others: reading the engine's queue, running the warm-up, counting tickets, restarting.

Invariant: READY and BUSY imply that a warm-up has completed since the engine last came up, and a look at the engine's
queue that is no older than `staleness`; once draining, for ever draining; once the restart budget is spent,
never live again; from everything else there is a way back.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from converter import errors


class State(StrEnum):
    """The replica's states, as the probes name them."""

    STARTING = "STARTING"
    READY = "READY"
    BUSY = "BUSY"
    FAILED = "FAILED"
    DRAINING = "DRAINING"


@dataclass(frozen=True, slots=True)
class Limits:
    """Depths in orders, times in seconds.

    busy_at, ready_at: BUSY begins at the one (or above) and ends at the other (or below). busy_is_ready: whether BUSY
    is ready for a load balancer. staleness: how old a look at the engine's queue may be. stall_patience: a running
    prompt of ours without a sign of life, or an engine that answers nothing, unless the pace of what runs explains
    more. pending_patience: prompts that wait while none runs. stranger_patience: the same prompts of strangers running;
    of those no sign of life is ever heard. startup_patience: an engine that is not up, or not warmed up.
    """

    busy_at: int
    ready_at: int
    busy_is_ready: bool = False
    staleness: float = 2.0
    stall_patience: float = 120.0
    pending_patience: float = 5.0
    stranger_patience: float = 1800.0
    startup_patience: float = 600.0


@dataclass(frozen=True, slots=True)
class EngineUp:
    """The engine answers. `instance` is another text for every start of it."""

    instance: str


@dataclass(frozen=True, slots=True)
class EngineDown:
    """The engine has exited, or refuses connections."""

    reason: str


@dataclass(frozen=True, slots=True)
class WarmedUp:
    """The warm-up prompt has completed on the engine that is up."""


@dataclass(frozen=True, slots=True)
class WarmupFailed:
    """The warm-up prompt has failed on the engine that is up."""

    reason: str


@dataclass(frozen=True, slots=True)
class Looked:
    """What one read of the engine's queue, begun at the moment `at`, has shown: ids of prompts, ours and strangers',
    and for how many seconds the pace of ours that run explains silence (`core.pace`).
    """

    at: float
    ours_running: tuple[str, ...] = ()
    ours_pending: tuple[str, ...] = ()
    strangers_running: tuple[str, ...] = ()
    strangers_pending: tuple[str, ...] = ()
    explained: float = 0.0


@dataclass(frozen=True, slots=True)
class Progressed:
    """A running prompt of ours has given a sign of life, or has ended."""


@dataclass(frozen=True, slots=True)
class Depth:
    """Tickets and strangers together."""

    depth: int


@dataclass(frozen=True, slots=True)
class DrainStarted:
    """The replica has begun to shut down."""


@dataclass(frozen=True, slots=True)
class BudgetSpent:
    """The engine is not restarted again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Resize:
    """New limits."""

    limits: Limits


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing but time has passed: told where looks fail, so that an engine's silence is noticed. `missed`: why the
    look has failed, of an engine that is not up yet.
    """

    explained: float = 0.0
    missed: str = ""


_OfTheEngine = EngineUp | EngineDown | WarmedUp | WarmupFailed | Looked | Progressed | Tick
Event = _OfTheEngine | Depth | DrainStarted | BudgetSpent | Resize


@dataclass(frozen=True, slots=True)
class Opened:
    """The engine may be given work."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The engine may not be given work."""


@dataclass(frozen=True, slots=True)
class StateChanged:
    """For logs."""

    old: State
    new: State
    reason: str


@dataclass(frozen=True, slots=True)
class Stalled:
    """The engine answers but does nothing, or has fallen silent: told once for as long as that lasts."""

    reason: str


Effect = Opened | Closed | StateChanged | Stalled


class Watch(NamedTuple):
    """What is known of the engine's queue since it came up.

    heard_at: when the engine was last known to live. The other times are the moments since when something lasts, as
    seen in every look: ours_since, the same prompts of ours running without a sign of life; strangers_since, the same
    prompts of strangers running and none of ours; idle_since, prompts waiting, not one of them gone, and none running.
    """

    heard_at: float
    look: Looked | None = None
    explained: float = 0.0
    ours_since: float | None = None
    strangers_since: float | None = None
    idle_since: float | None = None


class Readiness(NamedTuple):
    """since: when the engine came up, or the replica began. down: why the engine is down, once that is known. missed:
    why the last look for it has failed, where it was never up.

    watch: None while the engine is not up. spent: why it is not restarted. open, shown, stalled: what the effects
    have said last.
    """

    limits: Limits
    since: float
    instance: str | None = None
    down: str | None = None
    missed: str = ""
    watch: Watch | None = None
    warmed: bool = False
    warmup_failure: str | None = None
    started: bool = False
    depth: int = 0
    busy: bool = False
    draining: bool = False
    spent: str | None = None
    open: bool = False
    shown: State = State.STARTING
    stalled: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """An answer for the probes. ready, live, started: whether `/readyz`, `/livez`, `/startupz` say 200.

    stale: nothing is wrong but the age of what is known. That sends load balancers elsewhere; who comes nevertheless is
    admitted, since an engine that loads a model may keep silent for longer than that.
    """

    state: State
    reason: str
    ready: bool
    live: bool
    started: bool
    stale: bool = False


def step(state: Readiness, event: Event, now: float) -> tuple[Readiness, tuple[Effect, ...]]:
    """Take note of one event. What can't be, such as a warm-up of an engine that is down, changes nothing."""
    match event:
        case EngineUp(instance):
            if state.watch is None or instance != state.instance:
                state = _renew(state, Watch(heard_at=now), since=now, instance=instance)
        case EngineDown(reason):
            state = _renew(state, None, since=state.since, instance=None)._replace(down=reason)
        case WarmedUp() if state.watch is not None:
            watch = _revive(state.watch, now)
            state = state._replace(warmed=True, warmup_failure=None, started=True, watch=watch)
        case WarmupFailed(reason) if state.watch is not None:
            state = state._replace(warmed=False, warmup_failure=reason)
        case Looked() if state.watch is not None:
            state = state._replace(watch=_look(state.watch, event, state.since, now))
        case Progressed() if state.watch is not None:
            state = state._replace(watch=_revive(state.watch, now))
        case Tick(explained) if state.watch is not None:
            state = state._replace(watch=state.watch._replace(explained=max(explained, state.watch.explained)))
        case Tick(missed=reason):
            state = state._replace(missed=reason or state.missed)
        case Depth(depth):
            state = _weigh(state._replace(depth=depth))
        case DrainStarted():
            state = state._replace(draining=True)
        case BudgetSpent(reason) if state.spent is None:
            state = state._replace(spent=reason)
        case Resize(limits):
            state = _weigh(state._replace(limits=limits))
    return _tell(state, now)


def view(state: Readiness, now: float) -> View:
    """What the probes say at this moment; time alone can change it."""
    live = state.spent is None
    if state.draining:
        return View(State.DRAINING, "the replica is shutting down", False, live, state.started)
    fitness, reason = _examine(state, now)
    if fitness is not State.READY:
        return View(fitness, reason, False, live, state.started)
    look = None if state.watch is None else state.watch.look
    if look is None:
        return View(State.STARTING, "the engine's queue has not been read yet", False, live, state.started, stale=True)
    if now - look.at > state.limits.staleness:
        reason = f"the engine's queue was last read {now - look.at:.1f} s ago"
        return View(State.FAILED, reason, False, live, state.started, stale=True)
    if state.busy:
        reason = f"{state.depth} orders are held; ready again at {state.limits.ready_at}"
        return View(State.BUSY, reason, state.limits.busy_is_ready, live, state.started)
    return View(State.READY, reason, True, live, state.started)


def refusal(seen: View) -> type[errors.Unavailable] | None:
    """The fault with which a new order is refused in this state; None leaves it to admission."""
    if seen.stale:
        return None
    match seen.state:
        case State.STARTING:
            return errors.Starting
        case State.DRAINING:
            return errors.Draining
        case State.FAILED:
            return errors.EngineDown
    return None


def _renew(state: Readiness, watch: Watch | None, *, since: float, instance: str | None) -> Readiness:
    """Forget the engine that was: whatever comes up next has to warm up again."""
    state = state._replace(watch=watch, since=since, instance=instance, down=None, missed="")
    return state._replace(warmed=False, warmup_failure=None)


def _revive(watch: Watch, now: float) -> Watch:
    """Start anew the clocks that run: the engine is at work."""
    return watch._replace(
        heard_at=now,
        ours_since=None if watch.ours_since is None else now,
        strangers_since=None if watch.strangers_since is None else now,
        idle_since=None if watch.idle_since is None else now,
    )


def _look(watch: Watch, look: Looked, since: float, now: float) -> Watch:
    """Compare a look with the one before. One out of order, or begun before `since`, shows what is past."""
    last = watch.look or Looked(since)
    if not last.at <= look.at <= now:
        return watch
    ours, theirs = set(look.ours_running), set(look.strangers_running)
    pending = {*look.ours_pending, *look.strangers_pending}
    remained = pending.issuperset(last.ours_pending + last.strangers_pending)
    return Watch(
        heard_at=max(watch.heard_at, look.at),
        look=look,
        explained=look.explained,
        ours_since=_last(watch.ours_since, look.at, bool(ours), ours == set(last.ours_running)),
        strangers_since=_last(
            watch.strangers_since, look.at, bool(theirs) and not ours, theirs == set(last.strangers_running)
        ),
        idle_since=_last(watch.idle_since, look.at, bool(pending) and not (ours or theirs), remained),
    )


def _last(since: float | None, at: float, holds: bool, unchanged: bool) -> float | None:
    """Since when a condition lasts that holds now or not; a change in what it is about begins it anew."""
    if not holds:
        return None
    return since if since is not None and unchanged else at


def _weigh(state: Readiness) -> Readiness:
    """The hysteresis between the high-water and the low-water mark."""
    high, low = state.limits.busy_at, state.limits.ready_at
    return state._replace(busy=state.depth >= high or (state.busy and state.depth > low))


def _examine(state: Readiness, now: float) -> tuple[State, str]:
    """Whether the engine is STARTING, FAILED, or fit for work (READY), apart from depth and drain; and why."""
    limits = state.limits
    late = now - state.since > limits.startup_patience
    if state.spent is not None:
        return State.FAILED, state.spent
    if state.down is not None:
        return State.FAILED, state.down
    if state.watch is None:
        why = f": {state.missed}" if state.missed else ""
        if late:
            return State.FAILED, f"the engine has not come up within {limits.startup_patience:g} s{why}"
        return State.STARTING, f"the engine is not up yet{why}"
    stall = _stall(state.watch, limits, now) or _blockade(state.watch, limits)
    if stall is not None:
        return State.FAILED, stall
    if state.warmup_failure is not None:
        return State.FAILED, state.warmup_failure
    if state.warmed:
        return State.READY, "the engine is up and warm"
    if late:
        return State.FAILED, f"the engine has not warmed up within {limits.startup_patience:g} s"
    return State.STARTING, "the engine is warming up"


def _stall(watch: Watch, limits: Limits, now: float) -> str | None:
    """Why the engine is dead inside, as far as looks and silence show. A span counts only between two looks, so that a
    busy engine that answers late is not taken for a dead one because of what was seen before.
    """
    patience = max(limits.stall_patience, watch.explained)
    if watch.look is not None:
        at = watch.look.at
        if watch.ours_since is not None and at - watch.ours_since > patience:
            return f"a running prompt has made no progress for {patience:g} s"
        if watch.idle_since is not None and at - watch.idle_since >= limits.pending_patience:
            return f"prompts have been pending with none running for {limits.pending_patience:g} s"
    if now - watch.heard_at > patience:
        return f"the engine has not answered for {patience:g} s"
    return None


def _blockade(watch: Watch, limits: Limits) -> str | None:
    """Why strangers keep the engine from us. They may be right to, so that is no reason for a restart."""
    if watch.look is None or watch.strangers_since is None:
        return None
    if watch.look.at - watch.strangers_since <= limits.stranger_patience:
        return None
    return f"a prompt of another client has been running for {limits.stranger_patience:g} s"


def _tell(state: Readiness, now: float) -> tuple[Readiness, tuple[Effect, ...]]:
    """Tell what differs from what was told last."""
    effects: list[Effect] = []
    seen = view(state, now)
    is_open = _examine(state, now)[0] is State.READY
    stall = None if state.watch is None else _stall(state.watch, state.limits, now)
    if seen.state is not state.shown:
        effects.append(StateChanged(state.shown, seen.state, seen.reason))
    if is_open is not state.open:
        effects.append(Opened() if is_open else Closed())
    if stall is not None and not state.stalled:
        effects.append(Stalled(stall))
    return state._replace(shown=seen.state, open=is_open, stalled=stall is not None), tuple(effects)
