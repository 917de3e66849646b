"""Waiting for what shows itself in no event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PATIENCE = 30.0  # seconds; a test that waits longer has failed
_STEP = 0.01


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition. Raises TimeoutError."""
    for _ in range(int(PATIENCE / _STEP)):
        if condition():
            return
        await asyncio.sleep(_STEP)
    raise TimeoutError


def until_blocking(condition: Callable[[], bool]) -> None:
    """The same without a loop."""
    for _ in range(int(PATIENCE / _STEP)):
        if condition():
            return
        time.sleep(_STEP)
    raise TimeoutError
