"""Curves over the load as one picture: a panel for each thing that is measured, a line for each way to run a fleet.

Leaves what is drawn to `fleet`. Invariant: the picture is readable without colours: lines of one family are dashed.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _GAP, _LEGEND = 420, 250, 60, 80  # pixels
_STROKES = ("#c33c3c", "#c33c3c", "#c33c3c", "#2255aa", "#2255aa", "#2255aa")
_DASHES = ("none", "6 3", "2 3") * 2


@dataclass(frozen=True, slots=True)
class Curve:
    """Points (x, y), from left to right."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves with the same axes."""

    title: str
    curves: Sequence[Curve]


def draw(panels: Sequence[Panel]) -> str:
    """The picture as SVG, two panels a row, with one legend for all."""
    rows = (len(panels) + 1) // 2
    width, height = 2 * (_WIDTH + _GAP) + _GAP // 2, rows * (_HEIGHT + _GAP) + _LEGEND
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/><g font-size="12">',
    ]
    for number, panel in enumerate(panels):
        left, top = _GAP + number % 2 * (_WIDTH + _GAP), _GAP // 2 + number // 2 * (_HEIGHT + _GAP)
        lines += _panel(panel, left, top)
    for number, curve in enumerate(panels[0].curves):
        x, y = _GAP + number // 3 * (_WIDTH + _GAP), height - _LEGEND + 20 + number % 3 * 20
        lines.append(_stroke(number, f"{x},{y - 4} {x + 30},{y - 4}"))
        lines.append(f'<text x="{x + 38}" y="{y}">{escape(curve.name)}</text>')
    return "\n".join([*lines, "</g></svg>\n"])


def _panel(panel: Panel, left: int, top: int) -> Iterator[str]:
    xs = [x for curve in panel.curves for x, _ in curve.points]
    highest = _round_up(max(y for curve in panel.curves for _, y in curve.points) or 1.0)
    lowest, furthest = min(xs), max(xs)

    def place(x: float, y: float) -> str:
        across = left + _WIDTH * (x - lowest) / (furthest - lowest)
        return f"{across:.1f},{top + _HEIGHT * (1 - y / highest):.1f}"

    yield f'<text x="{left}" y="{top - 8}" font-weight="bold">{escape(panel.title)}</text>'
    yield f'<path d="M{left},{top} v{_HEIGHT} h{_WIDTH}" fill="none" stroke="#888888"/>'
    for x in sorted(set(xs)):
        across, _, down = place(x, 0).partition(",")
        yield f'<text x="{across}" y="{float(down) + 16}" text-anchor="middle" fill="#555555">{x:g}</text>'
    for quarter in range(5):
        y = highest * quarter / 4
        down = place(lowest, y).partition(",")[2]
        yield f'<text x="{left - 6}" y="{float(down) + 4}" text-anchor="end" fill="#555555">{y:.3g}</text>'
    for number, curve in enumerate(panel.curves):
        yield _stroke(number, " ".join(place(x, y) for x, y in curve.points))


def _round_up(value: float) -> float:
    """The next number whose quarters are easily read."""
    power: float = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value)


def _stroke(number: int, points: str) -> str:
    color, dash = _STROKES[number], _DASHES[number]
    return f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2" stroke-dasharray="{dash}"/>'
