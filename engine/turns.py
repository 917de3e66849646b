"""Turns: waiting for a lock, but not for long.

For: what may be left undone where others are at it. Leaves what to do then to the caller.
Invariant: a lock that was had is let go of.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Lock(Protocol):
    """As `threading` has them."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...

    def release(self) -> None: ...


@contextmanager
def take_turn(lock: Lock, patience: float) -> Iterator[bool]:
    """Whether the lock was to be had within so many seconds; it is held until the end of the block."""
    mine = lock.acquire(timeout=patience)
    try:
        yield mine
    finally:
        if mine:
            lock.release()
