"""Waiting for what becomes true elsewhere, with an end."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.e2e.service import PATIENCE, POLL


async def eventually(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Look again and again until it is so; raises TimeoutError."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(POLL)
