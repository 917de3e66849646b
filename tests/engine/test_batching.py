"""Which requests share a pass: one key, in order, within the bound, and never nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.batching import Bounds, choose


@dataclass(frozen=True)
class Request:
    key: str | int | None
    rows: int = 1
    weight: float = 1.0


REQUESTS = st.lists(st.builds(Request, st.sampled_from(["a", "b", None]), st.integers(1, 9)), max_size=12)
HEAVY = 2.5


@given(REQUESTS, st.integers(1, 16))
def test_a_batch_is_of_one_key_in_order_within_its_bound(waiting: list[Request], most: int) -> None:
    chosen = choose(waiting, lambda request: most)
    assert bool(chosen) == bool(waiting)
    if not waiting:
        return
    assert chosen[0] == 0, "oldest first"
    assert chosen == sorted(set(chosen))
    batch = [waiting[place] for place in chosen]
    assert {request.key for request in batch} == {waiting[0].key}
    if waiting[0].key is None:
        assert len(batch) == 1
    rows = sum(request.rows for request in batch)
    assert rows <= max(most, waiting[0].rows)
    left = [r for place, r in enumerate(waiting) if place not in chosen and r.key == waiting[0].key is not None]
    if left:
        assert rows + left[0].rows > most, "nobody who fits is left behind"
        own = [place for place, request in enumerate(waiting) if request.key == waiting[0].key]
        assert own[: len(chosen)] == chosen, "nobody of the same key overtakes"


@given(REQUESTS, st.integers(1, 16))
def test_everybody_gets_a_turn(waiting: list[Request], most: int) -> None:
    turns = 0
    left = list(waiting)
    while left:
        chosen = choose(left, lambda request: most)
        left = [request for place, request in enumerate(left) if place not in chosen]
        turns += 1
    assert turns <= len(waiting)


class BoundsMachine(RuleBasedStateMachine):
    """A bound stays between 1 and the most, whatever happens, and what one key learns is not another's."""

    requests: ClassVar = {key: Request(key, weight=weight) for key, weight in (("a", 1.0), ("b", HEAVY), ("c", 1.0))}
    most: ClassVar = {"a": 16, "b": 6, "c": 16}

    def __init__(self) -> None:
        super().__init__()
        self.bounds = Bounds(16)

    @rule(key=st.sampled_from("ab"), rows=st.integers(1, 40))
    def run_out(self, key: str, rows: int) -> None:
        before = self.bounds.bound(self.requests[key])
        self.bounds.shrink(self.requests[key], rows)
        assert self.bounds.bound(self.requests[key]) <= max(1, before // 2)
        assert self.bounds.bound(self.requests[key]) <= max(1, rows // 2)

    @rule(key=st.sampled_from("ab"), rows=st.integers(1, 40))
    def go_well(self, key: str, rows: int) -> None:
        before = self.bounds.bound(self.requests[key])
        self.bounds.confirm(self.requests[key], rows)
        assert self.bounds.bound(self.requests[key]) in (before, min(self.most[key], 2 * before))

    @invariant()
    def stays_in_bounds(self) -> None:
        assert all(1 <= self.bounds.bound(request) <= self.most[key] for key, request in self.requests.items())
        assert self.bounds.bound(self.requests["c"]) == 16


TestBounds = BoundsMachine.TestCase


def test_what_memory_took_is_won_back_by_full_passes() -> None:
    bounds, request = Bounds(16), Request("a")
    bounds.shrink(request, 8)
    assert bounds.bound(request) == 4
    for _ in range(1000):
        bounds.confirm(request, 3)
    assert bounds.bound(request) == 4, "passes that are not full prove nothing"
    for _ in range(1000):
        bounds.confirm(request, bounds.bound(request))
    assert bounds.bound(request) == 16


@given(st.floats(1, 1000), st.integers(1, 64))
def test_rows_that_weigh_more_share_passes_of_fewer(weight: float, most: int) -> None:
    rows = Bounds(most).bound(Request("a", weight=weight))
    assert rows == 1 or rows * weight <= most
    assert (rows + 1) * weight > most, "and of as many as the weight allows"


def test_bounds_of_few_keys_are_remembered() -> None:
    bounds = Bounds(16)
    for key in range(100):
        bounds.shrink(Request(key), 8)
    assert bounds.bound(Request(0)) == 16
    assert bounds.bound(Request(99)) == 4
