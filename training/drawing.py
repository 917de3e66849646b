"""Drawing: the pixels of a scene.

For: antialiased pictures of shapes, as outlines filled at four times the size and shrunk. Leaves what is shown to
`scenes`.
Invariant: pure; each shape fills the square of its radius about its centre, more or less, and stands upright unless it
is turned.
"""

import math
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from training.scenes import COLOURS, SHAPES, SIDE, Colour, Scene

Picture = NDArray[np.uint8]  # [height, width, 3]
Outline = Sequence[tuple[float, float]]

_SCALE = 4  # samples per pixel and direction
_HOLE = 0.56  # of a ring, of its radius
_ARM = 0.36  # half an arm's width of a cross, of its radius
_ROUND = 64  # corners that stand for a curve


def draw_picture(scene: Scene) -> Picture:
    """The picture [SIDE, SIDE, 3] of a scene."""
    image = Image.new("RGB", (SIDE, SIDE), COLOURS[scene.background])
    for figure in scene.figures:
        _paint(image, figure.shape, COLOURS[figure.colour], (figure.x, figure.y), figure.radius, 0.0)
    return np.asarray(image)


def draw_exercise(chance: random.Random) -> Picture:
    """A picture beyond the scenes, for the autoencoder alone: any colours, places, angles and up to three shapes."""
    image = Image.new("RGB", (SIDE, SIDE), _mix_colour(chance))
    for _ in range(chance.randint(0, 3)):
        centre = (chance.uniform(8, SIDE - 8), chance.uniform(8, SIDE - 8))
        _paint(image, chance.choice(SHAPES), _mix_colour(chance), centre, chance.uniform(8, 48), chance.uniform(0, 7))
    return np.asarray(image)


def _mix_colour(chance: random.Random) -> Colour:
    if chance.random() < 0.5:
        return chance.choice(list(COLOURS.values()))
    return chance.randint(0, 255), chance.randint(0, 255), chance.randint(0, 255)


def _paint(
    image: Image.Image, shape: str, colour: Colour, centre: tuple[float, float], radius: float, angle: float
) -> None:
    left, top = math.floor(centre[0] - 1.2 * radius) - 1, math.floor(centre[1] - 1.2 * radius) - 1
    extent = math.ceil(2.4 * radius) + 3
    mask = Image.new("L", (extent * _SCALE, extent * _SCALE))
    brush = ImageDraw.Draw(mask)
    sine, cosine = math.sin(angle), math.cos(angle)
    for outline, fill in _outline(shape):
        corners = [
            (
                (centre[0] - left + radius * (x * cosine - y * sine)) * _SCALE,
                (centre[1] - top + radius * (x * sine + y * cosine)) * _SCALE,
            )
            for x, y in outline
        ]
        brush.polygon(corners, fill=fill)
    image.paste(colour, (left, top), mask.reduce(_SCALE))


def _outline(shape: str) -> Sequence[tuple[Outline, int]]:
    """The outlines of a shape with radius 1 about the origin, and whether each is filled (255) or cut out (0)."""
    match shape:
        case "circle":
            return [(_turn(_ROUND, 1), 255)]
        case "ring":
            return [(_turn(_ROUND, 1), 255), (_turn(_ROUND, _HOLE), 0)]
        case "square":
            return [([(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)], 255)]
        case "triangle":
            return [([(0, -0.95), (1, 0.85), (-1, 0.85)], 255)]
        case "star":
            outer, inner = _turn(5, 1.1), _turn(5, 0.46, 0.5)
            return [([corner for pair in zip(outer, inner, strict=True) for corner in pair], 255)]
        case "cross":
            quarter = [(_ARM, -1.0), (_ARM, -_ARM), (1.0, -_ARM)]
            return [([_rotate(corner, turns) for turns in range(4) for corner in quarter], 255)]
        case "heart":
            angles = [2 * math.pi * step / _ROUND for step in range(_ROUND)]
            return [([_trace_heart(angle) for angle in angles], 255)]
    raise ValueError(f"unknown shape {shape!r}")


def _turn(corners: int, radius: float, offset: float = 0.0) -> list[tuple[float, float]]:
    """Corners on a circle, the first one on top."""
    angles = [2 * math.pi * (step + offset) / corners for step in range(corners)]
    return [(radius * math.sin(angle), -radius * math.cos(angle)) for angle in angles]


def _rotate(corner: tuple[float, float], turns: int) -> tuple[float, float]:
    x, y = corner
    for _ in range(turns):
        x, y = -y, x
    return x, y


def _trace_heart(angle: float) -> tuple[float, float]:
    # The well known heart of sines and cosines, which is 32 units wide.
    x = 16 * math.sin(angle) ** 3
    y = 13 * math.cos(angle) - 5 * math.cos(2 * angle) - 2 * math.cos(3 * angle) - math.cos(4 * angle)
    return x / 16, -(y + 2.5) / 16
