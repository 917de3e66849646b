"""A turnstile: so many at once of what takes no place from orders, such as bodies that are read beside them.

Leaves places for orders to the gate. Invariant: whoever is one too many is refused before anything is done for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from converter.gate import Gate


class Turnstile:
    """Lets `most` in at once. `refusal`: what others are told, who may come back after a second."""

    def __init__(self, gate: Gate, most: int, refusal: str) -> None:
        self._gate = gate
        self._most = most
        self._refusal = refusal
        self._inside = 0

    @contextmanager
    def passed(self) -> Iterator[None]:
        """Be inside as long as this is entered; raises QueueFull."""
        if self._inside >= self._most:
            raise self._gate.turn_away(self._refusal, seconds=1)
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
