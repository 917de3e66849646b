"""A fleet without processes: replicas made of the machines that decide in the real ones, and a load balancer.

Orders come by chance (Poisson), at a share of what the fleet can do. `core.admission` says who is admitted and when an
order has its turn, `core.readiness` whether a replica is ready; an engine runs one prompt at a time and has the next
at hand. The load balancer learns by probes, each replica's at its own moment. Time costs nothing here, and neither do
networks, processes and the converter itself: what they add is shown by real processes beside it. Leaves what is
simulated to `fleet`. Invariant: the same scene gives the same figures.
"""

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from converter.core import admission, readiness
from converter.core.admission import Admission
from converter.core.readiness import Readiness

Balance = Literal["round robin", "least connections"]
Steering = Literal["none", "readiness", "retries"]

SIGMA = 1.0
"""Of the logarithms of service times: the slowest in a hundred takes six times the mean, one in a thousand 13 times."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is simulated; times are in seconds.

    balance: how the load balancer chooses. steering: what it knows of full replicas: nothing; what `/readyz` says (one
    that is full is not ready); or their refusals, after which it asks another replica. capacity: of each replica.
    slowness: by how much each replica is slower than the fastest. load: what comes, as a share of what all can do.
    service: the mean of what a prompt takes on the fastest. probe: between two probes. timeout: of each order.
    """

    balance: Balance
    steering: Steering
    capacity: int
    load: float
    slowness: tuple[float, ...] = (1.0, 1.0, 1.0)
    service: float = 2.0
    probe: float = 2.0
    timeout: float = 95.0
    orders: int = 20_000
    seed: int = 1

    @property
    def rate(self) -> float:
        """Orders a second."""
        return self.load * sum(1 / (self.service * slow) for slow in self.slowness)


@dataclass(slots=True)
class Result:
    """What became of a scene.

    latencies: of those served, in seconds. refused: by code, and those whose time was up. seconds: until the end.
    used: the share of time for which engines were, on average.
    """

    latencies: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    used: float = 0.0

    @property
    def refusals(self) -> float:
        """The share of orders that were refused."""
        return self.refused.total() / (self.refused.total() + len(self.latencies))


class _Replica:
    """One converter with its engine."""

    def __init__(self, capacity: int, slowness: float) -> None:
        self.seen_ready = True
        self.used = 0.0
        self.held: dict[str, tuple[float, float]] = {}  # by ticket: when it came, and what it takes
        self._slowness = slowness
        self._pending: list[str] = []
        self._running: tuple[str, float] | None = None  # and since when
        self._admission = Admission(admission.Limits(capacity, capacity), open=True)
        self._readiness = Readiness(readiness.Limits(busy_at=capacity, ready_at=capacity * 3 // 4), since=0.0)

    def ready(self) -> bool:
        """Whether it has room, with the hysteresis of the real one; its engine is always fit."""
        return not self._readiness.busy

    def offer(self, ticket: str, seconds: float, deadline: float, now: float) -> str | None:
        """An order comes; the code with which it is refused, None where it is admitted."""
        for effect in self._step(admission.Apply(ticket, 0, deadline), now):
            if isinstance(effect, admission.Refused):
                return effect.code
        self.held[ticket] = now, seconds * self._slowness
        self._step(admission.Ready(ticket), now)
        return None

    def begin(self, now: float) -> tuple[str, float] | None:
        """The prompt that the engine begins with, if it is idle and has one; and when it will be done."""
        if self._running is not None or not self._pending:
            return None
        self._running = self._pending.pop(0), now
        return self._running[0], now + self.held[self._running[0]][1]

    def leave(self, ticket: str, now: float, *, done: bool) -> float | None:
        """An order is done, or its time is up: when it came, None if it isn't there any more."""
        if ticket not in self.held:
            return None
        came, _ = self.held.pop(ticket)
        if self._running is not None and self._running[0] == ticket:
            self.used += now - self._running[1]
            if done:
                self._step(admission.Served(now - self._running[1]), now)
            self._running = None
        elif ticket in self._pending:
            self._pending.remove(ticket)
        self._step(admission.Depart(ticket), now)
        return came

    def _step(self, event: admission.Event, now: float) -> tuple[admission.Effect, ...]:
        self._admission, effects = admission.step(self._admission, event, now)
        self._pending += [effect.ticket_id for effect in effects if isinstance(effect, admission.Turn)]
        depth = readiness.Depth(admission.depth(self._admission))
        self._readiness, _ = readiness.step(self._readiness, depth, now)
        return effects


def simulate(scene: Scene) -> Result:
    """Let all orders of a scene come, and all that are admitted be done."""
    chance = random.Random(scene.seed)
    fleet = [_Replica(scene.capacity, slow) for slow in scene.slowness]
    choose = _chooser(scene, fleet)
    result, agenda, line = Result(), list[tuple[float, int, str, int, str]](), count()

    def plan(at: float, what: str, number: int = 0, ticket: str = "") -> None:
        heapq.heappush(agenda, (at, next(line), what, number, ticket))

    def order(ticket: str) -> int | None:
        seconds, code = draw(chance, scene.service), None
        for number in choose():
            code = fleet[number].offer(ticket, seconds, now + scene.timeout, now)
            if code is None:
                plan(now + scene.timeout, "late", number, ticket)
                return number
        result.refused[str(code)] += 1
        return None

    last = 0.0
    for name in range(scene.orders):
        last += chance.expovariate(scene.rate)
        plan(last, "order", ticket=str(name))
    for number in range(len(fleet)):
        plan(chance.uniform(0, scene.probe), "probe", number)
    while agenda:
        now, _, what, number, ticket = heapq.heappop(agenda)
        replica: int | None = number
        if what == "probe":
            fleet[number].seen_ready = fleet[number].ready()
            if now < last:
                plan(now + scene.probe, "probe", number)
        elif what == "order":
            replica = order(ticket)
        elif (came := fleet[number].leave(ticket, now, done=what == "done")) is not None:
            if what == "done":
                result.latencies.append(now - came)
            else:
                result.refused["deadline_exceeded"] += 1
            result.seconds = now
        if replica is not None and (begun := fleet[replica].begin(now)) is not None:
            plan(begun[1], "done", replica, begun[0])
    result.used = sum(one.used for one in fleet) / len(fleet) / result.seconds
    return result


def draw(chance: random.Random, mean: float) -> float:
    """A service time: log-normal, so that a few are much longer than most."""
    return chance.lognormvariate(math.log(mean) - SIGMA**2 / 2, SIGMA)


def _chooser(scene: Scene, fleet: list[_Replica]) -> Callable[[], Iterator[int]]:
    """Whom the load balancer asks for an order, one after the other until one takes it."""
    turn = count()

    def choose() -> Iterator[int]:
        start = next(turn)
        numbers = [(start + step) % len(fleet) for step in range(len(fleet))]
        if scene.steering == "readiness":
            numbers = [number for number in numbers if fleet[number].seen_ready] or numbers
        if scene.balance == "least connections":
            numbers.sort(key=lambda number: len(fleet[number].held))
        yield from numbers if scene.steering == "retries" else numbers[:1]

    return choose
