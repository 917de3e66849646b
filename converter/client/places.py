"""The places for calls in flight: taken in the order of asking, as many as the window has room for.

Decides nothing: `core.window` does. Invariant: a place that was taken is given back once.
"""

from anyio import CapacityLimiter

from converter.core.window import Window, narrow, widen


class Places:
    """To be made inside the loop in which it is used."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._limiter = CapacityLimiter(window.room)

    @property
    def room(self) -> int:
        """How many calls may be in flight."""
        return self._window.room

    @property
    def epoch(self) -> int:
        """The present one; a refusal counts for the epoch in which its call was sent."""
        return self._window.epoch

    async def take(self, holder: object) -> None:
        """Wait for a place."""
        await self._limiter.acquire_on_behalf_of(holder)

    def give_back(self, holder: object) -> None:
        """Whoever waits longest gets it, if there is still room."""
        self._limiter.release_on_behalf_of(holder)

    def note_success(self) -> None:
        """A call, which still has its place, was taken and is done."""
        self._use(widen(self._window, self._limiter.borrowed_tokens))

    def note_refusal(self, epoch: int) -> None:
        """A call that was sent in this epoch was refused; it keeps its place for its next try."""
        self._use(narrow(self._window, epoch))

    def _use(self, window: Window) -> None:
        self._window = window
        self._limiter.total_tokens = window.room
