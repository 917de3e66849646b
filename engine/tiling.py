"""Tiling: a large picture made in parts that overlap.

For: work whose memory grows with the picture. Leaves what is done with a part to the caller, and knows no networks.
Invariant: every place is covered, and no part is larger than a tile.
"""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]


def place_tiles(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles start along a side: each overlaps the one before by `overlap` at least, which is below `tile`."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def cut(height: int, width: int, tile: int, overlap: int) -> Iterator[tuple[slice, slice]]:
    """The tiles of an area, row by row."""
    for top, left in product(place_tiles(height, tile, overlap), place_tiles(width, tile, overlap)):
        yield slice(top, min(top + tile, height)), slice(left, min(left + tile, width))


def blend_tiles(
    height: int, width: int, tile: int, overlap: int, factor: int, paint: Callable[[slice, slice], Picture]
) -> Picture:
    """The picture [height * factor, width * factor, 3] of an area.

    `paint` makes the part [rows * factor, columns * factor, 3] of a tile. Where tiles overlap, each fades out
    towards its edge.
    """
    canvas = np.zeros((height * factor, width * factor, 3), np.float32)
    weights = np.zeros((height * factor, width * factor, 1), np.float32)
    for rows, columns in cut(height, width, tile, overlap):
        part = paint(rows, columns)
        fade = _fade(part.shape[0], overlap * factor)[:, None, None] * _fade(part.shape[1], overlap * factor)[:, None]
        place = _stretch(rows, factor), _stretch(columns, factor)
        canvas[place] += part * fade
        weights[place] += fade
    canvas /= weights
    return canvas


def _fade(length: int, overlap: int) -> Picture:
    """Weights that rise over the overlap and fall again."""
    distance = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1))
    return np.minimum(1, distance / (overlap + 1)).astype(np.float32)


def _stretch(part: slice, factor: int) -> slice:
    return slice(part.start * factor, part.stop * factor)
