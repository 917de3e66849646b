"""What `docs/reliability.md` claims is shown by tests that exist, and no fault that can be caused is left out."""

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from benchmarks import faults
from tests.fakes.faults import Faults
from tests.fakes.relay import Action

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "reliability.md").read_text()
CLAIMED = sorted(set(re.findall(r"`(test_\w+)`", TEXT)))


def written_tests() -> set[str]:
    """The names of all tests."""
    found = (re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.M) for path in ROOT.glob("tests/**/*.py"))
    return {name for names in found for name in names}


def test_every_test_that_is_named_exists() -> None:
    assert len(CLAIMED) > 80
    assert set(CLAIMED) - written_tests() == set()


@pytest.mark.parametrize("name", [*(field.name for field in fields(Faults)), *get_args(Action)])
def test_every_fault_is_in_the_table(name: str) -> None:
    assert name == "pass" or f"`{name}`" in TEXT


def rows(*, timed: bool) -> list[dict[str, str]]:
    """The cells of all rows that say what shows them, by the heads of their columns: those of times, or the others."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", TEXT, re.M):
        head, _, *lines = ([cell.strip() for cell in line.strip("|\n").split(" |")] for line in table.splitlines())
        if "Shown by" in head and ("Median" in head) is timed:
            found += [dict(zip(head, line, strict=False)) for line in lines]
    return found


def test_every_row_is_shown_by_a_test() -> None:
    cells = [row["Shown by"] for row in rows(timed=False)]
    assert len(cells) > 70
    assert [cell for cell in cells if "`test_" not in cell and cell != "the same"] == []


def test_the_times_are_those_of_faults_that_are_in_the_tables() -> None:
    told = [(row["What goes wrong"], row["Measured"], row["Shown by"].strip("`")) for row in rows(timed=True)]
    assert told == [(row.name, row.measured, row.test) for row in faults.ROWS]
    shown = " ".join(row["Shown by"] for row in rows(timed=False))
    assert [test for _, _, test in told if f"`{test}`" not in shown] == []


@pytest.mark.parametrize("row", [row for row in faults.ROWS if "cut at any message" in row.name or "time" in row.name])
async def test_a_fault_is_measured_by_rounds_with_and_without_it(row: faults.Row) -> None:
    assert len(await row.measure(2)) == 2


def test_a_table_of_times_replaces_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def measure(rounds: int) -> list[float]:
        return [0.02, -0.01, 2.5][:rounds]

    monkeypatch.setattr(faults, "ROWS", (faults.Row("a fault", "later by", "test_it", measure, most=3),))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- times: how -->\nold\n<!-- /times -->\nafter\n")
    assert faults.main(["--rounds", "9", str(page)]) == 0
    before, _, rest = page.read_text().partition("<!-- times: how -->\n")
    table, _, after = rest.partition("<!-- /times -->")
    assert (before, after) == ("before\n", "\nafter\n")
    assert table.splitlines()[-2] == "| a fault | later by | 20 ms | 2.5 s | 3 | `test_it` |"
