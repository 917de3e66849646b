"""What a signal to end means: drain at the first, end at once at a later one.

One Ctrl-C reaches the converter more than once (the terminal signals the whole group, and make repeats it), so
signals that come within a second of the first are echoes of it.
"""

from dataclasses import dataclass

ECHO = 1.0
"""Seconds after the first signal during which others are taken for its echoes."""


@dataclass(frozen=True, slots=True)
class Signals:
    """`first`: when the first signal came."""

    first: float | None = None


@dataclass(frozen=True, slots=True)
class Signal:
    """SIGTERM or SIGINT came. `interactive`: it was SIGINT, someone sits at a terminal and waits."""

    interactive: bool


@dataclass(frozen=True, slots=True)
class Drain:
    """Take no more work, finish what is in flight, then end. `interactive`: no load balancer needs to be told first."""

    interactive: bool


@dataclass(frozen=True, slots=True)
class EndNow:
    """End at once, whatever is in flight."""


Effect = Drain | EndNow


def step(state: Signals, event: Signal, now: float) -> tuple[Signals, tuple[Effect, ...]]:
    """The next state and what to do about the signal."""
    if state.first is None:
        return Signals(first=now), (Drain(event.interactive),)
    if now - state.first <= ECHO:
        return state, ()
    return state, (EndNow(),)
