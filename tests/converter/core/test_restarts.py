"""Delays grow and are bounded, the budget holds in every window, a success clears the record."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from converter.core.restarts import Died, Effect, GiveUp, Launched, Policy, Restarts, StartAfter, Warmed, step

POLICY = Policy(first_delay=1.0, max_delay=30.0, budget=5, window=600.0, settled=60.0)
GENEROUS = Policy(first_delay=1.0, max_delay=30.0, budget=1000, window=600.0, settled=60.0)


def live(
    state: Restarts, born: float, died: float, *, warm: float | None = None, jitter: float = 0.0
) -> tuple[Restarts, tuple[Effect, ...]]:
    """One run of a child, from launch to death."""
    state, effects = step(state, Launched(), born)
    assert effects == ()
    if warm is not None:
        state, effects = step(state, Warmed(), warm)
        assert effects == ()
    return step(state, Died(jitter), died)


def test_delays_double_up_to_the_maximum() -> None:
    state, delays = Restarts.begin(GENEROUS), list[Effect]()
    for moment in range(8):
        state, effects = live(state, moment, moment + 0.5)
        delays += effects
    assert delays == [StartAfter(delay) for delay in (1, 2, 4, 8, 16, 30, 30, 30)]


def test_first_delay_is_bounded_too() -> None:
    _, effects = live(Restarts.begin(Policy(first_delay=9.0, max_delay=3.0)), 0.0, 1.0)
    assert effects == (StartAfter(3.0),)


def test_delay_stays_bounded_for_ever() -> None:
    state = Restarts.begin(Policy(window=1.0))
    for moment in range(3000):
        state, effects = live(state, moment, moment + 0.5)
        assert effects == (StartAfter(min(2.0**moment if moment < 10 else math.inf, 30.0)),)


@given(st.floats(min_value=0.0, max_value=1.0))
def test_jitter_shortens_by_at_most_a_half(jitter: float) -> None:
    _, (effect,) = live(Restarts.begin(POLICY), 0.0, 1.0, jitter=jitter)
    assert isinstance(effect, StartAfter)
    assert 0.5 <= effect.delay <= 1.0


def test_budget_is_spent_by_deaths_within_the_window() -> None:
    state = Restarts.begin(POLICY)
    for moment in range(POLICY.budget):
        state, (effect,) = live(state, moment, moment + 0.5)
        assert isinstance(effect, StartAfter)
    state, effects = live(state, 100.0, 101.0)
    assert effects == (GiveUp(),)
    assert state.spent


def test_restarts_that_left_the_window_no_longer_count() -> None:
    state = Restarts.begin(POLICY)
    for moment in range(POLICY.budget):
        state, _ = live(state, moment, moment + 0.5)
    state, (effect,) = live(state, 100.0, 0.5 + POLICY.window)
    assert isinstance(effect, StartAfter)
    assert len(state.past) == POLICY.budget


def test_no_budget_means_no_restart() -> None:
    _, effects = live(Restarts.begin(Policy(budget=0)), 0.0, 1000.0, warm=1.0)
    assert effects == (GiveUp(),)


@pytest.mark.parametrize(("warm", "died", "success"), [(11.0, 71.0, True), (11.0, 70.9, False), (None, 500.0, False)])
def test_success_is_a_warm_engine_that_lived_a_while(warm: float | None, died: float, success: bool) -> None:
    state = Restarts.begin(POLICY)
    for moment in range(POLICY.budget - 1):
        state, _ = live(state, moment, moment + 0.5)
    state, effects = live(state, 10.0, died, warm=warm)
    assert effects == (StartAfter(0.0 if success else 16.0),)
    assert len(state.past) == (1 if success else POLICY.budget)


def test_after_a_success_delays_begin_anew() -> None:
    state = Restarts.begin(POLICY)
    for moment in range(3):
        state, _ = live(state, moment, moment + 0.5)
    state, _ = live(state, 10.0, 90.0, warm=11.0)
    delays = []
    for start in (91.0, 93.0, 96.0):
        state, effects = live(state, start, start + 0.5)
        delays += [effect.delay for effect in effects if isinstance(effect, StartAfter)]
    assert delays == [1.0, 2.0, 4.0]


def test_only_the_first_warm_up_of_a_run_counts() -> None:
    state, _ = step(Restarts.begin(POLICY), Launched(), 0.0)
    state, _ = step(state, Warmed(), 1.0)
    assert step(state, Warmed(), 30.0) == (state, ())


def test_warm_up_of_an_earlier_run_is_forgotten() -> None:
    state, _ = live(Restarts.begin(POLICY), 0.0, 2.0, warm=1.0)
    _, effects = live(state, 3.0, 500.0)
    assert effects == (StartAfter(2.0),)


class Lives(RuleBasedStateMachine):
    """Any events in any order: the machine keeps its promises."""

    policy = Policy(first_delay=0.5, max_delay=4.0, budget=3, window=20.0, settled=5.0)

    def __init__(self) -> None:
        super().__init__()
        self.state = Restarts.begin(self.policy)
        self.now = 0.0
        self.warm: float | None = None
        self.starts: list[float] = []

    @rule(seconds=st.floats(min_value=0.0, max_value=30.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def launch(self) -> None:
        if not self.state.alive:
            self.warm = None
        self.state, effects = step(self.state, Launched(), self.now)
        assert effects == ()

    @rule()
    def warm_up(self) -> None:
        if self.state.alive and self.warm is None:
            self.warm = self.now
        self.state, effects = step(self.state, Warmed(), self.now)
        assert effects == ()

    @rule(jitter=st.floats(min_value=0.0, max_value=1.0))
    def die(self, jitter: float) -> None:
        was_alive = self.state.alive
        self.state, effects = step(self.state, Died(jitter), self.now)
        assert len(effects) == was_alive
        assert not self.state.alive
        success = was_alive and self.warm is not None and self.now - self.warm >= self.policy.settled
        if success:
            self.starts.clear()
            assert effects == (StartAfter(0.0),)
        for effect in effects:
            match effect:
                case StartAfter(delay):
                    self.starts.append(self.now)
                    assert success or 0.0 < delay <= self.policy.max_delay
                case GiveUp():
                    assert self.state.spent
                    assert sum(self.now - start < self.policy.window for start in self.starts) == self.policy.budget

    @invariant()
    def budget_holds_in_every_window(self) -> None:
        for start in self.starts:
            assert sum(0 <= other - start < self.policy.window for other in self.starts) <= self.policy.budget

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.state.past) <= self.policy.budget

    @invariant()
    def spent_is_final(self) -> None:
        assert not (self.state.spent and self.state.alive)


TestLives = Lives.TestCase
