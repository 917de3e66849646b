"""What nodes have returned, by cache key.

For: giving a node's values again when the same node with the same ancestors is asked for. Leaves keys to `plan` and
locking to `execution`.
Invariant: pure; never more than `max_entries` entries nor, as far as sizes can be told, `max_bytes`; what was used
longest ago goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

_SMALL = 64  # bytes counted for what does not tell its size
_DEPTH = 8  # levels that are looked into
_WASTE = 2  # times its own bytes that an array may keep in memory


@dataclass(frozen=True, slots=True)
class Entry:
    """The values of one node, and its `ui` if it showed something."""

    values: list[list[Any]]
    ui: Mapping[str, Any] | None


@dataclass(slots=True)
class Cache:
    """Entries by key, bounded by number and by bytes."""

    max_entries: int = 1024
    max_bytes: int = 512 << 20
    size: int = 0
    _entries: OrderedDict[str, tuple[Entry, int]] = field(default_factory=OrderedDict)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str | None) -> Entry | None:
        """The entry, which counts as a use; None when there is none."""
        if key is None or key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key][0]

    def put(self, key: str, entry: Entry) -> None:
        """Keep an entry, unless it alone is larger than all that may be kept."""
        self.drop(key)
        size = weigh(entry.values) + weigh(entry.ui)
        if size > self.max_bytes:
            return
        self._entries[key] = (entry, size)
        self.size += size
        while self.size > self.max_bytes or len(self._entries) > self.max_entries:
            _, (_, freed) = self._entries.popitem(last=False)
            self.size -= freed

    def drop(self, key: str) -> None:
        """Forget one entry, if it is there."""
        if key in self._entries:
            self.size -= self._entries.pop(key)[1]

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.size = 0


def compact(value: Any) -> Any:
    """The value; where it is an array that shows a small part of a larger one a copy, which does not keep the whole."""
    nbytes = getattr(value, "nbytes", None)
    if isinstance(nbytes, int) and getattr(value, "base", None) is not None and weigh(value) > _WASTE * nbytes + _SMALL:
        return value.copy()
    return value


def weigh(value: object, depth: int = _DEPTH) -> int:
    """About how many bytes a value holds: arrays and tensors by `nbytes`, texts by length, containers by content."""
    # A tensor may show the same memory many times over, as an empty batch does, and an array a small part of what it is
    # cut out of: what counts is what they keep.
    if callable(storage := getattr(value, "untyped_storage", None)):
        return int(storage().nbytes()) + _SMALL
    nbytes = getattr(value, "nbytes", None)
    if isinstance(nbytes, int):
        base = getattr(value, "base", None)
        return nbytes + _SMALL if base is None or depth == 0 else weigh(base, depth - 1)
    if isinstance(value, str | bytes):
        return len(value) + _SMALL
    if depth == 0:
        return _SMALL
    if isinstance(value, Mapping):
        return _SMALL + sum(weigh(key, depth - 1) + weigh(item, depth - 1) for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return _SMALL + sum(weigh(item, depth - 1) for item in value)
    if is_dataclass(value):
        return _SMALL + sum(weigh(getattr(value, part.name), depth - 1) for part in fields(value))
    return _SMALL
