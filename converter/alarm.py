"""An alarm: rings once, at the moment that a machine wants to be woken.

Leaves the moment to the machine. Invariant: at most one timer of the loop is set; while none is, nothing is held of
whoever would be woken, so that reference counts alone can free it.
"""

import asyncio
from collections.abc import Callable


class Alarm:
    """One machine's. Moments are those of the loop's clock, in seconds."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def rings_before(self, moment: float) -> bool:
        """Whether it is set for an earlier moment."""
        return self._timer is not None and self._timer.when() < moment

    def set(self, moment: float | None, ring: Callable[[], None]) -> None:
        """Ring at the moment, never where it is None; an alarm that is set for an earlier one stays, and is in vain."""
        if moment is None or (self._timer is not None and moment < self._timer.when()):
            self.drop()
        if moment is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(moment, self._expire, ring)

    def drop(self) -> None:
        """Do not ring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self, ring: Callable[[], None]) -> None:
        self._timer = None
        ring()
