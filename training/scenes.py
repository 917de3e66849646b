"""Scenes: what a picture of the training set shows.

For: figures with shape, colour, size and place on a plain background, drawn at random, and which combinations are kept
out of training. Leaves words to `captions` and pixels to `drawing`.
Invariant: pure; a figure never has the colour of its background; what is unsaid has one meaning: one figure without a
place is in the centre, the first of two figures without places is on the left.
"""

import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

SIDE = 128  # pixels

SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "cross")

Colour: TypeAlias = tuple[int, int, int]

# Far from each other, so that each is told apart at a glance.
COLOURS: Mapping[str, Colour] = {
    "red": (222, 36, 36),
    "green": (34, 160, 60),
    "blue": (36, 76, 222),
    "yellow": (250, 218, 36),
    "orange": (246, 132, 28),
    "purple": (128, 48, 172),
    "pink": (250, 150, 192),
    "cyan": (48, 212, 226),
    "black": (14, 14, 14),
    "white": (250, 250, 250),
    "gray": (128, 128, 128),
    "brown": (122, 72, 38),
}

PLACES = ("left", "right", "top", "bottom", "centre")
SIZES = ("small", "medium", "large")

# Which places two figures take, the first one's first.
LAYOUTS = (("left", "right"), ("right", "left"), ("top", "bottom"), ("bottom", "top"))

# Radii in pixels. A small figure is still five cells of the latent wide: with fewer there is no telling shapes apart.
_ALONE = {"small": (19.0, 22.0), "medium": (29.0, 34.0), "large": (42.0, 47.0)}
_PAIRED = {"small": (16.5, 18.0), "medium": (21.0, 24.0), "large": (26.5, 29.0)}
_MARGIN = 3.0  # pixels between a figure and the edge of the picture
_JITTER = 3.0  # pixels that a figure may be off its place


@dataclass(frozen=True, slots=True)
class Figure:
    """A shape of one colour; `x`, `y` is its centre and `radius` its extent, in pixels."""

    shape: str
    colour: str
    size: str
    place: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Scene:
    """One or two figures on a plain background."""

    figures: tuple[Figure, ...]
    background: str


def draw_scene(chance: random.Random, amount: int | None = None, held_out: bool = False) -> Scene:
    """A scene of `amount` figures (one or two at random), from the combinations that training sees or does not see."""
    count = amount or (1 if chance.random() < 0.45 else 2)
    while True:
        scene = _draw_single(chance) if count == 1 else _draw_pair(chance)
        if is_held_out(scene) == held_out:
            return scene


def is_held_out(scene: Scene) -> bool:
    """Whether the combination of shapes, colours and background is kept for measuring: one of ten."""
    pairs = sorted(f"{figure.colour} {figure.shape}" for figure in scene.figures)
    return zlib.crc32(" ".join([*pairs, scene.background]).encode()) % 10 == 0


def _draw_single(chance: random.Random) -> Scene:
    background, colour = chance.sample(list(COLOURS), 2)
    size = chance.choice(SIZES)
    # The centre is what a caption without a place means: as frequent as all the others.
    place = "centre" if chance.random() < 0.5 else chance.choice(PLACES[:-1])
    return Scene((_place(chance, chance.choice(SHAPES), colour, size, place, _ALONE, 34.0),), background)


def _draw_pair(chance: random.Random) -> Scene:
    background = chance.choice(list(COLOURS))
    colours = [colour for colour in COLOURS if colour != background]
    while True:
        looks = [(chance.choice(SHAPES), chance.choice(colours)) for _ in range(2)]
        if looks[0] != looks[1]:
            break
    layout = LAYOUTS[0] if chance.random() < 0.5 else chance.choice(LAYOUTS)
    sizes = ["medium", "medium"] if chance.random() < 0.6 else [chance.choice(SIZES) for _ in range(2)]
    figures = tuple(
        _place(chance, shape, colour, size, place, _PAIRED, 32.0)
        for (shape, colour), size, place in zip(looks, sizes, layout, strict=True)
    )
    return Scene(figures, background)


def _place(
    chance: random.Random,
    shape: str,
    colour: str,
    size: str,
    place: str,
    radii: Mapping[str, tuple[float, float]],
    inset: float,
) -> Figure:
    radius = chance.uniform(*radii[size])
    near = max(inset, radius + _MARGIN)
    x = {"left": near, "right": SIDE - near}.get(place, SIDE / 2) + chance.uniform(-_JITTER, _JITTER)
    y = {"top": near, "bottom": SIDE - near}.get(place, SIDE / 2) + chance.uniform(-_JITTER, _JITTER)
    return Figure(shape, colour, size, place, x, y, radius)
