"""Batching: which requests share a pass of the device.

For: choosing, among requests that wait, those that go next together, and learning how many rows a pass may have. Leaves
carrying passes out to `device`, and what a row is to the requests.
Invariant: pure; a batch has one key, begins with the oldest request, keeps the order of its key, and has no more rows
than its bound unless its oldest alone has more; it is empty only where nothing waits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

_REMEMBERED = 64  # keys whose bound is remembered
_TRUST = 64  # full passes since the bound changed, after which twice the rows are tried


class Request(Protocol):
    """What waits. Requests of one key can share a pass; one whose key is None goes alone."""

    @property
    def key(self) -> Hashable | None: ...

    @property
    def rows(self) -> int: ...


def choose(waiting: Sequence[Request], bound: Callable[[Hashable], int]) -> list[int]:
    """The places in `waiting`, oldest first, of the requests that go next; nobody who waits is waited for."""
    if not waiting:
        return []
    key, rows = waiting[0].key, waiting[0].rows
    chosen = [0]
    if key is None:
        return chosen
    most = bound(key)
    for place, request in enumerate(waiting[1:], start=1):
        if request.key != key:
            continue
        rows += request.rows
        if rows > most:
            break
        chosen.append(place)
    return chosen


@dataclass(slots=True)
class _Bound:
    rows: int
    trust: int = 0  # full passes since the bound changed


@dataclass(slots=True)
class Bounds:
    """How many rows a pass of each key may have: `most`, or as many as memory has been seen to hold."""

    most: int
    _learned: OrderedDict[Hashable, _Bound] = field(default_factory=OrderedDict)

    def bound(self, key: Hashable) -> int:
        """Rows that a pass of `key` may have, at least 1."""
        learned = self._learned.get(key)
        return self.most if learned is None else learned.rows

    def shrink(self, key: Hashable, rows: int) -> None:
        """Memory ran out in a pass of `rows`: half as many from now on."""
        self._learned[key] = _Bound(max(1, min(rows, self.bound(key)) // 2))
        self._learned.move_to_end(key)
        while len(self._learned) > _REMEMBERED:
            self._learned.popitem(last=False)

    def confirm(self, key: Hashable, rows: int) -> None:
        """A pass of `rows` went well. Many full ones double the bound: what took the memory may be gone."""
        learned = self._learned.get(key)
        if learned is None or rows < learned.rows:
            return
        learned.trust += 1
        if learned.trust >= _TRUST:
            self._learned[key] = _Bound(2 * learned.rows)
            if 2 * learned.rows >= self.most:
                del self._learned[key]
