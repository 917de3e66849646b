"""Reads the recordings of a real ComfyUI in `tests/transcripts`, whose README says what a row is."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "transcripts"
Row = dict[str, Any]


def names() -> list[str]:
    """The recordings that there are, without their suffix."""
    return sorted(path.stem for path in FOLDER.glob("*.jsonl"))


def load(name: str) -> list[Row]:
    """All rows of one recording; `name` may be just its number where that is unique."""
    [path] = FOLDER.glob(f"{name}*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
