"""What was found, beside what was wanted: findings with their goals, as a table and as JSON."""

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class AtMost:
    """A goal that is met up to `limit`."""

    limit: float

    def met(self, value: float) -> bool:
        return value <= self.limit

    def __str__(self) -> str:
        return f"<= {self.limit:g}"


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A goal that is met from `limit` on."""

    limit: float

    def met(self, value: float) -> bool:
        return value >= self.limit

    def __str__(self) -> str:
        return f">= {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure. `unit` is "x bare" for ratios; `samples` are what `value` was made of."""

    part: str
    name: str
    value: float
    unit: str
    goal: AtMost | AtLeast | None = None
    samples: Sequence[float] = field(default=(), repr=False)

    @property
    def verdict(self) -> str:
        """`met`, `missed`, or nothing where nothing was wanted."""
        if self.goal is None:
            return ""
        return "met" if self.goal.met(self.value) else "missed"

    def document(self) -> dict[str, Any]:
        """The finding as JSON has it."""
        goal = None if self.goal is None else str(self.goal)
        return asdict(self) | {"goal": goal, "verdict": self.verdict}


def describe_machine() -> dict[str, Any]:
    """What the figures depend on; absolute ones mean nothing elsewhere."""
    return {"python": platform.python_version(), "cpus": os.cpu_count(), "load": os.getloadavg()[0]}


def write_document(path: Path, machine: Mapping[str, Any], findings: Sequence[Finding]) -> None:
    """Write everything as JSON, with the samples that each figure was made of."""
    document = {"machine": machine, "findings": [finding.document() for finding in findings]}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def publish(path: Path | None, machine: Mapping[str, Any], findings: Sequence[Finding]) -> None:
    """Print the table, and write the JSON where a path is given."""
    print("\n".join(lay_out(findings)))
    if path is not None:
        write_document(path, machine, findings)


def lay_out(findings: Sequence[Finding]) -> Iterator[str]:
    """The table, line by line."""
    wide = max((len(finding.name) for finding in findings), default=0)
    for part, group in groupby(findings, key=lambda finding: finding.part):
        yield f"\n{part}"
        for finding in group:
            goal = "" if finding.goal is None else f"{finding.goal!s:>8}  {finding.verdict}"
            yield f"  {finding.name:<{wide}}  {finding.value:>9.3f} {finding.unit:<8} {goal}".rstrip()
