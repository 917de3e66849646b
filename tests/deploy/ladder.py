"""The timeout ladder of docs/operating.md, as data: every number that the files in `deploy/` may have.

Invariant: times are in seconds, sizes in bytes, all else as it stands.
"""

import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "operating.md"

_ROW = re.compile(r"^\| ([a-z-]+) \| ([\d.]+) ?(s|ms|KiB|MiB)? \| .+ \|$", re.MULTILINE)
_UNITS = {"s": 1.0, "ms": 0.001, "k": 2**10, "KiB": 2**10, "m": 2**20, "MiB": 2**20, "": 1.0}


def ladder() -> Mapping[str, float]:
    """Every row of the table, by name."""
    _, _, rest = PAGE.read_text().partition("<!-- ladder: ")
    table, found, _ = rest.partition("<!-- /ladder -->")
    assert found
    return {name: number(value, unit) for name, value, unit in _ROW.findall(table)}


def number(value: str, unit: str = "") -> float:
    """What a number with its unit means, as the load balancers write both."""
    return float(value) * _UNITS[unit]
