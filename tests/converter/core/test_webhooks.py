"""Whether a notice is sent again, and when; secrets and the envelope."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.retries import FIRST, SPREAD, Tries
from converter.core.webhooks import (
    LEAST,
    LONGEST,
    MOST,
    Again,
    Delivered,
    GivenUp,
    format_time,
    judge,
    parse_secrets,
    wrap,
)

chances = st.floats(0.0, 1.0)
refusals = st.none() | st.integers(100, 199) | st.integers(300, 599)


@given(st.integers(200, 299), chances)
def test_any_success_is_a_delivery(status: int, chance: float) -> None:
    assert judge(Tries(3, 0, 1.0), status, 60.0, 1e9, patience=1.0, chance=chance) == Delivered()


def test_a_receiver_that_wants_no_more_is_left_alone() -> None:
    assert isinstance(judge(Tries(), 410, None, 0.0, patience=1e9, chance=0.0), GivenUp)


@given(
    st.lists(st.tuples(refusals, st.none() | st.integers(0, 1000), chances), min_size=1, max_size=40),
    st.floats(0, 5000),
)
def test_attempts_grow_apart_obey_and_end(history: list[tuple[int | None, int | None, float]], patience: float) -> None:
    tries, now = Tries(), 0.0
    for number, (status, after, chance) in enumerate(history):
        verdict = judge(tries, status, after, now, patience=patience, chance=chance)
        growing = min(FIRST * 2**number, LONGEST)
        least, most = (growing / 2, growing) if after is None else (after, max(after, FIRST) * (1 + SPREAD))
        if not isinstance(verdict, Again):
            assert status == 410 or now + most >= patience
            return
        assert least - 1e-6 <= verdict.due - now <= most + 1e-6
        assert verdict.due < patience
        assert verdict.tries.failures == number + 1
        tries, now = verdict.tries, verdict.due


def secret(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(range(size))).decode()


@given(st.lists(st.integers(LEAST, MOST).map(secret), min_size=1, max_size=3))
def test_several_secrets_are_separated_by_commas(secrets: list[str]) -> None:
    assert parse_secrets(" , ".join(secrets)) == tuple(secrets)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "planted",
        secret(LEAST - 1),
        secret(MOST + 1),
        secret(32)[6:],
        secret(32) + "*",
        f"{secret(32)},x",
        "whsec_ä",
    ],
)
def test_what_is_no_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="whsec_") as caught:
        parse_secrets(text)
    assert len(text) < 10 or text not in str(caught.value)


def test_a_moment_is_told_in_milliseconds_and_utc() -> None:
    assert wrap("job.failed", 0.5, {"id": "a"}) == {
        "type": "job.failed",
        "timestamp": "1970-01-01T00:00:00.500Z",
        "data": {"id": "a"},
    }
    assert format_time(1735689600.0) == "2025-01-01T00:00:00.000Z"
