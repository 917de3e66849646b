"""What the watchers of a job are told, each at its own pace.

Lasting entries reach every reader, in order. Of a passing kind (progress, previews, the present status) only the
latest is kept, so that a slow reader loses snapshots and nothing else, and a thousand readers share one copy.
Invariant: sequence numbers grow; the last entry is appended once and nothing follows it.
"""

from typing import Any, NamedTuple


class Entry(NamedTuple):
    """One event; `sequence` is its id for readers that come back (WHATWG server-sent events, `Last-Event-ID`)."""

    sequence: int
    event: str
    data: Any


class Journal:
    """The entries of one job. `closed` once the last one is in."""

    def __init__(self) -> None:
        self._sequence = 0
        self._lasting: list[Entry] = []
        self._latest: dict[str, Entry] = {}
        self.closed = False

    @property
    def sequence(self) -> int:
        """The number of the newest entry."""
        return self._sequence

    def append(self, event: str, data: Any) -> None:
        """Add an entry that every reader gets."""
        if not self.closed:
            self._lasting.append(self._number(event, data))

    def show(self, event: str, data: Any) -> None:
        """Replace the present snapshot of this kind."""
        if not self.closed:
            self._latest[event] = self._number(event, data)

    def close(self, event: str, data: Any) -> None:
        """Add the last entry; snapshots are of no more use."""
        if not self.closed:
            self._latest.clear()
            self.append(event, data)
            self.closed = True

    def since(self, sequence: int) -> list[Entry]:
        """The entries after `sequence`, in order: all lasting ones, and the latest of each passing kind."""
        fresh = [entry for entry in self._lasting if entry.sequence > sequence]
        fresh += [entry for entry in self._latest.values() if entry.sequence > sequence]
        return sorted(fresh)

    def _number(self, event: str, data: Any) -> Entry:
        self._sequence += 1
        return Entry(self._sequence, event, data)
