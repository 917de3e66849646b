"""Waiting without sleeping: whoever waits for a condition is woken each time something has changed."""

import asyncio
from collections.abc import Callable


class Changes:
    """One per fake; `notify` after each change, `until` anywhere in the same loop."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], object], timeout: float | None = None) -> None:
        """Returns once `condition()` is true; raises TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            while not condition():
                await self._changed.wait()
