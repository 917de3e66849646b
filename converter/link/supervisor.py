"""Keeps the engine process alive: starts it, starts it again when it died or when asked to, and stops it at the end.

`core/restarts.py` decides when to start again and when to give up, `child.py` runs one life of the process. The
command's output goes to the logger `converter.engine`, line by line; what the events mean for readiness and for jobs
is left to the caller.

Invariants: at most one child lives at a time; every `Started` is followed by one `Exited` of the same generation,
unless the stop itself is canceled; after the context nothing of any child is left, in a time bounded by the patience.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from converter.core import restarts
from converter.core.restarts import Policy, Restarts, StartAfter
from converter.link.child import Ending, run_child

TAIL = 50
"""Lines of output that are kept for error reports."""

Cause = Literal["death", "restart", "stop"]
"""Why a child is gone: by itself, because a restart was asked for, or because the supervisor stops."""

logger = logging.getLogger("converter.engine")


@dataclass(frozen=True, slots=True)
class Started:
    """The command runs, which does not mean that it answers; `pid` is its own, generations count from 1."""

    pid: int
    generation: int


@dataclass(frozen=True, slots=True)
class Exited:
    """A child is gone, with all of its group, or could not be started (then there was no `Started`).

    `status` is its exit status (negative: the signal that killed it), or None if it has none or it is not known;
    `reason` says in words for the log what happened. After `restart_in` seconds the next child is started; None if
    there will be none. `last_line` is what it wrote last, which may be anything; empty if it wrote nothing.
    """

    generation: int
    status: int | None
    cause: Cause
    reason: str
    restart_in: float | None
    last_line: str = ""


@dataclass(frozen=True, slots=True)
class BudgetSpent:
    """The engine died too often; it is not started again."""


Event = Started | Exited | BudgetSpent


@dataclass(slots=True)
class _Life:
    """One child: the signal to stop it, the sign that it is gone, why a restart was asked for, what it wrote last."""

    generation: int
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    wish: str | None = None
    pid: int | None = None
    last_line: str = ""


class Supervisor:
    """Runs the command as long as the context is open.

    `environment` is the whole environment of the child. `on_event` is called in the event loop, in order, and must
    not block; an error that it raises ends the context. `patience` is in seconds, between SIGTERM and SIGKILL.
    `scratch` is a folder of the child's own, which its guard removes if we are killed. Leaving the context takes at
    most the patience and a few seconds.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        policy: Policy,
        on_event: Callable[[Event], None],
        *,
        patience: float = 5.0,
        scratch: str = "",
    ) -> None:
        self._command = tuple(command)
        self._environment = dict(environment)
        self._patience = patience
        self._scratch = scratch
        self._on_event = on_event
        self._restarts = Restarts.begin(policy)
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._closing = asyncio.Event()
        self._life: _Life | None = None
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.create_task(self._supervise())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._life is not None:
            self._life.stop.set()
        # The group is not told of the body's error: it would cancel the child's orderly end.
        await self._tasks.__aexit__(None, None, None)

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines of output, over all generations, oldest first."""
        return tuple(self._tail)

    @property
    def pid(self) -> int | None:
        """The process id of the command, while it runs."""
        return self._life.pid if self._life else None

    def confirm_warm(self, generation: int) -> None:
        """The child of this generation has completed its warm-up; from here on it can become a success."""
        if self._life and self._life.generation == generation:
            self._advance(restarts.Warmed())

    def retire(self) -> None:
        """Nobody needs another engine: one that lives goes on, one that is dead or dies is not started again."""
        self._closing.set()

    async def restart(self, reason: str, *, generation: int | None = None) -> None:
        """Stop the child and start it again, as after a death; returns when it is gone.

        Nothing happens if no child runs, or another than that of the `generation` for which the restart was meant.
        """
        life = self._life
        if life is None or generation not in (None, life.generation):
            return
        if life.wish is None:
            life.wish = reason
        life.stop.set()
        await life.gone.wait()

    async def _supervise(self) -> None:
        generation = 0
        while not self._closing.is_set():
            generation += 1
            life = self._life = _Life(generation)
            self._advance(restarts.Launched())
            try:
                ending = await run_child(
                    self._command, self._environment, self._patience, life.stop, self._started, self._log, self._scratch
                )
            finally:
                self._life = None
                life.gone.set()
            delay = self._bury(life, ending)
            if delay is None:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._closing.wait()

    def _bury(self, life: _Life, ending: Ending) -> float | None:
        """Say that the child is gone; the seconds until the next is started, None if there will be none."""
        if self._closing.is_set():
            self._on_event(Exited(life.generation, ending.status, "stop", ending.reason, None, life.last_line))
            return None
        delay = None
        for effect in self._advance(restarts.Died(random.random())):
            if isinstance(effect, StartAfter):
                delay = effect.delay
        cause: Cause = "death" if life.wish is None else "restart"
        reason = ending.reason if life.wish is None else f"{ending.reason} (restart: {life.wish})"
        self._on_event(Exited(life.generation, ending.status, cause, reason, delay, life.last_line))
        if delay is None:
            self._on_event(BudgetSpent())
        return delay

    def _advance(self, event: restarts.Event) -> tuple[restarts.Effect, ...]:
        now = asyncio.get_running_loop().time()
        self._restarts, effects = restarts.step(self._restarts, event, now)
        return effects

    def _started(self, pid: int) -> None:
        if self._life is not None:
            self._life.pid = pid
            self._on_event(Started(pid, self._life.generation))

    def _log(self, line: str) -> None:
        self._tail.append(line)
        if self._life is not None:
            self._life.last_line = line
        logger.info("%s", line)
