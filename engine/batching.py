"""Batching: which requests share a pass of the device.

For: choosing, among requests that wait, those that go next together, and learning how many rows a pass may have. Leaves
carrying passes out to `device`, and what a row is to the requests.
Invariant: pure; a batch has one key, begins with the oldest request, keeps the order of its key, and has no more rows
than its bound unless its oldest alone has more; it is empty only where nothing waits. Where a row weighs more, fewer
share a pass.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

_REMEMBERED = 64  # keys whose bound is remembered
_TRUST = 64  # full passes since the bound changed, after which twice the rows are tried


class Request(Protocol):
    """What waits. Requests of one key can share a pass, and have rows of one weight; one whose key is None goes alone.

    `weight`, at least 1, is how many rows of a usual size need the memory of one of these.
    """

    @property
    def key(self) -> Hashable | None: ...

    @property
    def rows(self) -> int: ...

    @property
    def weight(self) -> float: ...


def choose(waiting: Sequence[Request], bound: Callable[[Request], int]) -> list[int]:
    """The places in `waiting`, oldest first, of the requests that go next; nobody who waits is waited for."""
    if not waiting:
        return []
    key, rows = waiting[0].key, waiting[0].rows
    chosen = [0]
    if key is None:
        return chosen
    most = bound(waiting[0])
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
    """How many rows a pass of each key may have: as many as weigh `most`, or as memory has held."""

    most: int
    _learned: OrderedDict[Hashable, _Bound] = field(default_factory=OrderedDict)

    def bound(self, request: Request) -> int:
        """Rows that a pass of requests like this one may have, at least 1."""
        learned = self._learned.get(request.key)
        return self._allow(request) if learned is None else learned.rows

    def _allow(self, request: Request) -> int:
        return max(1, int(self.most / request.weight))

    def shrink(self, request: Request, rows: int) -> None:
        """Memory ran out in a pass of `rows` like this request's: half as many from now on."""
        self._learned[request.key] = _Bound(max(1, min(rows, self.bound(request)) // 2))
        self._learned.move_to_end(request.key)
        while len(self._learned) > _REMEMBERED:
            self._learned.popitem(last=False)

    def confirm(self, request: Request, rows: int) -> None:
        """Such a pass went well. Many full ones double the bound: what took the memory may be gone."""
        learned = self._learned.get(request.key)
        if learned is None or rows < learned.rows:
            return
        learned.trust += 1
        if learned.trust >= _TRUST:
            self._learned[request.key] = _Bound(2 * learned.rows)
            if 2 * learned.rows >= self._allow(request):
                del self._learned[request.key]
