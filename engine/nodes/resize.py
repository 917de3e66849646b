"""Resampling of pictures and latents, as torch, Pillow and ComfyUI 0.3.64 itself do it, without torch.

For: changing the size of float pictures [B, H, W, C]. Leaves when to do so to the nodes.
Invariant: pure; every method but lanczos and bislerp is a matrix along each side, whose rows sum to one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
LATENT_METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "bislerp")

_CUBIC = -0.75  # torch's coefficient of cubic convolution
_PARALLEL = 1 - 1e-5  # the cosine from which two vectors count as parallel


def resize(image: NDArray[np.float32], width: int, height: int, method: str) -> NDArray[np.float32]:
    """The picture [B, H, W, C] as [B, height, width, C]. Raises KeyError for an unknown method."""
    rows, columns = image.shape[1:3]
    if (rows, columns) == (height, width):
        return image
    if method == "lanczos":
        return np.stack([_resize_lanczos(picture, width, height) for picture in image])
    if method == "bislerp":
        return _turn(_turn(image, width, 2), height, 1)
    weigh = _WEIGHTS[method]
    tall = np.tensordot(weigh(rows, height), image, axes=(1, 1))  # [height, B, W, C]
    wide = np.tensordot(weigh(columns, width), tall, axes=(1, 2))  # [width, height, B, C]
    return np.ascontiguousarray(wide.transpose(2, 1, 0, 3), np.float32)


def crop_to_aspect(image: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """The middle of the picture, as large as it can be at the aspect of width x height."""
    rows, columns = image.shape[1:3]
    old, new = columns / rows, width / height
    x = min(round((columns - columns * (new / old)) / 2), (columns - 1) // 2) if old > new else 0
    y = min(round((rows - rows * (old / new)) / 2), (rows - 1) // 2) if old < new else 0
    return image[:, y : rows - y, x : columns - x]


def _resize_lanczos(picture: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """By way of 8 bits, as ComfyUI does it."""
    bits = (picture * 255).clip(0, 255).astype(np.uint8)
    channels = [
        np.asarray(Image.fromarray(bits[..., c]).resize((width, height), Image.Resampling.LANCZOS))
        for c in range(bits.shape[-1])
    ]
    return np.stack(channels, axis=-1).astype(np.float32) / np.float32(255)


def _turn(image: NDArray[np.float32], new: int, axis: int) -> NDArray[np.float32]:
    """Between two neighbours, turn the one vector of channels towards the other, and let its length grow as a line.

    Parallel neighbours give the first as it is, opposite ones a straight line, as in ComfyUI.
    """
    below, above, part = _find_neighbours(image.shape[axis], new)
    first, second = np.take(image, below, axis), np.take(image, above, axis)
    part = part.reshape([-1 if place == axis else 1 for place in range(image.ndim)])
    lengths = [np.linalg.norm(vectors, axis=-1, keepdims=True) for vectors in (first, second)]
    tiny = np.finfo(np.float32).tiny
    units = [vectors / np.maximum(length, tiny) for vectors, length in zip((first, second), lengths, strict=True)]
    cosine = np.sum(units[0] * units[1], axis=-1, keepdims=True)
    angle = np.arccos(cosine.clip(-_PARALLEL, _PARALLEL))
    turned = (np.sin((1 - part) * angle) * units[0] + np.sin(part * angle) * units[1]) / np.sin(angle)
    turned *= lengths[0] * (1 - part) + lengths[1] * part
    straight = first * (1 - part) + second * part
    chosen = np.where(cosine > _PARALLEL, first, np.where(cosine < -_PARALLEL, straight, turned))
    return chosen.astype(np.float32)


def _find_neighbours(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each new pixel the old ones before and after its middle, and how far it is from the one to the other."""
    place = np.maximum((np.arange(new) + 0.5) * old / new - 0.5, 0)
    below = np.minimum(place.astype(np.intp), old - 1)
    return below, np.minimum(below + 1, old - 1), (place - below).astype(np.float32)


def _weigh_nearest(old: int, new: int) -> NDArray[np.float32]:
    """The old pixel that holds the new one's middle; exact, where torch lets rounding decide on an edge."""
    picked = (2 * np.arange(new) + 1) * old // (2 * new)
    weights = np.zeros((new, old), np.float32)
    weights[np.arange(new), picked] = 1
    return weights


def _weigh_bilinear(old: int, new: int) -> NDArray[np.float32]:
    below, above, part = _find_neighbours(old, new)
    weights = np.zeros((new, old), np.float32)
    lines = np.arange(new)
    np.add.at(weights, (lines, below), 1 - part)
    np.add.at(weights, (lines, above), part)
    return weights


def _weigh_area(old: int, new: int) -> NDArray[np.float32]:
    """The mean of the old pixels that a new one touches."""
    weights = np.zeros((new, old), np.float32)
    for line in range(new):
        start, end = line * old // new, -(-(line + 1) * old // new)
        weights[line, start:end] = 1 / (end - start)
    return weights


def _weigh_bicubic(old: int, new: int) -> NDArray[np.float32]:
    place = (np.arange(new) + 0.5) * old / new - 0.5
    below = np.floor(place).astype(int)
    part = place - below
    weights = np.zeros((new, old), np.float32)
    for tap in range(-1, 3):
        distance = np.abs(tap - part)
        near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1
        far = ((distance - 5) * distance + 8) * distance * _CUBIC - 4 * _CUBIC
        column = np.clip(below + tap, 0, old - 1)
        np.add.at(weights, (np.arange(new), column), np.where(distance <= 1, near, far).astype(np.float32))
    return weights


_WEIGHTS: dict[str, Callable[[int, int], NDArray[np.float32]]] = {
    "nearest-exact": _weigh_nearest,
    "bilinear": _weigh_bilinear,
    "area": _weigh_area,
    "bicubic": _weigh_bicubic,
}
