"""Admission: each sentence of its rules by example, and its invariants under any schedule, against a naive model."""

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from converter.core.admission import (
    ALPHA,
    UNMEASURED,
    Admission,
    Admitted,
    Apply,
    Depart,
    Effect,
    Engine,
    Event,
    Evicted,
    Knock,
    LetGo,
    Limits,
    Ready,
    Refused,
    Requeue,
    Resize,
    Served,
    Strangers,
    Turn,
    ahead,
    depth,
    estimate,
    position,
    retry_after,
    step,
    wait_ahead,
)

LATE = 1e9
"""A deadline that never matters."""


def play(state: Admission, *events: Event, now: float = 0.0) -> tuple[Admission, list[Effect]]:
    """Feed events in a row; the effects of all."""
    told: list[Effect] = []
    for event in events:
        state, effects = step(state, event, now)
        told.extend(effects)
    return state, told


def desk(capacity: int = 4, *, busy_at: int = 0, engine_depth: int = 2, parallel: int = 1) -> Admission:
    return Admission(Limits(capacity, busy_at or capacity, engine_depth, parallel), open=True)


def order(ticket_id: str, priority: int = 0, deadline: float = LATE) -> list[Event]:
    """Knock, apply and be ready, as an order without inputs does."""
    return [Knock(ticket_id), Apply(ticket_id, priority, deadline), Ready(ticket_id)]


def queue(state: Admission, *ticket_ids: str, priority: int = 0) -> Admission:
    for ticket_id in ticket_ids:
        state, told = play(state, *order(ticket_id, priority))
        assert Admitted(ticket_id) in told
    return state


def refusals(told: list[Effect]) -> list[tuple[str, str]]:
    return [(effect.ticket_id, effect.code) for effect in told if isinstance(effect, Refused)]


def turns(told: list[Effect]) -> list[str]:
    return [effect.ticket_id for effect in told if isinstance(effect, Turn)]


class TestTickets:
    def test_an_order_is_admitted_and_given_a_turn_once_it_is_ready(self) -> None:
        state, told = play(desk(), Knock("a"), Apply("a", 0, LATE))
        assert told == [Admitted("a")]
        state, told = play(state, Ready("a"))
        assert told == [Turn("a")]

    def test_an_order_may_apply_without_having_knocked(self) -> None:
        assert play(desk(), Apply("a", 0, LATE))[1] == [Admitted("a")]

    @pytest.mark.parametrize("knocks", [True, False])
    def test_of_a_burst_exactly_the_surplus_is_refused(self, knocks: bool) -> None:
        state, told = desk(2), []
        for number in range(12):
            events = order(str(number)) if knocks else [Apply(str(number), 0, LATE)]
            state, effects = play(state, *events)
            told += effects
        expected = [(str(number), "queue_full") for number in range(2, 12)]
        assert sorted(set(refusals(told))) == sorted(expected)
        assert depth(state) == 2

    def test_a_provisional_ticket_counts(self) -> None:
        state, _ = play(desk(1), Knock("a"))
        assert depth(state) == 1
        assert refusals(play(state, Knock("b"))[1]) == [("b", "queue_full")]

    def test_a_knocked_ticket_keeps_its_place_though_strangers_come(self) -> None:
        _, told = play(desk(1), Knock("a"), Strangers(5), Apply("a", 0, LATE))
        assert told == [Admitted("a")]

    def test_strangers_take_places(self) -> None:
        state, told = play(desk(3), Strangers(2), Apply("a", 0, LATE), Apply("b", 0, LATE))
        assert refusals(told) == [("b", "queue_full")]
        assert play(state, Strangers(1), Apply("c", 0, LATE))[1] == [Admitted("c")]

    def test_a_ticket_counts_until_it_departs_though_its_turn_is_over(self) -> None:
        state = queue(desk(1), "a")
        state, told = play(state, LetGo("a"), Knock("b"))
        assert refusals(told) == [("b", "queue_full")]
        assert play(state, Depart("a"), Apply("b", 0, LATE))[1] == [Admitted("b")]

    def test_a_refused_order_holds_nothing(self) -> None:
        state, told = play(desk(2, busy_at=1), Apply("a", 0, LATE), Knock("b"), Apply("b", -1, LATE))
        assert refusals(told) == [("b", "shed")]
        assert depth(state) == 1
        assert play(state, Ready("b"), Depart("b")) == (state, [])

    def test_a_departed_provisional_ticket_frees_its_place(self) -> None:
        state, _ = play(desk(1), Knock("a"), Depart("a"))
        assert play(state, Knock("b"), Apply("b", 0, LATE))[1] == [Admitted("b")]

    def test_no_place_is_lost_in_a_thousand_mixed_endings(self) -> None:
        chance = random.Random(7)
        state = desk(3)
        for number in range(1000):
            name = str(number)
            end: list[Event] = [*order(name), LetGo(name), Depart(name)]
            ways: list[list[Event]] = [[Knock(name), Depart(name)], [*order(name), Depart(name)], end]
            ways.append([*order(name), Requeue(name, True), Depart(name), Depart(name), LetGo(name)])
            state, _ = play(state, *chance.choice(ways))
        assert state == desk(3)._replace(arrivals=state.arrivals)

    def test_a_shrunk_capacity_takes_nothing_from_those_inside(self) -> None:
        state = queue(desk(3), "a", "b", "c")
        state, told = play(state, Resize(Limits(1, 1)))
        assert told == []
        assert depth(state) == 3
        assert refusals(play(state, Depart("a"), Depart("b"), Knock("d"))[1]) == [("d", "queue_full")]


class TestShedding:
    def test_negative_priorities_are_shed_from_busy_at_on_and_others_are_not(self) -> None:
        state = queue(desk(4, busy_at=2), "a", "b")
        assert refusals(play(state, Apply("c", -1, LATE))[1]) == [("c", "shed")]
        assert play(state, Apply("c", 0, LATE))[1] == [Admitted("c")]

    def test_below_busy_at_a_negative_priority_is_admitted(self) -> None:
        assert Admitted("b") in play(queue(desk(4, busy_at=2), "a"), Apply("b", -1, LATE))[1]

    def test_a_knocked_negative_order_does_not_count_itself(self) -> None:
        _, told = play(desk(2, busy_at=1), Knock("a"), Apply("a", -1, LATE))
        assert told == [Admitted("a")]

    def test_the_lowest_and_of_those_the_latest_is_evicted(self) -> None:
        state, _ = play(desk(5, engine_depth=1), *order("running"))
        for name, priority in (("a", -1), ("b", -2), ("c", -2), ("d", -1)):
            state = queue(state, name, priority=priority)
        state, told = play(state, Apply("x", 0, LATE))
        assert told == [Evicted("c", 5 * UNMEASURED), Admitted("x")]
        state, told = play(state, Apply("y", 5, LATE))
        assert [type(effect) for effect in told] == [Evicted, Admitted]
        assert told[0] == Evicted("b", 5 * UNMEASURED)
        assert depth(state) == 5

    def test_what_still_stages_its_inputs_waits_and_can_be_evicted(self) -> None:
        _, told = play(desk(1), Apply("a", -1, LATE), Apply("b", 0, LATE))
        assert told[1:] == [Evicted("a", UNMEASURED), Admitted("b")]

    def test_neither_what_has_a_turn_nor_what_is_not_negative_is_evicted(self) -> None:
        state = queue(queue(desk(3, engine_depth=1), "a", priority=-1), "b", "c")
        assert refusals(play(state, Knock("d"))[1]) == [("d", "queue_full")]
        assert refusals(play(state, Apply("d", 9, LATE))[1]) == [("d", "queue_full")]

    def test_a_negative_order_evicts_nobody(self) -> None:
        state = queue(desk(1, engine_depth=0), "a", priority=-5)
        assert refusals(play(state, Apply("b", -1, LATE))[1]) == [("b", "shed")]

    def test_nobody_is_evicted_for_an_order_that_can_not_meet_its_deadline(self) -> None:
        state, _ = play(desk(2, engine_depth=1), Served(10), *order("a"), *order("b", -1))
        _, told = play(state, Apply("c", 0, 15.0))
        assert refusals(told) == [("c", "deadline_unmeetable")]
        assert len(told) == 1

    def test_the_evicted_ticket_is_gone(self) -> None:
        state, _ = play(desk(1, engine_depth=0), *order("a", -1), Apply("b", 0, LATE))
        assert play(state, Ready("a"), Depart("a"), Requeue("a"))[0] == state


class TestClaims:
    """Provisional tickets beyond capacity."""

    @pytest.fixture
    def full(self) -> Admission:
        """Capacity 3: one of priority 0 at the engine, two of priority -1 waiting."""
        return queue(queue(desk(3, engine_depth=1), "run"), "low1", "low2", priority=-1)

    def test_each_needs_an_evictable_ticket_of_its_own(self, full: Admission) -> None:
        _, told = play(full, Knock("a"), Knock("b"), Knock("c"))
        assert refusals(told) == [("c", "queue_full")]

    def test_a_claim_is_settled_by_an_eviction(self, full: Admission) -> None:
        _, told = play(full, Knock("a"), Apply("a", 0, LATE))
        assert [effect.ticket_id for effect in told] == ["low2", "a"]

    def test_a_claim_of_a_negative_order_is_refused(self, full: Admission) -> None:
        state, told = play(full, Knock("a"), Apply("a", -1, LATE))
        assert refusals(told) == [("a", "shed")]
        assert state == full

    def test_a_claim_is_refused_when_nobody_can_be_evicted_any_more(self, full: Admission) -> None:
        state, _ = play(full, Knock("a"), Resize(Limits(3, 3, engine_depth=3)))
        assert refusals(play(state, Apply("a", 0, LATE))[1]) == [("a", "queue_full")]

    def test_a_place_that_becomes_free_goes_to_the_earliest_claim(self, full: Admission) -> None:
        state, _ = play(full, Knock("a"), Knock("b"), Depart("run"))
        assert (state.reading, state.claiming) == (("a",), ("b",))
        assert play(state, Apply("a", 0, LATE))[1] == [Admitted("a")]

    def test_who_has_not_knocked_takes_nobody_that_is_claimed(self, full: Admission) -> None:
        state, _ = play(full, Knock("a"), Knock("b"))
        assert refusals(play(state, Apply("c", 0, LATE))[1]) == [("c", "queue_full")]
        assert Evicted("low2", 3 * UNMEASURED) in play(state, Depart("b"), Apply("c", 0, LATE))[1]

    def test_who_has_a_place_evicts_nobody_though_others_claim(self) -> None:
        state, _ = play(desk(2, engine_depth=0), *order("low", -1), Knock("a"), Knock("b"))
        assert state.claiming == ("b",)
        state, told = play(state, Apply("a", 0, LATE))
        assert told == [Admitted("a")]
        assert play(state, Depart("b"))[0].waiting.keys() == {"low", "a"}

    def test_claims_do_not_deepen_the_queue(self, full: Admission) -> None:
        assert depth(play(full, Knock("a"), Knock("b"))[0]) == 3


class TestDeadlines:
    def test_nobody_is_refused_before_anything_is_measured(self) -> None:
        assert Admitted("c") in play(queue(desk(), "a", "b"), Apply("c", 0, 0.001))[1]

    def test_nobody_is_refused_with_nobody_ahead(self) -> None:
        assert play(desk(), Served(100), Apply("a", 0, 1.0))[1] == [Admitted("a")]

    def test_who_waits_with_a_lower_priority_is_not_ahead(self) -> None:
        state, _ = play(desk(engine_depth=0), Served(100), *order("a", 0), Apply("b", 1, 1.0))
        assert position(state, "b") == 0

    def test_what_the_engine_has_let_go_of_is_not_ahead(self) -> None:
        state, _ = play(desk(), Served(100), *order("a"), LetGo("a"))
        assert play(state, Apply("b", 0, 1.0))[1] == [Admitted("b")]

    def test_provisional_tickets_are_not_ahead(self) -> None:
        assert play(desk(), Served(100), Knock("a"), Apply("b", 0, 1.0))[1] == [Admitted("b")]

    @pytest.mark.parametrize(("deadline", "admitted"), [(130.0, True), (129.9, False)])
    def test_the_estimate_must_leave_it_time(self, deadline: float, admitted: bool) -> None:
        state, _ = play(desk(), Served(10), Strangers(1), *order("a"))
        _, told = play(state, Apply("b", 0, deadline), now=100.0)
        assert (told == [Admitted("b")]) is admitted

    def test_it_may_return_when_enough_has_been_served(self) -> None:
        state, _ = play(desk(), Served(10), *order("a"), *order("b"))
        _, told = play(state, Apply("c", 0, 26.0))
        assert told == [Refused("c", "deadline_unmeetable", 4.0)]

    def test_one_that_never_fits_may_return_when_nobody_is_ahead(self) -> None:
        state, _ = play(desk(), Served(50), *order("a"))
        assert play(state, Apply("c", 0, -900.0))[1] == [Refused("c", "deadline_unmeetable", 100.0)]


class TestTurns:
    def test_by_priority_then_arrival(self) -> None:
        state, _ = play(desk(8, engine_depth=1), *order("first"))
        for name, priority in (("a", 0), ("b", 1), ("c", 0), ("d", 1), ("e", -1)):
            state = queue(state, name, priority=priority)
        assert [position(state, name) for name in "bdace"] == [0, 1, 2, 3, 4]
        given = []
        for name in ("first", "b", "d", "a", "c"):
            state, told = play(state, LetGo(name))
            given += turns(told)
        assert given == ["b", "d", "a", "c", "e"]

    def test_arrival_is_when_the_order_is_known_not_when_it_knocked(self) -> None:
        state, _ = play(desk(engine_depth=0), Knock("slow"), *order("quick"), Apply("slow", 0, LATE), Ready("slow"))
        assert [position(state, name) for name in ("quick", "slow")] == [0, 1]

    def test_who_is_not_ready_is_overtaken(self) -> None:
        _, told = play(desk(engine_depth=1), Apply("a", 5, LATE), *order("b"))
        assert turns(told) == ["b"]

    def test_no_more_than_the_engine_s_depth(self) -> None:
        state, told = play(desk(4, engine_depth=2), *order("a"), *order("b"), *order("c"))
        assert turns(told) == ["a", "b"]
        assert turns(play(state, Depart("b"))[1]) == ["c"]
        assert turns(play(state, Resize(Limits(4, 4, engine_depth=3)))[1]) == ["c"]

    def test_only_while_the_engine_is_open(self) -> None:
        state, told = play(desk()._replace(open=False), *order("a"), *order("b"))
        assert turns(told) == []
        state, told = play(state, Engine(True))
        assert turns(told) == ["a", "b"]
        assert turns(play(state, Engine(False), Depart("a"), *order("c"))[1]) == []

    def test_none_after_the_deadline(self) -> None:
        state, _ = play(desk()._replace(open=False), *order("a", deadline=5.0), *order("b"))
        assert turns(play(state, Engine(True), now=5.0)[1]) == ["b"]

    def test_a_requeued_ticket_has_its_old_arrival_and_is_ready(self) -> None:
        state, _ = play(desk(4, engine_depth=2), *order("a"), *order("b"), *order("c"), Engine(False))
        state, told = play(state, Requeue("b"), Requeue("a"))
        assert told == []
        assert list(state.waiting) == ["a", "b", "c"]
        assert turns(play(state, Engine(True))[1]) == ["a", "b"]

    def test_what_the_engine_has_let_go_of_can_be_requeued(self) -> None:
        _, told = play(desk(4, engine_depth=1), *order("a"), *order("b"), LetGo("a"), Requeue("a"), LetGo("b"))
        assert turns(told) == ["a", "b", "a"]


class TestAlone:
    @pytest.fixture
    def crashed(self) -> Admission:
        """a and b ran when the engine died, c waited."""
        state = queue(desk(6, engine_depth=2), "a", "b", "c")
        return play(state, Engine(False), Requeue("a", True), Requeue("b", True))[0]

    def test_suspects_run_one_by_one_and_before_those_behind(self, crashed: Admission) -> None:
        state, told = play(crashed, Engine(True))
        assert turns(told) == ["a"]
        state, told = play(state, LetGo("a"))
        assert turns(told) == ["b"]
        assert turns(play(state, LetGo("b"))[1]) == ["c"]

    def test_a_suspect_waits_until_nothing_of_ours_is_at_the_engine_and_nobody_overtakes_it(self) -> None:
        state, told = play(desk(6), *order("a"), *order("b"), *order("c"), LetGo("a"), Requeue("b", True))
        assert turns(told) == ["a", "b", "c"]
        state, told = play(state, *order("d"))
        assert turns(told) == []
        assert turns(play(state, LetGo("c"))[1]) == ["b"]

    def test_a_higher_priority_goes_first(self, crashed: Admission) -> None:
        assert turns(play(crashed, *order("vip", 1), Engine(True))[1]) == ["vip"]

    def test_a_suspect_that_is_cleared_runs_with_others_again(self, crashed: Admission) -> None:
        state, _ = play(crashed, Engine(True), Requeue("a", False))
        assert list(state.engaged) == ["a"]
        assert turns(play(state, Depart("b"))[1]) == ["c"]


class TestEstimates:
    def test_the_first_sample_begins_the_average(self) -> None:
        state, _ = play(desk(), Served(10))
        assert state.service == 10
        assert play(state, Served(20))[0].service == pytest.approx(10 + ALPHA * 10)

    def test_the_first_sample_after_a_start_of_the_engine_pays_for_loading_and_does_not_count(self) -> None:
        state, _ = play(desk()._replace(open=False), Engine(True), Served(60))
        assert state.service is None
        state, _ = play(state, Served(2), Engine(False), Engine(True), Served(60))
        assert state.service == 2
        assert play(state, Engine(True), Served(2))[0].service == 2, "open already"

    @pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
    def test_nonsense_is_not_measured(self, seconds: float) -> None:
        assert play(desk(), Served(seconds))[0].service is None

    def test_what_took_no_time_is_measured(self) -> None:
        assert play(desk(), Served(0.0))[0].service == 0.0

    def test_who_is_ahead(self) -> None:
        state, _ = play(desk(9), *order("a"), *order("b"), *order("c"), *order("d", 1), LetGo("a"), Strangers(1))
        assert list(state.engaged) == ["b", "d"]
        assert [ahead(state, name) for name in ("b", "d", "c")] == [1, 2, 3]
        assert [ahead(state, priority) for priority in (1, 0, -1)] == [3, 4, 4]
        assert ahead(state, "a") is None

    @pytest.mark.parametrize(("parallel", "waits"), [(1, [0, 6, 12, 18]), (2, [0, 0, 3, 6]), (4, [0, 0, 0, 0])])
    def test_when_they_begin_and_end(self, parallel: int, waits: list[float]) -> None:
        state = queue(desk(9, parallel=parallel), *"abcd")
        assert [wait_ahead(state, name) for name in "abcd"] == [None] * 4
        assert estimate(state, "a") is None
        state, _ = play(state, Served(6))
        assert [wait_ahead(state, name) for name in "abcd"] == waits
        assert [estimate(state, name) for name in "abcd"] == [wait + 6 for wait in waits]

    def test_what_is_let_go_of_is_finished(self) -> None:
        state, _ = play(desk(), Served(6), *order("a"), LetGo("a"))
        assert (estimate(state, "a"), position(state, "a")) == (0.0, None)

    def test_nothing_is_known_of_a_ticket_without_a_place_in_line(self) -> None:
        state, _ = play(desk(), Served(6), Knock("a"))
        for name in ("a", "nobody"):
            assert (position(state, name), ahead(state, name), estimate(state, name)) == (None, None, None)

    def test_retry_after_is_the_time_to_serve_all_ahead_and_itself(self) -> None:
        state, _ = play(desk(3, parallel=2), Served(7), Strangers(1), *order("a"), *order("b"))
        assert play(state, Knock("c"))[1] == [Refused("c", "queue_full", 4 * 7 / 2)]
        assert play(state, Apply("c", 3, LATE))[1] == [Refused("c", "queue_full", 4 * 7 / 2)]

    def test_those_who_return_when_told_are_admitted(self) -> None:
        state, _ = play(desk(4, engine_depth=1), Served(2))
        told: list[Effect] = []
        for number in range(7):
            state, effects = play(state, *order(str(number)))
            told += effects
        waits = {effect.ticket_id: effect.retry_after for effect in told if isinstance(effect, Refused)}
        assert waits.keys() == {"4", "5", "6"}
        for number in range(4):
            state, _ = play(state, LetGo(str(number)), Depart(str(number)), now=2.0 * (number + 1))
        for name, seconds in waits.items():
            assert retry_after(seconds, 0.0) >= 8
            state, effects = play(state, *order(f"{name} again"), now=seconds)
            assert Admitted(f"{name} again") in effects


class TestRounding:
    @pytest.mark.parametrize(
        ("seconds", "jitter", "whole"),
        [(0.0, 0.0, 1), (0.2, 1.0, 1), (1.01, 0.0, 2), (8.0, 0.0, 8), (8.0, 1.0, 10), (8.0, 0.5, 9), (119.5, 0.0, 120)],
    )
    def test_up_after_a_quarter_of_jitter_at_most(self, seconds: float, jitter: float, whole: int) -> None:
        assert retry_after(seconds, jitter) == whole

    @given(st.floats(0, allow_infinity=True), st.floats(0, 1))
    def test_within_bounds_whatever_the_estimate(self, seconds: float, jitter: float) -> None:
        whole = retry_after(seconds, jitter)
        assert 1 <= whole <= 120
        assert whole >= min(seconds, 120)


class TestUnexpected:
    STRAY: tuple[Event, ...] = (
        Ready("?"),
        Requeue("?", True),
        LetGo("?"),
        Depart("?"),
        Knock("reading"),
        Ready("reading"),
        LetGo("reading"),
        Requeue("reading"),
        Knock("claiming"),
        Ready("claiming"),
        Knock("waiting"),
        Apply("waiting", 9, 0.0),
        LetGo("waiting"),
        Requeue("waiting", True),
        Ready("engaged"),
        Apply("engaged", 9, 0.0),
        Apply("leaving", 9, 0.0),
        LetGo("leaving"),
        Ready("leaving"),
        Served(float("nan")),
    )

    @pytest.mark.parametrize("event", STRAY, ids=repr)
    def test_it_changes_nothing(self, event: Event) -> None:
        state, _ = play(desk(4, engine_depth=1), Served(1), *order("leaving"), LetGo("leaving"), *order("engaged"))
        state, _ = play(state, *order("waiting", -1), Knock("reading"), Knock("claiming"))
        assert (state.reading, state.claiming) == (("reading",), ("claiming",))
        assert (list(state.waiting), list(state.engaged), list(state.leaving)) == (
            ["waiting"],
            ["engaged"],
            ["leaving"],
        )
        assert step(state, event, 1.0) == (state, ())

    def test_there_are_never_less_than_no_strangers(self) -> None:
        assert depth(play(desk(), Strangers(-3))[0]) == 0


@dataclass
class Guest:
    """The model's idea of a ticket."""

    place: str
    priority: int = 0
    arrival: int = 0
    deadline: float = LATE
    ready: bool = False
    alone: bool = False

    @property
    def rank(self) -> tuple[int, int]:
        return -self.priority, self.arrival


PLACES = ("reading", "claiming", "waiting", "engaged", "leaving")

LIMITS = st.integers(1, 5).flatmap(
    lambda capacity: st.builds(
        Limits, st.just(capacity), st.integers(1, capacity), st.integers(1, 3), st.integers(1, 3)
    )
)


class AnySchedule(RuleBasedStateMachine):
    """Random events beside a model made of plain sentences; what admission does must be what the model allows."""

    @initialize(limits=LIMITS, waiting=st.lists(st.integers(-2, 1), max_size=5))
    def open_the_desk(self, limits: Limits, waiting: list[int]) -> None:
        self.state = Admission(limits)
        self.guests: dict[str, Guest] = {}
        self.now = 100.0
        self.count = 0
        self.ceiling = limits.capacity
        self.arrived: set[str] = set()
        self.ended: list[str] = []
        for priority in waiting:
            self.apply(self.newcomer(), priority, 1000.0)

    # -- the model ---------------------------------------------------------------------------------------------

    def at(self, *places: str) -> list[str]:
        return [name for name, guest in self.guests.items() if guest.place in places]

    def line(self) -> list[str]:
        return sorted(self.at("waiting"), key=lambda name: self.guests[name].rank)

    def depth(self, without: str = "") -> int:
        held = set(self.at("reading", "waiting", "engaged", "leaving")) - {without}
        return len(held) + self.state.strangers

    def admissible(self) -> list[str]:
        waiting = [(name, self.guests[name]) for name in self.line()]
        return [name for name, guest in waiting if guest.ready and self.now < guest.deadline]

    def may_have_a_turn(self) -> str | None:
        """Whose turn it is, if one is free."""
        engaged = [self.guests[name] for name in self.at("engaged")]
        if not self.state.open or len(engaged) >= self.state.limits.engine_depth or any(g.alone for g in engaged):
            return None
        first = next(iter(self.admissible()), None)
        return None if first is not None and self.guests[first].alone and engaged else first

    def verdict(self, name: str, priority: int, deadline: float) -> tuple[str, str | None]:
        """What an application must come to, and whom it evicts."""
        limits, others = self.state.limits, self.depth(without=name)
        if priority < 0 and others >= limits.busy_at:
            return "shed", None
        victim = None
        if others >= limits.capacity and name not in self.at("reading"):
            lowly = [other for other in self.line() if self.guests[other].priority < 0]
            claims = 0 if name in self.at("claiming") else len(self.at("claiming"))
            if len(lowly) <= claims:
                return "queue_full", None
            victim = lowly[-1]
        before = [other for other in self.line() if self.guests[other].priority >= priority]
        count = len(before) + len(self.at("engaged")) + self.state.strangers
        if count and self.state.service is not None:
            rounds = max(0, count - limits.parallel + 1) / limits.parallel + 1
            late = self.now + rounds * self.state.service - deadline
            if late > 1e-6:
                return "deadline_unmeetable", None
        return "admitted", victim

    # -- telling, and judging the effects ----------------------------------------------------------------------

    def tell(self, event: Event) -> tuple[Effect, ...]:
        """Turns and evictions are judged against the model as it is when they are given."""
        self.state, effects = step(self.state, event, self.now)
        rest = []
        for effect in effects:
            if isinstance(effect, Turn):
                assert effect.ticket_id == self.may_have_a_turn()
                self.guests[effect.ticket_id].place = "engaged"
            else:
                rest.append(effect)
                if isinstance(effect, Evicted):
                    evicted = self.guests.pop(effect.ticket_id)
                    assert evicted.place == "waiting"
                    assert evicted.priority < 0
                    self.ended.append(effect.ticket_id)
                elif isinstance(effect, Refused):
                    self.guests.pop(effect.ticket_id, None)
                    self.ended.append(effect.ticket_id)
                    assert effect.retry_after >= 0
                else:
                    assert isinstance(event, Apply)
                    self.count += 1
                    self.guests[effect.ticket_id] = Guest("waiting", event.priority, self.count, event.deadline)
        return tuple(rest)

    def promote(self) -> None:
        for name in self.at("claiming"):
            if self.depth() < self.state.limits.capacity:
                self.guests[name].place = "reading"

    # -- rules -------------------------------------------------------------------------------------------------

    def newcomer(self) -> str:
        name = f"t{len(self.arrived)}"
        self.arrived.add(name)
        return name

    @rule()
    def knock(self) -> None:
        name = self.newcomer()
        lowly = [other for other in self.at("waiting") if self.guests[other].priority < 0]
        free = self.depth() < self.state.limits.capacity
        claimable = len(lowly) > len(self.at("claiming"))
        effects = self.tell(Knock(name))
        if free or claimable:
            assert effects == ()
            self.guests[name] = Guest("reading" if free else "claiming")
        else:
            assert [type(effect) for effect in effects] == [Refused]

    def apply(self, name: str, priority: int, patience: float) -> None:
        deadline = self.now + patience
        outcome, victim = self.verdict(name, priority, deadline)
        effects = self.tell(Apply(name, priority, deadline))
        codes = [effect.code if isinstance(effect, Refused) else "admitted" for effect in effects[-1:]]
        assert codes == [outcome]
        assert [effect.ticket_id for effect in effects] == [*filter(None, [victim]), name]
        self.promote()

    priorities = st.integers(-2, 2)
    patiences = st.sampled_from([-1.0, 0.5, 3.5, 10.5, 1000.5])

    @rule(priority=priorities, patience=patiences, ready=st.booleans())
    def apply_at_once(self, priority: int, patience: float, ready: bool) -> None:
        name = self.newcomer()
        self.apply(name, priority, patience)
        if ready and name in self.guests:
            self.make_ready(name)

    @precondition(lambda self: self.at("reading", "claiming"))
    @rule(data=st.data(), priority=priorities, patience=patiences)
    def apply_after_knock(self, data: st.DataObject, priority: int, patience: float) -> None:
        self.apply(data.draw(st.sampled_from(self.at("reading", "claiming"))), priority, patience)

    def make_ready(self, name: str) -> None:
        self.guests[name].ready = True
        assert self.tell(Ready(name)) == ()

    @precondition(lambda self: self.at("waiting"))
    @rule(data=st.data())
    def ready(self, data: st.DataObject) -> None:
        self.make_ready(data.draw(st.sampled_from(self.at("waiting"))))

    @precondition(lambda self: self.at("engaged"))
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.at("engaged")))
        self.guests[name].place = "leaving"
        assert self.tell(LetGo(name)) == ()

    @precondition(lambda self: self.at("engaged", "leaving"))
    @rule(data=st.data(), alone=st.booleans())
    def requeue(self, data: st.DataObject, alone: bool) -> None:
        name = data.draw(st.sampled_from(self.at("engaged", "leaving")))
        guest = self.guests[name]
        guest.place, guest.alone, guest.ready = "waiting", alone, True
        assert self.tell(Requeue(name, alone)) == ()

    @precondition(lambda self: self.guests)
    @rule(data=st.data())
    def depart(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(self.guests)))
        del self.guests[name]
        self.ended.append(name)
        assert self.tell(Depart(name)) == ()
        self.promote()

    @rule(count=st.integers(0, 3))
    def strangers(self, count: int) -> None:
        assert self.tell(Strangers(count)) == ()
        self.promote()

    @rule(seconds=st.sampled_from([0.0, 1.0, 2.0, 8.0]))
    def served(self, seconds: float) -> None:
        assert self.tell(Served(seconds)) == ()

    @rule(is_open=st.booleans())
    def engine(self, is_open: bool) -> None:
        assert self.state.open is is_open or self.tell(Engine(is_open)) == ()

    @rule(limits=LIMITS)
    def resize(self, limits: Limits) -> None:
        self.ceiling = max(self.ceiling, limits.capacity)
        assert self.tell(Resize(limits)) == ()
        self.promote()

    @rule(seconds=st.sampled_from([0.1, 3.0, 11.0]))
    def wait(self, seconds: float) -> None:
        """Time passes; what it allows is done at the next event, whichever that is."""
        self.now += seconds
        assert self.tell(Engine(self.state.open)) == ()

    @rule(data=st.data())
    def stray(self, data: st.DataObject) -> None:
        """Events for tickets that are unknown, gone, or elsewhere change nothing."""
        unknown = ["?", *self.ended]
        strays: list[Event] = [LetGo(n) for n in (*unknown, *self.at("reading", "claiming", "waiting", "leaving"))]
        strays += [Ready(n) for n in (*unknown, *self.at("reading", "claiming", "engaged", "leaving"))]
        strays += [Requeue(n, True) for n in (*unknown, *self.at("reading", "claiming", "waiting"))]
        strays += [Depart(n) for n in unknown]
        strays += [Knock(n) for n in self.guests]
        strays += [Apply(n, 3, LATE) for n in self.at("waiting", "engaged", "leaving")]
        assert step(self.state, data.draw(st.sampled_from(strays)), self.now) == (self.state, ())

    # -- invariants --------------------------------------------------------------------------------------------

    @invariant()
    def every_ticket_is_where_the_model_has_it(self) -> None:
        for place in PLACES:
            assert set(getattr(self.state, place)) == set(self.at(place)), place
        assert list(self.state.waiting) == self.line()
        assert self.state.claiming == tuple(self.at("claiming"))

    @invariant()
    def tickets_never_exceed_capacity(self) -> None:
        assert self.depth() == depth(self.state)
        assert depth(self.state) - self.state.strangers <= self.ceiling

    @invariant()
    def nobody_claims_while_a_place_is_free(self) -> None:
        assert not self.state.claiming or depth(self.state) >= self.state.limits.capacity

    @invariant()
    def no_turn_is_free_while_someone_may_have_it(self) -> None:
        assert self.may_have_a_turn() is None

    @invariant()
    def a_suspect_is_alone_at_the_engine(self) -> None:
        engaged = self.at("engaged")
        assert len(engaged) <= 1 or not any(self.guests[name].alone for name in engaged)

    @invariant()
    def everyone_is_held_or_has_ended_once(self) -> None:
        assert len(self.ended) == len(set(self.ended))
        assert self.arrived == {*self.guests, *self.ended}

    @invariant()
    def estimates_agree(self) -> None:
        for index, name in enumerate(self.line()):
            assert position(self.state, name) == index
            expected = self.state.strangers + len(self.at("engaged")) + index
            assert ahead(self.state, name) == expected
            assert (estimate(self.state, name) is None) is (self.state.service is None)


AnySchedule.TestCase.settings = settings(max_examples=120, stateful_step_count=40)
TestAnySchedule = AnySchedule.TestCase
