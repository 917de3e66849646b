"""What `docs/reliability.md` claims is shown by tests that exist, and no fault that can be caused is left out."""

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

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


def rows() -> list[list[str]]:
    """The cells of all rows that say what shows them."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", TEXT, re.M):
        head, _, *lines = ([cell.strip() for cell in line.strip("|\n").split(" |")] for line in table.splitlines())
        found += lines if "Shown by" in head else []
    return found


def test_every_row_is_shown_by_a_test() -> None:
    assert len(rows()) > 70
    assert [row[0] for row in rows() if "`test_" not in row[2] and row[2] != "the same"] == []
