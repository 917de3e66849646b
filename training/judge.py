"""The judge: which shapes of which colours a picture shows, on which background.

For: measuring a model that draws. Leaves drawing and training alone: nothing here comes from them, neither colours nor
outlines.
Invariant: pure; what is not clearly a known shape is `unknown`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

Pixels = NDArray[np.uint8]  # [height, width, 3]
Mask = NDArray[np.bool_]

# What the names mean to people: colours of CSS, several where a name is wide.
_NAMED: Mapping[str, tuple[str, ...]] = {
    "red": ("ff0000", "dc143c", "b22222"),
    "green": ("008000", "228b22", "32cd32"),
    "blue": ("0000ff", "4169e1", "0000cd"),
    "yellow": ("ffff00", "ffd700"),
    "orange": ("ffa500", "ff8c00", "ff7f50"),
    "purple": ("800080", "8a2be2", "9932cc"),
    "pink": ("ffc0cb", "ff69b4", "ffb6c1"),
    "cyan": ("00ffff", "00ced1", "40e0d0"),
    "black": ("000000", "202020"),
    "white": ("ffffff", "f5f5f5"),
    "gray": ("808080", "696969", "a9a9a9"),
    "brown": ("8b4513", "a0522d", "654321"),
}

_DIFFERENT = 12.0  # in CIELAB: a pixel this far from the background belongs to a figure
_SMALLEST = 60  # pixels of a figure


@dataclass(frozen=True, slots=True)
class Finding:
    """A figure that was found; `x`, `y` is its centre as a share of the picture's sides."""

    shape: str
    colour: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a picture shows."""

    background: str
    findings: tuple[Finding, ...]


def judge_picture(pixels: Pixels) -> Verdict:
    """What `pixels` show."""
    lab = _to_lab(pixels)
    frame = np.concatenate([lab[:3].reshape(-1, 3), lab[-3:].reshape(-1, 3), lab[:, :3].reshape(-1, 3)])
    ground = np.median(np.concatenate([frame, lab[:, -3:].reshape(-1, 3)]), axis=0)
    figure = np.linalg.norm(lab - ground, axis=2) > _DIFFERENT
    figure = ndimage.binary_opening(figure, iterations=1)
    labels, _ = ndimage.label(figure)
    findings = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels[box] == number
        if mask.sum() < _SMALLEST:
            continue
        # The edge mixes two colours: only what is well inside tells the figure's own.
        inside = ndimage.binary_erosion(mask, iterations=2)
        colours = lab[box][inside if inside.sum() > 10 else mask]
        rows, columns = box
        findings.append(
            Finding(
                shape=name_shape(mask),
                colour=_name_colour(np.median(colours, axis=0)),
                x=(columns.start + columns.stop) / 2 / pixels.shape[1],
                y=(rows.start + rows.stop) / 2 / pixels.shape[0],
            )
        )
    return Verdict(_name_colour(ground), tuple(findings))


def name_shape(mask: Mask) -> str:
    """The shape of a connected area, by its hole, its hull, its box and the lobes of its outline."""
    whole = ndimage.binary_fill_holes(mask)
    area = float(whole.sum())
    height, width = mask.shape
    square = 0.75 < width / height < 1.33
    hull = _measure_hull(whole)
    solidity, extent = area / hull, area / (width * height)
    lobes = _measure_lobes(whole)
    if 1 - mask.sum() / area > 0.08:
        return "ring" if solidity > 0.93 and square and lobes.max() < 0.08 else "unknown"
    if not square:
        return "unknown"
    strongest = int(lobes.argmax()) + 2
    if solidity < 0.72 and strongest == 5:
        return "star"
    if 0.6 < solidity < 0.86 and strongest == 4:
        return "cross"
    if solidity > 0.94 and extent > 0.9:
        return "square"
    if solidity > 0.94 and lobes.max() < 0.035:
        return "circle"
    if solidity > 0.88 and 0.42 < extent < 0.62 and strongest == 3 and not _has_notch(whole):
        return "triangle"
    if solidity > 0.82 and 0.58 < extent < 0.78 and _has_notch(whole):
        return "heart"
    return "unknown"


def _measure_hull(mask: Mask) -> float:
    """The area of the convex hull, in pixels."""
    rows, columns = np.nonzero(mask)
    points = np.stack([rows, columns], axis=1).astype(float)
    corners = np.concatenate([points + offset for offset in ((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5))])
    try:
        return float(ConvexHull(corners).volume)
    except QhullError:
        return float(mask.size)


def _measure_lobes(mask: Mask) -> NDArray[np.float64]:
    """How much the distance to the outline varies 2, 3 .. 8 times a turn, as a share of its mean."""
    rows, columns = np.nonzero(mask ^ ndimage.binary_erosion(mask))
    centre = ndimage.center_of_mass(mask)
    angles = np.arctan2(rows - centre[0], columns - centre[1])
    distances = np.hypot(rows - centre[0], columns - centre[1])
    order = np.argsort(angles)
    turn = np.linspace(-np.pi, np.pi, 180, endpoint=False)
    outline = np.interp(turn, angles[order], distances[order], period=2 * np.pi)
    spectrum = np.abs(np.fft.rfft(outline)) * 2 / len(turn)
    return np.asarray(spectrum[2:9] / outline.mean())


def _has_notch(mask: Mask) -> bool:
    """Whether the top has a dent in its middle, and the bottom is a point there."""
    height, width = mask.shape
    tops = mask.argmax(axis=0)
    middle = tops[round(width * 0.42) : max(round(width * 0.58), round(width * 0.42) + 1)].max()
    sides = min(tops[: width // 2].min(), tops[width // 2 :].min())
    point = np.nonzero(mask[-max(2, height // 12) :].any(axis=0))[0]
    pointed = np.ptp(point) < 0.5 * width and 0.3 < point.mean() / width < 0.7
    return bool(middle - sides >= max(1, 0.04 * height) and pointed)


def _to_lab(pixels: Pixels) -> NDArray[np.float64]:
    """CIELAB of sRGB pixels (IEC 61966-2-1, CIE 15, white D65)."""
    value = pixels.astype(np.float64) / 255
    linear = np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / np.array([0.9505, 1.0, 1.089])
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _name_colour(lab: NDArray[np.float64]) -> str:
    """The name whose colours are nearest."""
    names = [name for name, codes in _NAMED.items() for _ in codes]
    codes = [[int(code[i : i + 2], 16) for i in (0, 2, 4)] for codes in _NAMED.values() for code in codes]
    known = _to_lab(np.array([codes], dtype=np.uint8))[0]
    return names[int(np.linalg.norm(known - lab, axis=1).argmin())]
