"""The fake engine's queue and history, lost at each restart, with the shapes and the oddities of ComfyUI 0.3.64.

A prompt is in exactly one of pending, running and history, or was deleted without a trace. The heap compares items
as ComfyUI's does: two pending items of equal number and id raise TypeError when their graphs are compared, and stay
in it nevertheless.
"""

import copy
import heapq
from dataclasses import dataclass, field
from typing import Any

Item = tuple[float, str, dict[str, Any], Any, list[str]]
"""number, prompt id, graph, extra_data, outputs to execute."""

SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")


@dataclass
class Prompts:
    pending: list[Item] = field(default_factory=list)
    running: Item | None = None
    history: dict[str, dict[str, Any]] = field(default_factory=dict)
    counter: int = 0

    @property
    def remaining(self) -> int:
        """Pending and running, as `status` tells it."""
        return len(self.pending) + (self.running is not None)

    def next_number(self) -> int:
        """Taken by each post that gives no number, refused ones too."""
        self.counter += 1
        return self.counter - 1

    def put(self, item: Item) -> None:
        heapq.heappush(self.pending, item)

    def take(self) -> Item:
        """The next item, now running; raises TypeError where ComfyUI's worker would die of the comparison."""
        self.running = heapq.heappop(self.pending)
        return self.running

    def delete(self, prompt_id: str) -> bool:
        """Removes the first pending item of that id, if any."""
        for item in self.pending:
            if item[1] == prompt_id:
                self.pending.remove(item)
                heapq.heapify(self.pending)
                return True
        return False

    def clear(self) -> None:
        self.pending.clear()

    def listing(self, *, recent: bool) -> dict[str, list[Any]]:
        """`GET /queue`: running items are copies, pending ones in heap order, not sorted. 0.3.64 shows the secrets."""
        running = [] if self.running is None else [self.running]
        lists = {"queue_running": running, "queue_pending": self.pending}
        return {name: [list(hide(item) if recent else item) for item in items] for name, items in lists.items()}

    def finish(self, status: dict[str, Any], outputs: dict[str, Any], *, keep: bool) -> None:
        """The running item becomes a history entry."""
        assert self.running is not None
        item, self.running = self.running, None
        meta = {
            node: {"node_id": node, "display_node": node, "parent_node": None, "real_node_id": node} for node in outputs
        }
        if keep:
            prompt = list(hide(copy.deepcopy(item)))
            self.history[item[1]] = {"prompt": prompt, "outputs": outputs, "status": status, "meta": meta}

    def page(self, max_items: int | None, offset: int) -> dict[str, Any]:
        """`GET /history`: the last ones, oldest first, unless an offset from the oldest is given."""
        items = list(self.history.items())
        if max_items is not None:
            start = len(items) - max_items if offset < 0 else offset
            items = items[max(start, 0) :][:max_items]
        elif offset > 0:
            items = items[offset:]
        return dict(items)


def hide(item: Item) -> Item:
    """The item without its secrets."""
    number, prompt_id, graph, extra_data, outputs = item
    kept = {key: value for key, value in (extra_data or {}).items() if key not in SECRETS}
    return number, prompt_id, graph, kept, outputs
