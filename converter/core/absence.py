"""Absence: an engine that is not up yet, and when the log warns of the reason.

For: the watch, which looks for the engine. Leaves to others: what a look that failed shows (`link.diagnosis`), and what
the replica's state is (`readiness`). Invariant: while one absence lasts, no reason is warned of twice.
"""

from dataclasses import dataclass
from typing import NamedTuple

ATTACHED = 10.0
"""Seconds that an engine which runs already may be away unsaid: no longer than it takes to start both at once."""

STARTED = 60.0
"""Seconds for one that was started just now, which reads models and nodes before it listens."""


class Absence(NamedTuple):
    """patience: seconds before a warning. since: when a look failed first. told: the reasons that were warned of."""

    patience: float = ATTACHED
    since: float | None = None
    told: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Missed:
    """A look has failed, for this reason. `foreign`: what answers is no engine, which time won't change."""

    reason: str
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class Warn:
    """The operator should know."""

    reason: str


def step(state: Absence, event: Missed, now: float) -> tuple[Absence, tuple[Warn, ...]]:
    """The next state, and whether to warn."""
    state = state._replace(since=now if state.since is None else state.since)
    due = event.foreign or (state.since is not None and now - state.since >= state.patience)
    if not due or event.reason in state.told:
        return state, ()
    return state._replace(told=state.told | {event.reason}), (Warn(event.reason),)
