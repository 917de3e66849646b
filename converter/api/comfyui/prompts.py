"""Prompts: which jobs the clients of the passthrough have begun, and what these are told of them.

Leaves carrying them to `jobs`. Invariant: a job is known here for as long as it is known there, and no longer; nobody
sees a prompt of another API key.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Self

from converter.api.comfyui.ears import Ears
from converter.core import comfyui
from converter.core.comfyui import Tale
from converter.errors import Expired, Fault, NotFound
from converter.jobs import Jobs
from converter.runner import Run

MOST = 1000
"""Prompts that are known at once, at most."""

LOOK = 5.0
"""Seconds after which a job is looked at though nothing was heard of it."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as its client knows it. `outputs` are the ids of its output nodes, as far as they are known."""

    id: str
    number: int
    scope: str
    client_id: str
    outputs: tuple[str, ...]


class Prompts:
    """All prompts, as an async context manager that owns the tasks which follow them."""

    def __init__(self, jobs: Jobs, ears: Ears) -> None:
        self._jobs = jobs
        self._ears = ears
        self._known: OrderedDict[tuple[str, str], Prompt] = OrderedDict()
        self._numbers = count()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def add(self, run: Run, client_id: str) -> Prompt:
        """A job that a client has begun; it is told what becomes of it."""
        order = run.order
        prompt = Prompt(run.id, next(self._numbers), order.scope, client_id, order.foreseen)
        self._known[order.scope, run.id] = prompt
        while len(self._known) > MOST:
            self._known.popitem(last=False)
        task = asyncio.create_task(self._follow(prompt, run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return prompt

    def forget(self, prompt: Prompt) -> None:
        """The prompt leaves no trace."""
        self._known.pop((prompt.scope, prompt.id), None)

    def find(self, scope: str, prompt_id: str) -> tuple[Prompt, Run] | None:
        """A prompt by its id."""
        prompt = self._known.get((scope, prompt_id))
        if prompt is None:
            return None
        try:
            return prompt, self._jobs.find(prompt_id, scope)
        except (NotFound, Expired):
            self.forget(prompt)
            return None

    def all_of(self, scope: str, client_id: str | None) -> list[tuple[Prompt, Run]]:
        """All of an API key, or of one client of it, oldest first."""
        return list(self._iterate(scope, client_id))

    def _iterate(self, scope: str, client_id: str | None) -> Iterator[tuple[Prompt, Run]]:
        for prompt in list(self._known.values()):
            if prompt.scope == scope and client_id in (None, prompt.client_id):
                found = self.find(scope, prompt.id)
                if found is not None:
                    yield found

    def remaining(self, scope: str, client_id: str | None) -> int:
        """How many have not ended."""
        return sum(not run.outcome.done() for _, run in self._iterate(scope, client_id))

    async def _follow(self, prompt: Prompt, run: Run) -> None:
        tale, sequence = Tale(prompt.id), 0
        self._count(prompt)
        with run.watched():
            while not run.chronicle.ended:
                for entry in run.chronicle.since(sequence):
                    sequence = entry.sequence
                    if entry.event not in ("result", "error"):
                        tale, messages = comfyui.tell(tale, entry.event, entry.data, _now())
                        self._tell(prompt, messages)
                if not run.chronicle.ended:
                    await run.chronicle.growth(LOOK)
        if (prompt.scope, prompt.id) in self._known:
            *messages, last = comfyui.conclude(tale, fault_of(run), run.outputs, _now())
            self._tell(prompt, messages)
            self._count(prompt)
            self._tell(prompt, [last])

    def _count(self, prompt: Prompt) -> None:
        self._tell(prompt, [comfyui.count(self.remaining(prompt.scope, prompt.client_id))])

    def _tell(self, prompt: Prompt, messages: list[Any]) -> None:
        for message in messages:
            self._ears.tell((prompt.scope, prompt.client_id), message)


def fault_of(run: Run) -> Fault | None:
    """Why a job that has ended failed, if it did."""
    outcome = run.outcome.result()
    return outcome if isinstance(outcome, Fault) else None


def _now() -> int:
    return round(time.time() * 1000)
