"""The window: within its bounds whatever happens, halved once for a burst, and settled near what a service bears."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.core.window import FIRST, Window, narrow, widen

mosts = st.integers(1, 200)


@given(mosts, st.lists(st.tuples(st.booleans(), st.integers(0, 300)), max_size=300))
def test_it_has_room_for_one_and_for_most_at_most(most: int, events: list[tuple[bool, int]]) -> None:
    window = Window.open(most)
    assert window.room == min(FIRST, most)
    for success, number in events:
        before = window
        window = widen(window, number) if success else narrow(window, max(window.epoch - number % 3, 0))
        assert 1 <= window.room <= most
        assert window.size <= before.size + 1, "it grows by one at most"
        assert window.size >= before.size / 2, "it shrinks to a half at most"
        assert (window.size < before.size) <= (window.epoch == before.epoch + 1)


@given(st.integers(2, 100))
def test_a_whole_window_of_successes_makes_room_for_one_more(size: int) -> None:
    window = Window(1000, float(size))
    for _ in range(size + 1):
        window = widen(window, size + 1)
    assert window.room == size + 1


def test_a_window_that_is_not_full_does_not_grow() -> None:
    window = Window(100, 10.5)
    assert widen(window, 9) == window
    assert widen(window, 10).size > window.size


@given(st.integers(1, 50))
def test_a_burst_of_refusals_halves_it_once(refusals: int) -> None:
    window = Window(100, 40.0)
    sent = window.epoch
    for _ in range(refusals):
        window = narrow(window, sent)
    assert window.size == 20.0
    assert narrow(window, window.epoch).size == 10.0


def test_it_never_becomes_smaller_than_one() -> None:
    window = Window(100, 1.5)
    for _ in range(3):
        window = narrow(window, window.epoch)
    assert window.size == 1.0


def rounds(windows: Sequence[Window], capacity: int, count: int) -> list[list[int]]:
    """The rooms of callers who each send a whole window at a time, to a service that then refuses a part of everybody's
    if all together are too many.
    """
    current, seen = list(windows), []
    for _ in range(count):
        seen.append([window.room for window in current])
        crowded = sum(seen[-1]) > capacity
        for number, window in enumerate(current):
            room, sent = window.room, window.epoch
            for success in [True] * (room - crowded) + [False] * crowded:
                window = widen(window, room) if success else narrow(window, sent)
            current[number] = window
    return seen


@settings(max_examples=30)
@given(st.integers(2, 60), st.integers(1, 128))
def test_one_caller_settles_between_half_of_what_is_borne_and_a_little_more(capacity: int, start: int) -> None:
    settled = [room for [room] in rounds([Window(200, float(start))], capacity, 200)[-80:]]
    assert max(settled) <= capacity + 2
    assert min(settled) >= capacity // 2
    assert sum(settled) / len(settled) >= 0.6 * capacity


@settings(max_examples=30)
@given(st.integers(8, 24), st.integers(1, 100), st.integers(1, 100))
def test_two_callers_come_to_equal_shares(capacity: int, first: int, second: int) -> None:
    seen = rounds([Window(200, float(first)), Window(200, float(second))], capacity, 300)[-100:]
    shares = [sum(rooms) for rooms in zip(*seen, strict=True)]
    assert max(shares) <= 1.5 * min(shares)


def test_room_for_no_call_is_none() -> None:
    with pytest.raises(ValueError, match="room for one call"):
        Window.open(0)
