"""What is remembered of jobs that have ended, and for how long.

Lasting records (results that somebody will come back for) stay for a time and within a number of bytes; fleeting ones
(results that were delivered) stay for the same time, the latest few of them. Of what is dropped the id is remembered
for as long again. A record may have a key beside its id, which goes with it. Invariant: the bounds hold after every
call; a lasting record is dropped before its time only to keep within the bytes, oldest first; a key finds the record
that was added with it last, or none.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

R = TypeVar("R")

FLEETING = 256
"""Fleeting records at most."""

LASTING = 10_000
"""Lasting records at most."""

TOMBS = 10_000
"""Ids of dropped records at most."""


@dataclass(frozen=True, slots=True)
class _Entry(Generic[R]):
    record: R
    size: int
    until: float
    key: Hashable | None


class Archive(Generic[R]):
    """Records by id, anything hashable. `size` counts the bytes of outputs.

    Times are moments of the caller's clock and never go back. `on_drop` is told of every record that goes.
    """

    def __init__(self, seconds: float, size: int, on_drop: Callable[[R], None] = lambda _: None) -> None:
        self._on_drop = on_drop
        self._seconds = seconds
        self._bound = size
        self._lasting: OrderedDict[Hashable, _Entry[R]] = OrderedDict()
        self._fleeting: OrderedDict[Hashable, _Entry[R]] = OrderedDict()
        self._tombs: OrderedDict[Hashable, float] = OrderedDict()
        self._ids: dict[Hashable, Hashable] = {}
        self._size = 0

    def add(
        self, id: Hashable, record: R, size: int, now: float, *, lasting: bool, key: Hashable | None = None
    ) -> None:
        """Remember a record under its id, in place of one that is known; its outputs take `size` bytes."""
        for shelf in (self._fleeting, self._lasting):
            if id in shelf:
                self._remove(shelf, id)
        self._tombs.pop(id, None)
        shelf = self._lasting if lasting else self._fleeting
        shelf[id] = _Entry(record, size, now + self._seconds, key)
        if key is not None:
            self._ids[key] = id
        self._size += size
        self.tidy(now)

    def records(self) -> list[R]:
        """The lasting records, oldest first."""
        return [entry.record for entry in self._lasting.values()]

    def find(self, id: Hashable, now: float) -> R | None:
        """The record, if it is still there."""
        self.tidy(now)
        entry = self._lasting.get(id) or self._fleeting.get(id)
        return entry.record if entry else None

    def find_by_key(self, key: Hashable, now: float) -> R | None:
        """The record of this key, if it is still there."""
        self.tidy(now)
        id = self._ids.get(key)
        return None if id is None else self.find(id, now)

    def expired(self, id: Hashable, now: float) -> bool:
        """Whether the last record of this id has been dropped."""
        self.tidy(now)
        return id in self._tombs

    def tidy(self, now: float) -> None:
        """Drop what is past its time, as every other call does."""
        for shelf, most in ((self._fleeting, FLEETING), (self._lasting, LASTING)):
            while shelf and (len(shelf) > most or self._size > self._bound or next(iter(shelf.values())).until <= now):
                self._drop(shelf, now)
        while self._tombs and (len(self._tombs) > TOMBS or next(iter(self._tombs.values())) <= now):
            self._tombs.popitem(last=False)

    def _drop(self, shelf: "OrderedDict[Hashable, _Entry[R]]", now: float) -> None:
        id = next(iter(shelf))
        self._remove(shelf, id)
        self._tombs[id] = now + self._seconds

    def _remove(self, shelf: "OrderedDict[Hashable, _Entry[R]]", id: Hashable) -> None:
        entry = shelf.pop(id)
        self._size -= entry.size
        if entry.key is not None and self._ids.get(entry.key) == id:
            del self._ids[entry.key]
        self._on_drop(entry.record)
