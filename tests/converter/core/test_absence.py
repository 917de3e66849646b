"""Absence: a start that takes its time alarms nobody, and no warning comes twice."""

from hypothesis import given
from hypothesis import strategies as st

from converter.core.absence import Absence, Missed, Warn, step

NOBODY = Missed("nothing listens")
STRANGER = Missed("it is no engine", foreign=True)


def warnings(*looks: tuple[float, Missed], patience: float = 10.0) -> list[tuple[float, str]]:
    """When looks that failed made the log warn, and of what."""
    state, told = Absence(patience), []
    for now, missed in looks:
        state, effects = step(state, missed, now)
        told += [(now, effect.reason) for effect in effects]
    return told


def test_a_while_is_waited_and_then_it_is_said_once() -> None:
    looks = [(moment, NOBODY) for moment in (100.0, 105.0, 109.9, 110.0, 111.0, 300.0)]
    assert warnings(*looks) == [(110.0, "nothing listens")]


def test_what_time_will_not_change_is_said_at_once_and_once() -> None:
    assert warnings((100.0, STRANGER), (100.5, STRANGER)) == [(100.0, "it is no engine")]


def test_another_reason_is_said_too_and_no_turn_between_two_repeats_them() -> None:
    looks = [(100.0 + number, (NOBODY, STRANGER)[number % 2]) for number in range(100)]
    assert warnings(*looks) == [(101.0, "it is no engine"), (110.0, "nothing listens")]


@given(st.lists(st.tuples(st.floats(0.0, 20.0), st.sampled_from([NOBODY, STRANGER, Missed("late")]))))
def test_no_reason_is_warned_of_twice(steps: list[tuple[float, Missed]]) -> None:
    state, now, told = Absence(), 0.0, list[Warn]()
    for wait, missed in steps:
        now += wait
        state, effects = step(state, missed, now)
        told += effects
    assert len(told) == len(set(told))
