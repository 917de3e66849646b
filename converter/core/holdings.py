"""Holdings: who holds how much of what each may hold a bounded number of.

Leaves to others: what is held, and when it is given back. Invariant: nobody holds more than the bound by `take`; what
has been given back, however often, is held by nobody.
"""

from collections.abc import Hashable


class Holdings:
    """Things by the name of their holder; `most` of them each, None without a bound."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._held: dict[str, set[Hashable]] = {}

    def take(self, name: str, thing: Hashable) -> bool:
        """Let `name` hold one thing more, if it may; whether it does."""
        if self._most is not None and self.count(name) >= self._most:
            return False
        self.keep(name, thing)
        return True

    def keep(self, name: str, thing: Hashable) -> None:
        """Let `name` hold a thing in the place of one that it gives back."""
        self._held.setdefault(name, set()).add(thing)

    def give_back(self, name: str, thing: Hashable) -> None:
        """What is given back is no longer held."""
        held = self._held.get(name, set())
        held.discard(thing)
        if not held:
            self._held.pop(name, None)

    def count(self, name: str) -> int:
        """How many things `name` holds."""
        return len(self._held.get(name, ()))
