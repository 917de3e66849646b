"""What is remembered of jobs that have ended, and for how long.

Lasting records (results that somebody will come back for) stay for a time and within a number of bytes; fleeting ones
(results that were delivered) stay for the same time, the latest few of them. Of what is dropped the id is remembered
for as long again. Invariant: the bounds hold after every call; a lasting record is dropped before its time only to
keep within the bytes, oldest first.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

R = TypeVar("R")

FLEETING = 256
"""Fleeting records at most."""

TOMBS = 10_000
"""Ids of dropped records at most."""

OVERHEAD = 4096
"""Bytes that a record costs beside its outputs."""


@dataclass(frozen=True, slots=True)
class _Entry(Generic[R]):
    record: R
    size: int
    until: float
    lasting: bool


class Archive(Generic[R]):
    """Records by id. Times are moments of the caller's clock and never go back."""

    def __init__(self, seconds: float, size: int) -> None:
        self._seconds = seconds
        self._bound = size
        self._entries: OrderedDict[str, _Entry[R]] = OrderedDict()
        self._tombs: OrderedDict[str, float] = OrderedDict()
        self._size = 0
        self._fleeting = 0

    def add(self, id: str, record: R, size: int, now: float, *, lasting: bool) -> None:
        """Remember a record of `size` bytes under an id of which there is no record."""
        self._tombs.pop(id, None)
        self._entries[id] = _Entry(record, size + OVERHEAD, now + self._seconds, lasting)
        self._size += size + OVERHEAD
        self._fleeting += not lasting
        self._tidy(now)

    def find(self, id: str, now: float) -> R | None:
        """The record, if it is still there."""
        self._tidy(now)
        entry = self._entries.get(id)
        return entry.record if entry else None

    def expired(self, id: str, now: float) -> bool:
        """Whether the last record of this id has been dropped."""
        self._tidy(now)
        return id in self._tombs

    def _tidy(self, now: float) -> None:
        while self._entries and (self._size > self._bound or next(iter(self._entries.values())).until <= now):
            self._drop(next(iter(self._entries)), now)
        while self._fleeting > FLEETING:
            self._drop(next(id for id, entry in self._entries.items() if not entry.lasting), now)
        while self._tombs and (len(self._tombs) > TOMBS or next(iter(self._tombs.values())) <= now):
            self._tombs.popitem(last=False)

    def _drop(self, id: str, now: float) -> None:
        entry = self._entries.pop(id)
        self._size -= entry.size
        self._fleeting -= not entry.lasting
        self._tombs[id] = now + self._seconds
