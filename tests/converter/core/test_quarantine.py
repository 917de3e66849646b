"""Quarantine: who is refused, for how long, and that the list stays short."""

from hypothesis import given
from hypothesis import strategies as st

from converter.core.quarantine import KILLS, MOST, SECONDS, Quarantine, blame, seconds_left

NAMES = st.sampled_from("abc")
KILLINGS = st.lists(st.tuples(NAMES, st.floats(0.0, SECONDS)), max_size=30)


def test_one_kill_proves_nothing() -> None:
    assert seconds_left(blame(Quarantine(), "a", 0.0), "a", 1.0) == 0.0


def test_the_second_kill_bars_for_ten_minutes_from_then_on() -> None:
    state = blame(blame(Quarantine(), "a", 0.0), "a", 100.0)
    assert seconds_left(state, "a", 100.0) == SECONDS
    assert seconds_left(state, "a", 100.0 + SECONDS - 1) == 1.0
    assert seconds_left(state, "a", 100.0 + SECONDS) == 0.0
    assert seconds_left(state, "b", 100.0) == 0.0


def test_kills_long_ago_are_forgotten() -> None:
    state = blame(blame(Quarantine(), "a", 0.0), "a", SECONDS)
    assert seconds_left(state, "a", SECONDS) == 0.0


@given(KILLINGS)
def test_only_those_with_enough_recent_kills_are_barred(killings: list[tuple[str, float]]) -> None:
    state, now, times = Quarantine(), 0.0, dict[str, list[float]]()
    for name, pause in killings:
        now += pause
        known = times.setdefault(name, [])
        if known and now - known[-1] >= SECONDS:
            known.clear()
        known.append(now)
        state = blame(state, name, now)
    for name in "abc":
        known = times.get(name, [])
        guilty = len(known) >= KILLS and now - known[-1] < SECONDS
        assert (seconds_left(state, name, now) > 0) is guilty


def test_the_list_is_bounded_and_the_eldest_goes_first() -> None:
    state = blame(Quarantine(), "first", 0.0)
    for number in range(MOST):
        state = blame(state, str(number), 1.0)
    assert len(state.kills) == MOST
    assert "first" not in state.kills
