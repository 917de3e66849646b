"""Emphasis: the weights that a prompt's text gives to its parts.

For: ComfyUI's notation, where `(text)` weighs 1.1 times as much as what is around it, `(text:1.3)` weighs 1.3 whatever
is around it, groups nest, and `\\(` is a plain parenthesis. Leaves what a weight does to `pipelines`.
Invariant: pure and total: every text has segments; parentheses without a partner are plain text.
"""

import re
from dataclasses import dataclass

_STEP = 1.1
_WEIGHT = re.compile(r":\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*")
_LONGEST_WEIGHT = 16  # characters, so that each group is looked at in bounded time


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a text that has one weight."""

    text: str
    weight: float


def read_emphasis(text: str) -> list[Segment]:
    """The segments of `text` in order, without the notation."""
    closings = _match_parentheses(text)
    segments: list[Segment] = []
    groups: list[tuple[int, int, float]] = []  # where its content ends, where the text goes on, the weight around it
    weight = 1.0
    start = position = 0
    while True:
        ends = bool(groups) and position == groups[-1][0]
        if ends or position in closings or position >= len(text):
            if start < position:
                segments.append(Segment(_unescape(text[start:position]), weight))
            if ends:
                _, position, weight = groups.pop()
            elif position in closings:
                closing = closings[position]
                end, inner = _weigh(text, position, closing, weight)
                groups.append((end, closing + 1, weight))
                position, weight = position + 1, inner
            else:
                return segments
            start = position
        else:
            position += 2 if _is_escaped(text, position) else 1


def _match_parentheses(text: str) -> dict[int, int]:
    """The closing parenthesis of each opening one that has a partner, by position."""
    closings: dict[int, int] = {}
    openings: list[int] = []
    position = 0
    while position < len(text):
        if _is_escaped(text, position):
            position += 1
        elif text[position] == "(":
            openings.append(position)
        elif text[position] == ")" and openings:
            closings[openings.pop()] = position
        position += 1
    return closings


def _weigh(text: str, opening: int, closing: int, around: float) -> tuple[int, float]:
    """Where the content of a group ends, and its weight."""
    colon = text.rfind(":", max(opening + 2, closing - _LONGEST_WEIGHT), closing)
    if colon >= 0 and (found := _WEIGHT.fullmatch(text, colon, closing)):
        return colon, float(found[1])
    return closing, around * _STEP


def _is_escaped(text: str, position: int) -> bool:
    return text.startswith(("\\(", "\\)"), position)


def _unescape(text: str) -> str:
    return text.replace("\\(", "(").replace("\\)", ")")
