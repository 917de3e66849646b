"""Whether and when a call is tried again: obedient, growing, bounded, and never where it must not be."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter import errors
from converter.core.retries import (
    FIRST,
    IN_VAIN,
    LONGEST,
    LOST,
    REPEATS,
    SPREAD,
    Failure,
    Tries,
    from_fault,
    from_status,
    judge,
)

chances = st.floats(0.0, 1.0)
failures = st.builds(
    Failure,
    st.sampled_from(["never", "same", "later"]),
    st.none() | st.floats(0.0, 200.0),
    st.booleans(),
)
limits = st.floats(0.0, 1000.0)


def delays(failure: Failure, chance: float, times: int) -> list[float | None]:
    """The delays of a call that fails over and over, with all the time in the world."""
    tries, found = Tries(), []
    for _ in range(times):
        tries, delay = judge(tries, failure, 0.0, patience=math.inf, deadline=math.inf, chance=chance)
        found.append(delay)
    return found


def test_delays_double_up_to_a_bound() -> None:
    assert delays(LOST, 0.0, 9) == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert delays(LOST, 1.0, 9) == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


def test_they_stay_bounded_for_ever() -> None:
    assert delays(LOST, 0.0, 2000)[-1] == LONGEST


@given(st.lists(st.tuples(failures, st.floats(0.0, 30.0), chances), max_size=30), limits, limits)
def test_every_try_is_allowed_and_in_time(
    history: list[tuple[Failure, float, float]], patience: float, deadline: float
) -> None:
    """`history`: how each try ends, how long it took, and a chance."""
    tries, now, since, costly = Tries(), 0.0, None, 0
    for number, (failure, took, chance) in enumerate(history, start=1):
        now += took
        since = now if since is None else since
        costly += failure.costly
        tries, delay = judge(tries, failure, now, patience=patience, deadline=deadline, chance=chance)
        assert tries == Tries(number, costly, since)
        if delay is None:
            return
        assert failure.retry != "never"
        assert costly <= REPEATS
        now += delay
        assert now < deadline
        assert now < since + patience
        if failure.retry_after is None:
            assert FIRST / 2 <= delay <= LONGEST
        else:
            assert failure.retry_after <= delay
            assert delay <= max(failure.retry_after, FIRST / 2) * (1 + SPREAD)


@given(chances, st.floats(1.0, 300.0))
def test_a_service_that_refuses_for_ever_is_asked_seldom(chance: float, seconds: float) -> None:
    """Without a time to wait the delays grow; with one they are as long as it says."""
    for failure, most in ((Failure("later"), 8 + seconds / (LONGEST / 2)), (Failure("later", 5.0), 1 + seconds / 5.0)):
        tries, now, count = Tries(), 0.0, 1
        while True:
            tries, delay = judge(tries, failure, now, patience=math.inf, deadline=seconds, chance=chance)
            if delay is None:
                break
            now, count = now + delay, count + 1
        assert count <= most


def test_the_moment_of_the_limit_is_too_late() -> None:
    told = Failure("later", 10.0)
    assert judge(Tries(), told, 0.0, patience=10.0, deadline=math.inf, chance=0.0)[1] is None
    assert judge(Tries(), told, 0.0, patience=math.inf, deadline=10.0, chance=0.0)[1] is None
    assert judge(Tries(), told, 0.0, patience=10.1, deadline=10.1, chance=0.0)[1] == 10.0
    assert judge(Tries(), LOST, 0.0, patience=0.0, deadline=math.inf, chance=0.0)[1] is None


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (errors.QueueFull("", retry_after=3), Failure("later", 3)),
        (errors.Draining(""), Failure("later")),
        (errors.EngineFailed(""), Failure("same", costly=True)),
        (errors.OutOfMemory(""), Failure("same", costly=True)),
        (errors.InvalidWorkflow(""), Failure("never")),
        (errors.IdempotencyMismatch(""), Failure("never")),
        (errors.IdInUse(""), Failure("never")),
    ],
)
def test_a_fault_says_itself_what_it_means(fault: errors.Fault, expected: Failure) -> None:
    assert from_fault(fault) == expected


@pytest.mark.parametrize("fault", [errors.Canceled(""), errors.DeadlineExceeded("")])
def test_an_end_that_somebody_wanted_stays(fault: errors.Fault) -> None:
    assert fault.retry == "same"
    assert from_fault(fault).retry == "never"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (429, Failure("later", 4.0)),
        (503, Failure("later", 4.0)),
        (408, Failure("same", 4.0)),
        (502, Failure("same", 4.0)),
        (504, Failure("same", 4.0, costly=True)),
        (404, Failure("never", 4.0)),
        (500, Failure("never", 4.0)),
        (301, Failure("never", 4.0)),
    ],
)
def test_an_answer_of_something_between_is_judged_by_its_status(status: int, expected: Failure) -> None:
    assert from_status(status, 4.0) == expected
    assert IN_VAIN.retry == "never"
