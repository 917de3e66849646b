"""The report: how training went, as curves.

For: a picture that shows losses and scores over steps. Leaves the numbers to the logs that each stage writes.
Invariant: drawn from the logs alone, at any time.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from training.states import Line, read_lines

_SIZE = (460, 260)  # of a chart, pixels
_MARGIN = 34
_INKS = ((31, 90, 180), (200, 60, 40), (40, 140, 70), (140, 70, 160))

Curve = Sequence[tuple[float, float]]


def draw_report(folder: Path) -> None:
    """Write `report.png` to `folder`: charts of each stage and of the scores."""
    reader = read_lines(folder / "state" / "reader.jsonl")
    autoencoder = read_lines(folder / "state" / "autoencoder.jsonl")
    denoiser = read_lines(folder / "state" / "denoiser.jsonl")
    scores = read_lines(folder / "state" / "scores.jsonl")
    charts = [
        _draw_chart("text encoder: captions read rightly", _read_curves(reader, ("known",))),
        _draw_chart("autoencoder: L1 of pixels, of edges", _read_curves(autoencoder, ("l1", "edges"))),
        _draw_chart(
            "denoiser: loss at low, middle, high noise", _read_curves(denoiser, ("low", "middle", "high", "loss"))
        ),
        _draw_chart(
            "held-out captions drawn right: one shape, two",
            {name: [(line["step"], line[name]["right"]) for line in scores] for name in ("one", "two")},
        ),
    ]
    report = Image.new("RGB", (_SIZE[0] * len(charts), _SIZE[1]), "white")
    for number, chart in enumerate(charts):
        report.paste(chart, (_SIZE[0] * number, 0))
    report.save(folder / "report.png")


def _read_curves(lines: Sequence[Line], names: Sequence[str]) -> dict[str, Curve]:
    return {name: [(line["step"], line[name]) for line in lines] for name in names}


def _draw_chart(title: str, curves: Mapping[str, Curve]) -> Image.Image:
    """Curves over steps, from zero to the highest value after the first tenth, which is off the chart."""
    chart = Image.new("RGB", _SIZE, "white")
    brush = ImageDraw.Draw(chart)
    brush.text((_MARGIN, 6), title, fill="black")
    last = max((step for curve in curves.values() for step, _ in curve), default=1)
    values = [value for curve in curves.values() for step, value in curve if step >= last / 10]
    highest = max(values, default=1.0) or 1.0
    left, top, right, bottom = _MARGIN, _MARGIN, _SIZE[0] - 12, _SIZE[1] - 24
    brush.rectangle((left, top, right, bottom), outline=(190, 190, 190))
    brush.text((2, top), f"{highest:.3g}", fill="black")
    brush.text((2, bottom - 10), "0", fill="black")
    brush.text((right - 40, bottom + 6), f"{last:g}", fill="black")
    for number, (name, curve) in enumerate(curves.items()):
        ink = _INKS[number % len(_INKS)]
        points = [
            (left + (right - left) * step / last, bottom - (bottom - top) * min(1.0, value / highest))
            for step, value in curve
        ]
        if len(points) > 1:
            brush.line(points, fill=ink, width=2)
        brush.text((right - 56, top + 4 + 12 * number), name, fill=ink)
    return chart
