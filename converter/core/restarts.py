"""When a dead engine is started again, and when the replica gives it up.

Each death is answered by a restart after a delay that grows from death to death, as long as the budget has restarts
left: so many within a sliding window. A run that warmed up and then lived a while is a success: the death that ends
it is counted as the first one, and answered at once. This file leaves processes and timers to `link/supervisor.py`;
chance comes in as a number with each death.

Invariants: never more restarts within any window than the budget, unless a success lies between them; no delay is
above the maximum; once spent, the budget stays spent.
"""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient the replica is with its engine; all times in seconds.

    The delay starts at `first_delay` and doubles up to `max_delay`; after a success there is none. At most `budget`
    restarts are made within `window`. `settled` is how long an engine must live after its warm-up to count as a
    success.
    """

    first_delay: float = 1.0
    max_delay: float = 30.0
    budget: int = 5
    window: float = 600.0
    settled: float = 60.0


@dataclass(frozen=True, slots=True)
class Restarts:
    """What is remembered: the next delay, the moments of the restarts that still count, and the present run.

    `alive`: a child was launched and has not died. `warm_since`: when it completed its warm-up.
    """

    policy: Policy
    delay: float
    past: tuple[float, ...] = ()
    alive: bool = False
    warm_since: float | None = None
    spent: bool = False

    @classmethod
    def begin(cls, policy: Policy) -> Self:
        """The state before the first launch."""
        return cls(policy, delay=policy.first_delay)


@dataclass(frozen=True, slots=True)
class Launched:
    """A child was started, or at least the attempt was made."""


@dataclass(frozen=True, slots=True)
class Warmed:
    """The child has completed its warm-up."""


@dataclass(frozen=True, slots=True)
class Died:
    """The child is gone: by itself, with whatever status, or because a restart was asked for.

    `jitter`, 0 to 1, shortens the delay by up to a half, so that replicas on one machine do not start in step.
    """

    jitter: float


Event = Launched | Warmed | Died


@dataclass(frozen=True, slots=True)
class StartAfter:
    """Start the next child after `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The budget is spent: start no more."""


Effect = StartAfter | GiveUp


def step(state: Restarts, event: Event, now: float) -> tuple[Restarts, tuple[Effect, ...]]:
    """The next state and what to do; events that do not fit the state change nothing."""
    match event:
        case Launched() if not (state.alive or state.spent):
            return replace(state, alive=True, warm_since=None), ()
        case Warmed() if state.alive and state.warm_since is None:
            return replace(state, warm_since=now), ()
        case Died(jitter) if state.alive:
            return _bury(state, jitter, now)
        case _:
            return state, ()


def _bury(state: Restarts, jitter: float, now: float) -> tuple[Restarts, tuple[Effect, ...]]:
    policy = state.policy
    success = state.warm_since is not None and now - state.warm_since >= policy.settled
    past = () if success else tuple(moment for moment in state.past if now - moment < policy.window)
    if len(past) >= policy.budget:
        return replace(state, past=past, alive=False, spent=True), (GiveUp(),)
    following = policy.first_delay if success else state.delay * 2
    buried = replace(state, delay=min(following, policy.max_delay), past=(*past, now), alive=False)
    delay = 0.0 if success else min(state.delay, policy.max_delay)
    return buried, (StartAfter(delay * (1 - jitter / 2)),)
