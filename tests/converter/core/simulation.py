"""An engine as far as one prompt can learn of it, on a clock that costs no time.

A queue, a worker, history and one socket, with everything that may be wrong with them (`Plan`). The tests of the pure
machines are its clients. Invariant: `Engine.ran`, `ended` and `records` are the truth, whatever anybody heard of it.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Any, Literal

from hypothesis import strategies as st

from converter.core.events import (
    Alive,
    Began,
    Cached,
    Entered,
    Executed,
    Failed,
    Interrupted,
    QueueView,
    Record,
    Released,
    Sight,
    Sound,
    Succeeded,
)
from converter.core.evidence import Accepted, Unanswered, Unseen

AHEAD = "ahead"
"""A stranger's prompt in the queue; every other one there is ours."""

FOREIGN = "foreign"
"""A prompt of which nothing is known but messages."""

End = Literal["success", "silent", "failed", "blocked", "cycle"]
Post = Literal["answered", "answer slow", "answer lost", "lost", "late"]
Deed = Callable[[], None]


@dataclass(frozen=True)
class Plan:
    """What will happen; seconds. Moments count from the submission, None is never.

    end: how our prompt ends if nobody meddles ("silent": without ui output). post: "late" is queued only after it was
    given up. ahead: how long a stranger's prompt before ours runs. gap: between the queue and the history. evicted: no
    record of ours is ever there; cleared: all records that there are go. twice, foreign: each message comes twice, and
    after the same one of another prompt. deaf: the socket stays open and silent, as one does when another client takes
    its id. cut: the socket breaks, which is noticed `notice` later. slow: what HTTP takes. stall: nothing is answered
    before; broken: all is answered 500. deleted, interrupted: somebody clears the queue, or stops what runs. hung: the
    worker does nothing more, from the start until the crash. crash: noticed `notice` after the engine is back, or at
    once if `supervised`.
    """

    seed: int = 0
    end: End = "success"
    nodes: tuple[float, ...] = (0.1,)
    post: Post = "answered"
    ahead: float | None = None
    latency: float = 0.001
    gap: float = 0.0
    evicted: bool = False
    cleared: float | None = None
    twice: bool = False
    foreign: bool = False
    deaf: float | None = None
    cut: float | None = None
    notice: float = 0.0
    slow: float = 0.002
    stall: tuple[float, float] | None = None
    broken: tuple[float, float] | None = None
    deleted: float | None = None
    interrupted: float | None = None
    hung: bool = False
    crash: float | None = None
    down: float = 1.0
    supervised: bool = False
    views: bool = True

    @property
    def quiet_at(self) -> float:
        """The moment after which nothing more befalls the engine, but for the work that it has."""
        moments = [self.deaf, self.cut, self.deleted, self.interrupted, self.cleared, self.crash]
        spans = [sum(self.stall or ()), sum(self.broken or ())]
        return max(spans + [moment for moment in moments if moment is not None]) + self.notice + self.down


MOMENTS = st.one_of(st.none(), st.sampled_from([0.0, 0.001, 0.003, 0.05, 0.1, 0.101, 0.5, 2.0, 6.0]), st.floats(0, 12))
SPANS = st.tuples(st.floats(0, 9), st.sampled_from([0.3, 2.0, 7.0]))
PLANS = st.builds(
    Plan,
    seed=st.integers(0, 2**32),
    end=st.sampled_from(["success", "success", "success", "silent", "failed", "blocked", "cycle"]),
    nodes=st.lists(st.sampled_from([0.0, 0.002, 0.1, 1.0, 8.0]), min_size=1, max_size=3).map(tuple),
    post=st.sampled_from(["answered", "answered", "answered", "answer slow", "answer lost", "lost", "late"]),
    ahead=st.sampled_from([None, None, 0.05, 3.0, 9.0]),
    latency=st.sampled_from([0.0, 0.001, 0.02]),
    gap=st.sampled_from([0.0, 0.0, 0.004, 0.3, 1.2]),
    evicted=st.sampled_from([False, False, False, True]),
    cleared=st.one_of(st.none(), st.none(), MOMENTS),
    twice=st.booleans(),
    foreign=st.booleans(),
    deaf=MOMENTS,
    cut=MOMENTS,
    notice=st.sampled_from([0.0, 0.3, 4.0]),
    slow=st.sampled_from([0.0, 0.002, 0.4]),
    stall=st.one_of(st.none(), st.none(), SPANS),
    broken=st.one_of(st.none(), st.none(), SPANS),
    deleted=st.one_of(st.none(), MOMENTS),
    interrupted=st.one_of(st.none(), MOMENTS),
    hung=st.sampled_from([False, False, False, True]),
    crash=st.one_of(st.none(), st.none(), MOMENTS),
    down=st.sampled_from([0.0, 0.5, 5.0]),
    supervised=st.booleans(),
    views=st.booleans(),
)


class Clock:
    """Simulated seconds, and what is to happen at which."""

    def __init__(self) -> None:
        self.now = 0.0
        self._agenda: list[tuple[float, int, Deed]] = []
        self._ids = count()

    def after(self, seconds: float, deed: Deed) -> None:
        """Have it done so much later; what is due at one moment is done in the order in which it was asked for."""
        heappush(self._agenda, (self.now + seconds, next(self._ids), deed))

    def run(self, done: Callable[[], bool], limit: float) -> None:
        """Let time pass until it is done, or nothing happens before the limit."""
        while not done() and self._agenda and self._agenda[0][0] <= limit:
            self.now, _, deed = heappop(self._agenda)
            deed()


@dataclass
class Engine:
    """The engine. `hear` gets what its socket brings; `gone`, `lost` and `back` are called when that is noticed."""

    clock: Clock
    plan: Plan
    hear: Callable[[str, Sound], None] = lambda prompt_id, sound: None
    lost: Deed = lambda: None
    back: Deed = lambda: None
    gone: Deed = lambda: None
    generation: int = 1
    alive: bool = True
    pending: list[str] = field(default_factory=list)
    running: str | None = None
    records: dict[str, Record] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    ended: dict[str, Record | None] = field(default_factory=dict)
    expected: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.plan.seed)
        self.socket: int | None = 1
        self._sockets = count(2)
        self._deaf = False
        self._heard_by: dict[str, int | None] = {}
        self._flags: set[str] = set()
        self._arrived = 0.0
        plan, after = self.plan, self.clock.after
        if plan.ahead is not None:
            self.pending.append(AHEAD)
            self._take()
        if plan.deaf is not None:
            after(plan.deaf, self._deafen)
        if plan.cut is not None:
            after(plan.cut, self._cut)
        if plan.deleted is not None:
            after(plan.deleted, self._clear_queue)
        if plan.interrupted is not None:
            after(plan.interrupted, self.stop_ours)
        if plan.cleared is not None:
            after(plan.cleared, self._clear_history)
        if plan.crash is not None:
            after(plan.crash, self._crash)

    # What others do -------------------------------------------------------------------------------------------------

    def _clear_queue(self) -> None:
        for prompt_id in list(self.pending):
            self.delete(prompt_id)

    def _clear_history(self) -> None:
        self.records = {}

    def stop_ours(self) -> None:
        """An interrupt that is not meant for the prompt of ours that runs, and hits it."""
        if self.running is not None and self.running != AHEAD:
            self.interrupt(self.running)

    # HTTP -----------------------------------------------------------------------------------------------------------

    def submit(self, prompt_id: str, reply: Callable[[Any], None], answer: object = Accepted()) -> None:
        """`POST /prompt`. A stalled engine gets to it a moment after it has answered others."""
        post, trip = self.plan.post, self._trip()
        self._heard_by[prompt_id] = self.socket
        if post == "lost":
            self.clock.after(trip, lambda: reply(Unanswered()))
            return
        self.expected.add(prompt_id)
        late = self.chance.uniform(0.0, 4.0) if post == "late" else self.chance.uniform(0, 0.05)
        if post == "late":
            self.clock.after(trip, lambda: reply(Unanswered()))

        generation = self.generation

        def arrive() -> None:
            self.expected.discard(prompt_id)
            # Nothing is between a supervised engine and us that would keep a request for the next one.
            refused = not self.alive or (self.plan.supervised and generation != self.generation)
            if not refused:
                self.pending.append(prompt_id)
                self._take()
            if post == "late":
                return
            word = Unanswered() if refused or post == "answer lost" else answer
            back = self.chance.choice([0.1, 3.0, 9.0]) if post == "answer slow" else self._trip()
            self.clock.after(back, lambda: reply(word))

        self.clock.after(trip + late, arrive)

    def look(self, prompt_id: str, reply: Callable[[Sight | Unseen], None]) -> None:
        """The queue, then the history."""
        asked_at = self.clock.now

        def read_queue() -> None:
            if self._fails():
                failed = Unseen(unreachable=not self.alive)
                self.clock.after(self._trip(), lambda: reply(failed))
                return
            running, pending = prompt_id == self.running, prompt_id in self.pending
            self.clock.after(self._trip(), lambda: read_history(running, pending))

        def read_history(running: bool, pending: bool) -> None:
            if self._fails():
                reply(Unseen(unreachable=not self.alive))
                return
            record = None if running or pending else self.records.get(prompt_id)
            self.clock.after(self._trip(), lambda: reply(Sight(asked_at, running, pending, record)))

        self.clock.after(self._trip(), read_queue)

    def view(self, reply: Callable[[QueueView], None]) -> None:
        """`GET /queue`; of one that fails nothing is heard."""
        asked_at = self.clock.now

        def read() -> None:
            if not self._fails():
                view = QueueView(asked_at, () if self.running is None else (self.running,), tuple(self.pending))
                self.clock.after(self._trip(), lambda: reply(view))

        self.clock.after(self._trip(), read)

    def withdraw(self, prompt_id: str, reply: Deed) -> None:
        """Delete or interrupt, whichever fits; it may come too early or too late for either."""

        def act() -> None:
            if not self._fails():
                self.delete(prompt_id)
                self.interrupt(prompt_id)
            self.clock.after(self._trip(), reply)

        self.clock.after(self._trip(), act)

    def holds(self, prompt_id: str) -> bool:
        """Whether the engine has the prompt, or will have it although nobody knows."""
        return prompt_id == self.running or prompt_id in self.pending or prompt_id in self.expected

    def delete(self, prompt_id: str) -> None:
        """Take a pending prompt out of the queue; no trace of it stays."""
        if prompt_id in self.pending:
            self.pending.remove(prompt_id)
            self.ended[prompt_id] = None

    def interrupt(self, prompt_id: str) -> None:
        """End a running prompt before its next node."""
        if prompt_id == self.running:
            self._flags.add(prompt_id)

    def _fails(self) -> bool:
        """Whether there is no answer, or a 500."""
        broken = self.plan.broken
        return not self.alive or (broken is not None and broken[0] <= self.clock.now < sum(broken))

    def _trip(self) -> float:
        """One way of a request or its answer."""
        trip, stall = self.chance.uniform(0, self.plan.slow), self.plan.stall
        if stall is not None and stall[0] <= self.clock.now + trip < sum(stall):
            trip = sum(stall) - self.clock.now
        return trip

    # The worker -----------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        if self.running is None and self.pending:
            self.running = prompt_id = self.pending.pop(0)
            self.ran.append(prompt_id)
            self._tell(prompt_id, Began())
            self._tell(prompt_id, Cached(()))
            if self.plan.hung and self.plan.crash is not None and self.generation == 1:
                return
            nodes = self.plan.nodes if prompt_id != AHEAD else (self.plan.ahead or 0.0,)
            self._run(prompt_id, nodes, {}, self.generation)

    def _run(self, prompt_id: str, nodes: tuple[float, ...], outputs: dict[str, Any], generation: int) -> None:
        if generation != self.generation:
            return
        if not nodes:
            self._finish(prompt_id, outputs)
        elif prompt_id in self._flags:
            self._tell(prompt_id, Interrupted("1"))
            self._settle(prompt_id, Record(False, outputs, interrupted=True))
        else:
            node = str(len(outputs))
            self._tell(prompt_id, Entered(node))

            def leave() -> None:
                if generation == self.generation:
                    output = {"images": [{"filename": f"{prompt_id}-{node}.png"}]}
                    if self.plan.end != "silent":
                        self._tell(prompt_id, Executed(node, output))
                    self._tell(prompt_id, Alive() if self.chance.random() < 0.5 else Executed(node, None))
                    self._run(prompt_id, nodes[1:], {**outputs, node: output}, generation)

            self.clock.after(nodes[0], leave)

    def _finish(self, prompt_id: str, outputs: dict[str, Any]) -> None:
        end = self.plan.end if prompt_id != AHEAD else "success"
        failure = Failed("1", "Node", "it broke", "ValueError", midway=end == "blocked")
        if end in ("failed", "blocked", "cycle"):
            self._tell(prompt_id, failure)
        if end in ("success", "silent", "blocked"):
            self._tell(prompt_id, Succeeded())
        broke = failure if end in ("failed", "cycle") else None
        self._settle(prompt_id, Record(end != "failed", {} if end == "silent" else outputs, failure=broke))

    def _settle(self, prompt_id: str, record: Record) -> None:
        self.ended[prompt_id] = record
        generation = self.generation

        def write() -> None:
            if generation == self.generation and not (self.plan.evicted and prompt_id != AHEAD):
                self.records[prompt_id] = record

        def release() -> None:
            if generation == self.generation:
                self.running = None
                self.clock.after(self.plan.gap, write) if self.plan.gap else write()
                self._tell(prompt_id, Released())
                self._take()

        self.clock.after(self.chance.uniform(0, 0.005), release)

    # The socket and the end ------------------------------------------------------------------------------------------

    def _tell(self, prompt_id: str, sound: Sound) -> None:
        """Most is told to the socket under which the prompt was submitted; progress and interrupts are told to all."""
        to_all = isinstance(sound, Alive | Interrupted)
        socket = self.socket if to_all else self._heard_by.get(prompt_id)
        if socket is None or socket != self.socket or self._deaf:
            return
        self._arrived = max(self._arrived, self.clock.now + self.chance.uniform(0, self.plan.latency))

        def deliver() -> None:
            if socket == self.socket:
                if self.plan.foreign:
                    self.hear(FOREIGN, sound)
                self.hear(prompt_id, sound)

        for _ in range(1 + self.plan.twice):
            self.clock.after(self._arrived - self.clock.now, deliver)

    def _deafen(self) -> None:
        self._deaf = True

    def _cut(self) -> None:
        """The socket is gone with what was under way on it."""
        self.socket, self._deaf = None, False
        self.clock.after(self.plan.notice, self.lost)
        self.clock.after(self.plan.notice + 0.1, self.renew)

    def renew(self) -> None:
        """Another socket: what is submitted from here on is heard on it."""
        self.socket, self._deaf = next(self._sockets), False
        self.back()

    def _crash(self) -> None:
        self.alive = False
        self.generation += 1
        for prompt_id in [*self.pending, *([self.running] if self.running else [])]:
            self.ended.setdefault(prompt_id, None)  # one that has told its end may be about to leave the queue
        self.pending, self.running, self.records = [], None, {}
        self._cut()
        if self.plan.supervised:
            self.expected.clear()
            self.clock.after(0.0, self.gone)
        else:
            self.clock.after(self.plan.down + self.plan.notice, self.gone)
        self.clock.after(self.plan.down, self._restart)

    def _restart(self) -> None:
        self.alive = True
        self._take()
