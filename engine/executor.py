"""The queue, and the threads that work it off.

For: everything that changes where a prompt is, each under one lock, with the messages that tell of it in the same
order. Leaves validation to `graph`, a prompt's nodes to `execution`, sending to whoever gives `send`.
Invariant: the history record of a prompt exists before its last event is sent; interrupting and cancelling hit the
prompt that was named or none; if a thread ends without having been told to, `on_end` is called.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

from engine.cache import Cache
from engine.errors import QueueFullError
from engine.execution import Execution, Workshop
from engine.graph import Valid
from engine.nodes.spec import Folders, Node
from engine.prompts import Prompt, Prompts
from engine.submission import Submission, refuse
from engine.wire import Message, dump, write_item, write_object, write_queue, write_status

_log = logging.getLogger(__name__)


class Executor:
    """Carries out prompts in the order of the queue, `concurrency` at once, each on a thread; a context manager.

    Prompts that run at once meet at the device, which lets them share passes. Each may hold `max_held` bytes of what
    its nodes have made. `unload` frees the memory of models, `on_end` is called on a thread that ends unasked. Every
    method may be called from any thread and returns at once.
    """

    def __init__(
        self,
        registry: Mapping[str, Node],
        folders: Folders,
        send: Callable[[Message], None],
        *,
        concurrency: int = 1,
        services: Mapping[type, object] | None = None,
        cache: Cache | None = None,
        history_size: int = 10_000,
        max_pending: int = 10_000,
        previews: bool = True,
        max_held: int = 4 << 30,
        unload: Callable[[], None] = lambda: None,
        on_end: Callable[[], None],
        patience: float = 2.0,
    ) -> None:
        cache = Cache() if cache is None else cache
        self._shop = Workshop(registry, folders, services or {}, cache, send, previews, max_held)
        self.concurrency = concurrency
        self._prompts = Prompts(history_size)
        self._executions: dict[str, Execution] = {}
        self._max_pending = max_pending
        self._unload = unload
        self._on_end = on_end
        self._patience = patience
        self._number = 0
        self._wanted: set[str] = set()  # what /free asked for: "models", "cache"
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._serve, name=f"executor {number}", daemon=True)
            for number in range(concurrency)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop: what runs is interrupted and given `patience` seconds in all to notice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.interrupt(None)
        deadline = time.monotonic() + self._patience
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def take_number(self, submission: Submission) -> float:
        """The place in the queue that a submission asks for. Counts also when the prompt is then refused."""
        if submission.number is not None:
            return submission.number
        number, self._number = self._number, self._number + 1
        return -number if submission.front else number

    def submit(self, submission: Submission, valid: Valid, number: float) -> Prompt:
        """Queue a valid prompt.

        Raises RefusedError when its id is pending or running, QueueFullError, and ValueError for what is no JSON.
        """
        prompt_id = submission.prompt_id or str(uuid.uuid4())
        graph_text = dump(valid.graph)
        item = write_item(number, prompt_id, graph_text, submission.extra_data, valid.targets)
        prompt = Prompt(number, prompt_id, valid.graph, submission.extra_data, valid.targets, graph_text, item)
        with self._changed:
            if self._prompts.knows(prompt_id):
                raise refuse("invalid_prompt_id", "prompt_id is in use by a pending or running prompt.", prompt_id)
            if self._prompts.waiting >= self._max_pending:
                raise QueueFullError("the queue is full")
            self._prompts.put(prompt)
            self._tell_status()
            self._changed.notify()
        return prompt

    def interrupt(self, prompt_id: str | None) -> None:
        """Stop a running prompt, or all that run when no id is given; any other id is ignored."""
        with self._changed:
            for running_id, execution in self._executions.items():
                if prompt_id in (None, running_id):
                    execution.interrupt()

    def cancel(self, prompt_id: str) -> bool:
        """Delete a pending prompt or interrupt a running one, whichever it is. Returns whether it was either."""
        with self._changed:
            if prompt_id in self._executions:
                self._executions[prompt_id].interrupt()
                return True
            return self._delete([prompt_id])

    def delete(self, prompt_ids: Iterable[str]) -> None:
        """Remove pending prompts; other ids are ignored."""
        with self._changed:
            self._delete(prompt_ids)

    def clear(self) -> None:
        """Remove all pending prompts."""
        with self._changed:
            self._prompts.clear()
            self._tell_status()

    def free(self, *, models: bool, cache: bool) -> None:
        """Free memory as soon as a thread is between two prompts: that of models, and that of cached results.

        Prompts that run keep what they use.
        """
        with self._changed:
            self._wanted |= ({"models"} if models else set()) | ({"cache"} if cache else set())
            self._changed.notify()

    def forget(self, prompt_ids: Iterable[str]) -> None:
        """Remove history entries; other ids are ignored."""
        with self._changed:
            self._prompts.forget(prompt_ids)

    def forget_all(self) -> None:
        """Empty the history."""
        with self._changed:
            self._prompts.forget_all()

    @property
    def remaining(self) -> int:
        """Prompts that are pending or running."""
        with self._changed:
            return self._prompts.remaining

    def write_queue(self) -> str:
        """The answer of GET /queue; pending prompts in the order in which they will run."""
        with self._changed:
            running, pending = self._prompts.running(), self._prompts.pending()
        return write_queue([prompt.item for prompt in running], [prompt.item for prompt in pending])

    def write_history(self, prompt_id: str) -> str:
        """The answer of GET /history/{prompt_id}."""
        with self._changed:
            record = self._prompts.record(prompt_id)
        return write_object([] if record is None else [(prompt_id, record)])

    def write_histories(self, max_items: int | None, offset: int) -> str:
        """The answer of GET /history; see `Prompts.records`."""
        with self._changed:
            records = self._prompts.records(max_items, offset)
        return write_object(records)

    def find_node(self, client: str) -> str | None:
        """The node that runs for a client."""
        with self._changed:
            nodes = [run.node_id for run in self._executions.values() if run.prompt.client == client]
        return nodes[-1] if nodes else None

    def _delete(self, prompt_ids: Iterable[str]) -> bool:
        removed = self._prompts.delete(prompt_ids)
        self._tell_status()
        return removed > 0

    def _tell_status(self) -> None:
        self._shop.send(Message(write_status(self._prompts.remaining), key=("status",)))

    def _serve(self) -> None:
        try:
            while (execution := self._take()) is not None:
                self._carry_out(execution)
        # The last boundary: nothing is left to catch it but the process itself, which ends.
        except BaseException:
            _log.critical("a thread of the executor has ended", exc_info=True)
        finally:
            if not self._closed:
                self._on_end()

    def _take(self) -> Execution | None:
        """Wait for the next prompt; None when closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._wanted or self._prompts.waiting)
                if self._closed:
                    return None
                wanted, self._wanted = self._wanted, set()
                prompt = None if wanted else self._prompts.take()
                if prompt is not None:
                    execution = self._executions[prompt.id] = Execution(prompt, self._shop)
                    self._tell_status()
                    return execution
            self._free(wanted)

    def _free(self, wanted: set[str]) -> None:
        if "models" in wanted:
            self._unload()
        if "cache" in wanted:
            self._shop.forget()

    def _carry_out(self, execution: Execution) -> None:
        _log.info("prompt %s begins", execution.prompt.id)
        outcome = execution.carry_out()
        _log.info("prompt %s ended: %s", execution.prompt.id, outcome.kind)
        with self._changed:
            alone = len(self._executions) == 1
        # Others that run keep the models which they use, so that forgetting these would only load them twice.
        if outcome.out_of_memory and alone:
            self._free({"models", "cache"})
        with self._changed:
            del self._executions[execution.prompt.id]
            self._prompts.finish(execution.prompt.id, outcome.record)
            execution.announce(outcome)
            self._tell_status()
            execution.announce_end()
