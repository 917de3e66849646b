"""Ranges: what is asked for of a content, as RFC 9110 section 14 has it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.ranges import read_range
from converter.errors import RangeNotSatisfiable

SIZES = st.integers(0, 10**6)


@given(SIZES, st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_range_is_what_lies_between_its_ends(size: int, first: int, last: int) -> None:
    header = f"bytes={first}-{last}"
    if last < first:
        assert read_range(header, size) is None
    elif first >= size:
        with pytest.raises(RangeNotSatisfiable):
            read_range(header, size)
    else:
        assert read_range(header, size) == (first, min(last + 1, size))


@given(SIZES, st.integers(0, 10**6))
def test_an_end_may_be_left_out(size: int, number: int) -> None:
    for header, expected in ((f"bytes={number}-", (number, size)), (f"bytes=-{number}", (max(0, size - number), size))):
        if expected[0] >= expected[1]:
            with pytest.raises(RangeNotSatisfiable):
                read_range(header, size)
        else:
            assert read_range(header, size) == expected


@pytest.mark.parametrize(
    "header", [None, "", "bytes=", "bytes=-", "bytes=0-1,3-4", "items=0-1", "bytes=a-b", "bytes=1--2"]
)
def test_what_is_no_single_range_of_bytes_is_passed_over(header: str | None) -> None:
    assert read_range(header, 10) is None


@pytest.mark.parametrize("header", ["Bytes=0-1", " bytes = 0 - 1 "])
def test_units_are_read_in_any_case(header: str) -> None:
    assert read_range(header, 10) == (0, 2)


@given(st.text(max_size=20), SIZES)
def test_any_header_gives_a_range_within_the_content(header: str, size: int) -> None:
    try:
        found = read_range(header, size)
    except RangeNotSatisfiable:
        return
    assert found is None or 0 <= found[0] < found[1] <= size
