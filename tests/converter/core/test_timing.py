"""Times as sums and as a header: what is shown adds up, and can be read by those who know the standard."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.timing import PARTS, overhead, server_timing

TIMES = st.fixed_dictionaries({part: st.floats(0, 1e5) for part in PARTS})
TOTALS = st.floats(0, 1e6)


def parse(header: str) -> dict[str, float]:
    """Metrics of a `Server-Timing` header (W3C Server Timing: names are tokens, `dur` is in milliseconds)."""
    found = {}
    for metric in header.split(", "):
        match = re.fullmatch(r"([!#$%&'*+.^_`|~\w-]+);dur=(\d+\.\d)", metric)
        assert match, metric
        found[match[1]] = float(match[2])
    return found


def test_overhead_is_what_is_nobody_elses() -> None:
    times = {"waiting": 1.0, "staging": 0.5, "queued": 0.25, "executing": 2.0, "collecting": 0.125}
    assert overhead(times, 4.0) == pytest.approx(0.25)
    assert overhead(times, 3.0) == 0.0


@given(TIMES, TOTALS)
def test_overhead_is_a_part_of_the_total(times: dict[str, float], total: float) -> None:
    assert 0 <= overhead(times, total) <= total


def test_a_request_without_a_job_has_its_total() -> None:
    assert server_timing(0.0123) == "total;dur=12.3"


@given(TIMES, TOTALS)
def test_a_job_has_all_its_parts_in_milliseconds(times: dict[str, float], total: float) -> None:
    shown = parse(server_timing(total, times))
    assert list(shown) == [*PARTS, "overhead", "total"]
    assert shown["total"] == pytest.approx(total * 1000, abs=0.06)
    assert shown["executing"] == pytest.approx(times["executing"] * 1000, abs=0.06)
