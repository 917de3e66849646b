"""What a prompt holds: the values of its nodes, until the last node that needs them has run.

For: giving a node what its inputs name, and a bound of bytes, so that a workflow which makes much of little, such as a
batch that is joined with itself again and again, ends with an error before it ends the engine. Leaves what is kept from
one prompt to the next to `cache`, which has a bound of its own.
Invariant: pure; what nodes have made, with what one is about to make, takes at most `max_bytes` as far as sizes can be
told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from engine.cache import weigh
from engine.errors import TooLargeError
from engine.plan import Values


@dataclass(slots=True)
class Holdings:
    """Values by node. Those that came out of the cache are counted there."""

    max_bytes: int
    _values: dict[str, Values] = field(default_factory=dict)
    _sizes: Counter[str] = field(default_factory=Counter)
    _users: Counter[str] = field(default_factory=Counter)
    _claimed: int = 0  # bytes that the node which runs has claimed

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._values

    def __getitem__(self, node_id: str) -> Values:
        return self._values[node_id]

    def expect(self, sources: Iterable[str]) -> None:
        """A node will need the values of these, as often as each is named."""
        self._users.update(sources)

    def recall(self, node_id: str, values: Values) -> None:
        """Hold what the cache has."""
        self._values[node_id] = values

    def claim(self, size: int) -> None:
        """The node that runs is about to make `size` bytes more. Raises TooLargeError."""
        self._claimed += size
        if (total := self._sizes.total() + self._claimed) > self.max_bytes:
            bound = f"may hold {self.max_bytes >> 20} MB (--prompt-mb)"
            raise TooLargeError(f"the results of this prompt's nodes would take {total >> 20} MB, and a prompt {bound}")

    def keep(self, node_id: str, values: Values) -> None:
        """Hold what a node has made. Raises TooLargeError."""
        size, self._claimed = weigh(values), 0
        self.claim(size)
        self._values[node_id], self._sizes[node_id], self._claimed = values, size, 0

    def use(self, sources: Iterable[str]) -> None:
        """A node that needed these has run; what nobody else needs is let go."""
        for source in sources:
            self._users[source] -= 1
            if self._users[source] == 0:
                del self._values[source]
                del self._sizes[source]

    def clear(self) -> None:
        """Hold nothing."""
        self._values.clear()
        self._sizes.clear()
