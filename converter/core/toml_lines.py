"""Lines of TOML: where in a text a key stands, which `tomllib` does not tell.

For: messages about declarations that people write. Invariant: the line that is given is that of the key itself, or of
the nearest table around it that is there.
"""

import tomllib
from collections.abc import Collection, Mapping
from typing import Any

MAX_LINES = 2000
"""Lines of a text above which no line is looked for: every beginning of it is read."""

Keys = tuple[str, ...]


def find_lines(text: str, wanted: Collection[Keys]) -> dict[Keys, int]:
    """The line, from 1, of each path of keys; 1 where not even its first key is there, or the text is very long.

    `text` is valid TOML. A key begins on the line after the longest beginning of the text that is TOML without it.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    found: dict[Keys, int] = {}
    missing = {keys[:depth] for keys in wanted for depth in range(1, len(keys) + 1)}
    begun = 0
    for number in range(1, len(lines) + 1 if len(lines) <= MAX_LINES else 0):
        if not missing:
            break
        try:
            document = tomllib.loads("\n".join(lines[:number]))
        except tomllib.TOMLDecodeError:
            continue
        there = {keys for keys in missing if _has(document, keys)}
        found |= dict.fromkeys(there, begun + 1)
        missing -= there
        begun = number
    return {keys: next((found[part] for part in _shorten(keys) if part in found), 1) for keys in wanted}


def _has(document: Mapping[str, Any], keys: Keys) -> bool:
    value: Any = document
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True


def _shorten(keys: Keys) -> list[Keys]:
    return [keys[:depth] for depth in range(len(keys), 0, -1)]
