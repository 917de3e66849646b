"""Whether a call that failed is tried again, and after how long.

For: calls of a converter, and notices that a converter sends. Leaves clock, chance and sleep to others. Invariants:
what must not be repeated is not; nothing is sent before the time that the service gave; delays that it leaves open
double up to a bound; no try begins when the call's time or patience is over, so tries end.
"""

from dataclasses import dataclass

from converter.errors import Canceled, DeadlineExceeded, Fault, Retry

FIRST, LONGEST = 0.5, 30.0
"""Seconds of the first delay and of the longest, where the service gives none. Chance shortens each by up to a half."""

SPREAD = 0.25
"""Part by which a delay that the service gives is made longer, at most: those who were told the same don't all come at
once.
"""

REPEATS = 2
"""How often a call is sent again whose work was done in vain: each time costs the engine as much as the first."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One try's end. `retry_after` in seconds, None where the service has not said. `costly`: work was done for it."""

    retry: Retry
    retry_after: float | None = None
    costly: bool = False


LOST = Failure("same")
"""No connection, or one that was lost: the idempotency key makes it safe to send the call again."""

IN_VAIN = Failure("never")
"""Whatever is wrong, another try would meet it again."""


@dataclass(frozen=True, slots=True)
class Tries:
    """What is remembered of a call: how many tries failed, how many of them were costly, and when the first did."""

    failures: int = 0
    costly: int = 0
    since: float | None = None


def from_fault(fault: Fault) -> Failure:
    """What a fault means for the next try.

    Somebody wanted an end of a job that was canceled, and of one whose time is over: it stays ended, though its caller
    may ask for it once more.
    """
    ended = isinstance(fault, Canceled | DeadlineExceeded)
    return Failure("never" if ended else fault.retry, fault.retry_after, costly=fault.retry == "same")


def from_status(status: int, retry_after: float | None) -> Failure:
    """What an answer means that is not a converter's, but of something between: only its HTTP status is known."""
    if status in (429, 503):
        return Failure("later", retry_after)
    return Failure("same" if status in (408, 502, 504) else "never", retry_after, costly=status == 504)


def judge(
    tries: Tries,
    failure: Failure,
    now: float,
    *,
    patience: float,
    deadline: float,
    chance: float,
    longest: float = LONGEST,
) -> tuple[Tries, float | None]:
    """What is remembered next, and the seconds up to the next try; None if there is none.

    `patience`: seconds after the first failure in which another try may begin. `deadline`: the moment before which one
    may. `longest`: seconds of the longest delay that the service leaves open. `chance`: 0 to 1.
    """
    since = now if tries.since is None else tries.since
    tries = Tries(tries.failures + 1, tries.costly + failure.costly, since)
    delay = _delay(tries.failures, failure.retry_after, longest, chance)
    late = now + delay >= min(deadline, since + patience)
    return tries, None if failure.retry == "never" or tries.costly > REPEATS or late else delay


def _delay(failures: int, retry_after: float | None, longest: float, chance: float) -> float:
    if retry_after is not None:
        return max(retry_after, FIRST / 2) * (1 + SPREAD * chance)
    growing = FIRST * 2.0 ** min(failures - 1, 20)
    return min(growing, longest) * (1 - chance / 2)
