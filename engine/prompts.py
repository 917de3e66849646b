"""Where every prompt is: pending, running, or history.

For: the order of the queue and the memory of what has ended. Leaves locking, running and telling to `executor`.
Invariant: a prompt id is in at most one of pending, running and history, and nothing but `delete`, `clear`, `forget`,
`forget_all` and the bound of the history removes it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Prompt:
    """A validated prompt.

    `graph_text` is `graph` as JSON, `item` its whole queue item. `extra_data` holds no secrets.
    """

    number: float
    id: str
    graph: Mapping[str, Any]
    extra_data: Mapping[str, Any]
    targets: tuple[str, ...]
    graph_text: str
    item: str

    @property
    def client(self) -> str | None:
        """Whom to tell, if anybody in particular."""
        client = self.extra_data.get("client_id")
        return client if isinstance(client, str) else None


@dataclass(slots=True)
class Prompts:
    """All prompts that the engine knows. The history keeps the latest `history_size` records, as JSON text."""

    history_size: int = 10_000
    _heap: list[tuple[float, str]] = field(default_factory=list)
    _pending: dict[str, Prompt] = field(default_factory=dict)
    _running: dict[str, Prompt] = field(default_factory=dict)
    _history: dict[str, str] = field(default_factory=dict)

    @property
    def remaining(self) -> int:
        """Pending and running."""
        return len(self._pending) + len(self._running)

    @property
    def waiting(self) -> int:
        """Pending only."""
        return len(self._pending)

    def knows(self, prompt_id: str) -> bool:
        """Whether the id is pending or running, so that another prompt cannot have it."""
        return prompt_id in self._pending or prompt_id in self._running

    def put(self, prompt: Prompt) -> None:
        """Queue a prompt whose id is neither pending nor running; a record under its id goes."""
        self._history.pop(prompt.id, None)
        self._pending[prompt.id] = prompt
        heapq.heappush(self._heap, (prompt.number, prompt.id))

    def take(self) -> Prompt | None:
        """Start the pending prompt with the lowest (number, id), if there is one."""
        while self._heap:
            number, prompt_id = heapq.heappop(self._heap)
            prompt = self._pending.get(prompt_id)
            # An entry of a prompt that was deleted stays in the heap until its turn; its id may be in use again.
            if prompt is not None and prompt.number == number:
                self._running[prompt_id] = self._pending.pop(prompt_id)
                return prompt
        return None

    def finish(self, prompt_id: str, record: str) -> None:
        """Move a running prompt to the history, which forgets its oldest when full."""
        del self._running[prompt_id]
        self._history[prompt_id] = record
        while len(self._history) > self.history_size:
            del self._history[next(iter(self._history))]

    def delete(self, prompt_ids: Iterable[str]) -> int:
        """Remove pending prompts; other ids are ignored. Returns how many went."""
        removed = sum(self._pending.pop(prompt_id, None) is not None for prompt_id in prompt_ids)
        if len(self._heap) > 2 * len(self._pending) + 16:
            self._heap = [(prompt.number, prompt.id) for prompt in self._pending.values()]
            heapq.heapify(self._heap)
        return removed

    def clear(self) -> int:
        """Remove all pending prompts. Returns how many went."""
        return self.delete(list(self._pending))

    def running(self) -> list[Prompt]:
        """Running prompts, first started first."""
        return list(self._running.values())

    def pending(self) -> list[Prompt]:
        """Pending prompts in the order in which they will run."""
        return sorted(self._pending.values(), key=lambda prompt: (prompt.number, prompt.id))

    def record(self, prompt_id: str) -> str | None:
        """The history entry as JSON text, or None."""
        return self._history.get(prompt_id)

    def records(self, max_items: int | None = None, offset: int = -1) -> list[tuple[str, str]]:
        """A window of (id, entry), oldest first.

        `max_items` alone takes the latest; `offset` from 0 counts from the oldest, a negative one is none.
        """
        items = list(self._history.items())
        if max_items is None:
            return items if offset < 0 else items[offset:]
        start = max(0, len(items) - max_items) if offset < 0 else offset
        return items[start : start + max(0, max_items)]

    def forget(self, prompt_ids: Iterable[str]) -> None:
        """Remove history entries; other ids are ignored."""
        for prompt_id in prompt_ids:
            self._history.pop(prompt_id, None)

    def forget_all(self) -> None:
        """Empty the history."""
        self._history.clear()
