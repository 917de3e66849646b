"""Problem documents are read back as the faults that they tell of, whatever is in them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter import errors
from converter.core.problems import read_problem, read_retry_after
from converter.errors import Fault


def descend(kind: type[Fault]) -> Iterator[type[Fault]]:
    for below in kind.__subclasses__():
        yield below
        yield from descend(below)


GENERAL = (errors.Refusal, errors.Unavailable)
KINDS = [kind for kind in descend(Fault) if kind not in GENERAL]

numbers = st.integers() | st.floats()
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
members = st.sampled_from(["title", "status", "code", "detail", "retry", "retry_after", "self", "request_id"])
documents = st.dictionaries(members | st.text(max_size=5), values | st.sampled_from([k.code for k in KINDS]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("retry_after", [None, 0, 7])
def test_what_a_fault_says_is_read_to_the_same_fault(kind: type[Fault], retry_after: int | None) -> None:
    fault: Fault
    if kind is errors.InvalidRequest:
        fault = errors.InvalidRequest([{"pointer": "/a", "detail": "is required"}])
    else:
        fault = kind("why", retry_after=retry_after, node_id="3")
    read = read_problem(fault.problem())
    assert type(read) is kind
    assert read.problem() == fault.problem()
    assert str(read) == str(fault)


def test_a_code_of_a_later_version_is_kept() -> None:
    read = read_problem({"status": 451, "code": "new", "title": "New", "detail": "d", "retry": "later", "more": [1]})
    assert type(read) is Fault
    assert (read.status, read.code, read.title, str(read), read.retry) == (451, "new", "New", "d", "later")
    assert read.extensions == {"more": [1]}
    assert (Fault.status, Fault.code) == (500, "internal"), "the class is as it was"


def test_a_time_to_wait_without_a_retry_means_later() -> None:
    assert read_problem({"retry_after": 1.5}).retry_after == 2
    assert read_problem({"retry_after": 1.5}).retry == "later"
    assert read_problem({"retry_after": 5, "retry": "never"}).retry == "never"
    assert read_problem({"code": "queue_full"}).retry == "later"


@given(documents)
def test_any_object_makes_a_fault(document: dict[str, Any]) -> None:
    fault = read_problem(document)
    assert str(fault)
    assert fault.retry in ("never", "same", "later")
    assert type(fault.status) is int
    assert fault.retry_after is None or fault.retry_after >= 0
    code = document.get("code")
    expected = next((kind for kind in KINDS if kind.code == code), Fault)
    assert type(fault) is expected
    assert read_problem(fault.problem()).problem() == fault.problem()


NOW = datetime(2026, 1, 31, 23, 59, 30, tzinfo=UTC)
DATE = format_datetime(NOW, usegmt=True)


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("0", "", 0),
        ("120", "", 120),
        ("9" * 5000, "", 999_999_999),
        (format_datetime(NOW + timedelta(seconds=45), usegmt=True), DATE, 45),
        (format_datetime(NOW - timedelta(seconds=45), usegmt=True), DATE, 0),
        (DATE, "", None),
        (DATE, "Sat, 31 Jan 2026 23:59:30 -0000", None),
        ("soon", DATE, None),
        ("Sat, 99 Jan 2026 23:59:30 GMT", DATE, None),
        ("1.5", "", None),
        ("-1", "", None),
        ("\u0661", "", None),
        ("", "", None),
    ],
)
def test_times_to_wait_are_seconds_or_a_date(value: str, date: str, seconds: int | None) -> None:
    assert read_retry_after(value, date) == seconds


@given(st.text(), st.text())
def test_any_text_is_a_time_or_none(value: str, date: str) -> None:
    assert read_retry_after(value, date) in (None, *range(10)) or value.isdigit()
