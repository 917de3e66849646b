"""The engine's output as lines that can be logged: bounded, readable, without terminal control.

What is painted over by carriage returns (progress bars) counts only in its last state. This file leaves reading and
logging to others.

Invariant: whatever comes in, no more than one line of the limit is held, and no line is longer.
"""

import re

LIMIT = 2000
"""Bytes of a line that are kept."""

_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""ANSI control sequences (ECMA-48 section 5.4) and control characters other than the tab."""


class Lines:
    """Cuts a stream of bytes into lines of text; what is not UTF-8 is replaced, blank lines are left out."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._clear()

    def feed(self, chunk: bytes) -> list[str]:
        """The lines that the chunk completes."""
        *complete, rest = chunk.split(b"\n")
        lines = []
        for piece in complete:
            self._hold(piece)
            lines.append(self._take())
        self._hold(rest)
        return [line for line in lines if line]

    def end(self) -> list[str]:
        """The last line, if the stream ended without a line feed."""
        line = self._take()
        return [line] if line else []

    def _hold(self, piece: bytes) -> None:
        for index, segment in enumerate(piece.split(b"\r")):
            self._returned |= index > 0
            if segment and self._returned:
                self._clear()
            room = self._limit - len(self._held)
            self._held += segment[:room]
            self._cut |= len(segment) > room

    def _take(self) -> str:
        line = _CONTROL.sub("", self._held.decode(errors="replace")).rstrip()
        if self._cut:
            line += " ..."
        self._clear()
        return line

    def _clear(self) -> None:
        self._held, self._cut, self._returned = b"", False, False
