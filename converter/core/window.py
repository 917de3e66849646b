"""How much work a caller keeps in flight: more while it is taken, half as much when it is refused.

Additive increase, multiplicative decrease, as TCP shares a line (RFC 5681 section 3.1): callers who know nothing of
each other settle on a share each of what the service bears. Leaves counting and waiting to the client. Invariants: the
window has room for one call at least and for `most` at most; of calls that were sent side by side, all refusals
together halve it once.
"""

from dataclasses import dataclass, replace
from typing import Self

FIRST = 16
"""Calls in flight before anything is known: the places of one replica by default."""


@dataclass(frozen=True, slots=True)
class Window:
    """`size` in calls; what is below a whole one has no room. `epoch` counts the times that it became smaller."""

    most: int
    size: float
    epoch: int = 0

    @classmethod
    def open(cls, most: int) -> Self:
        """The window before the first call. Raises ValueError if `most` has no room."""
        if most < 1:
            raise ValueError("there must be room for one call")
        return cls(most, float(min(FIRST, most)))

    @property
    def room(self) -> int:
        """How many calls may be in flight."""
        return int(self.size)


def widen(window: Window, in_flight: int) -> Window:
    """After a call that was taken and is done, `in_flight` with it: one more for each whole window of them.

    A window that is not full does not grow: nobody knows whether more would be taken.
    """
    if in_flight < window.room:
        return window
    return replace(window, size=min(window.size + 1 / window.size, float(window.most)))


def narrow(window: Window, epoch: int) -> Window:
    """After a refusal of a call that was sent in `epoch`: half as many, unless that has been done for its like."""
    if epoch != window.epoch:
        return window
    return replace(window, size=max(window.size / 2, 1.0), epoch=window.epoch + 1)
