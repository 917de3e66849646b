"""What the client's tests share: waits between tries that take no time."""

from collections.abc import Awaitable, Callable

import pytest


class Naps:
    """The waits between tries: noted in `seconds`, and over at once. `then` is done in each."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.then: Callable[[], Awaitable[object]] | None = None

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if self.then is not None:
            await self.then()


@pytest.fixture
def naps() -> Naps:
    """For `Client(sleep=...)`."""
    return Naps()
