"""Filters: nodes that change what pictures show, pixel by pixel or from a pixel's neighbours.

For: ImageBlend, ImageBlur, ImageSharpen and ImageQuantize, with the names, inputs, limits and formulas of ComfyUI
0.3.64, without torch. Leaves sizes to `images` and resampling to `resize`.
Invariant: pure; a picture keeps its size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from engine.nodes.images import Picture, encode
from engine.nodes.resize import crop_to_aspect, resize
from engine.nodes.spec import Context, Input, Node, Output

_SHARPENING = 10  # how often the difference to the blurred picture is added, at an alpha of 1
_MAX_RADIUS = 31


def blend(context: Context, image1: Picture, image2: Picture, blend_factor: float, blend_mode: str) -> tuple[Picture]:
    """`blend_factor` of the way from the first batch to what `blend_mode` makes of both, cut to 0..1.

    The second is fitted to the size and the channels of the first. Raises ValueError for batches of different length,
    unless one is of length 1.
    """
    rows, columns, channels = image1.shape[1:]
    if image1.shape != image2.shape:
        image2 = resize(crop_to_aspect(image2, columns, rows), columns, rows, "bicubic")
        image2 = _fit_channels(image2, channels)
    mixed = BLENDING[blend_mode](image1, image2)
    return ((image1 * (1 - blend_factor) + mixed * blend_factor).clip(0, 1),)


def _fit_channels(image: Picture, channels: int) -> Picture:
    """Leave alpha out, or add one that is opaque."""
    missing = max(0, channels - image.shape[-1])
    return np.pad(image[..., :channels], [(0, 0)] * 3 + [(0, missing)], constant_values=1)


def _screen(below: Picture, above: Picture) -> Picture:
    return 1 - (1 - below) * (1 - above)


def _overlay(below: Picture, above: Picture) -> Picture:
    return np.where(below <= 0.5, 2 * below * above, 1 - 2 * (1 - below) * (1 - above))


def _soften(below: Picture, above: Picture) -> Picture:
    """Soft light, as the W3C's "Compositing and Blending" defines it."""
    dark = below - (1 - 2 * above) * below * (1 - below)
    curve = np.where(below <= 0.25, ((16 * below - 12) * below + 4) * below, np.sqrt(np.maximum(below, 0)))
    return np.where(above <= 0.5, dark, below + (2 * above - 1) * (curve - below))


BLENDING: dict[str, Callable[[Picture, Picture], Picture]] = {
    "normal": lambda below, above: above,
    "multiply": lambda below, above: below * above,
    "screen": _screen,
    "overlay": _overlay,
    "soft_light": _soften,
    "difference": lambda below, above: below - above,  # signed: the cut to 0..1 comes after the mixing
}


def blur(context: Context, image: Picture, blur_radius: int, sigma: float) -> tuple[Picture]:
    """The mean of each pixel's neighbours up to `blur_radius` away, weighted by a Gaussian.

    `sigma` is in radii, not in pixels. Edges are mirrored.
    """
    return (_blur(context, image, blur_radius, sigma),)


def sharpen(context: Context, image: Picture, sharpen_radius: int, sigma: float, alpha: float) -> tuple[Picture]:
    """Add what blurring takes away, ten times `alpha`; cut to 0..1."""
    lost = image - _blur(context, image, sharpen_radius, sigma)
    return ((image + np.float32(_SHARPENING * alpha) * lost).clip(0, 1),)


def _blur(context: Context, image: Picture, radius: int, sigma: float) -> Picture:
    distances = np.linspace(-1, 1, 2 * radius + 1)
    weights = np.exp(-(distances**2) / (2 * sigma**2))
    weights = (weights / weights.sum()).astype(np.float32)
    blurred = np.empty_like(image)
    for index, picture in enumerate(image):
        context.check()
        blurred[index] = _convolve(_convolve(picture, weights).swapaxes(0, 1), weights).swapaxes(0, 1)
    return blurred


def _convolve(picture: Picture, weights: Picture) -> Picture:
    """Along the first axis."""
    radius, length = len(weights) // 2, len(picture)
    # In one piece: five times as quick as rows that lie apart.
    padded = np.pad(np.ascontiguousarray(picture), [(radius, radius), (0, 0), (0, 0)], mode="reflect")
    summed = np.zeros(picture.shape, np.float32)
    for offset, weight in enumerate(weights):
        summed += weight * padded[offset : offset + length]
    return summed


def quantize(context: Context, image: Picture, colors: int, dither: str) -> tuple[Picture]:
    """Each picture in at most `colors` colours, chosen for it by median cut; dithered, or the nearest colour each."""
    pictures: list[Picture] = []
    for picture in image:
        context.check()
        original = encode(picture[..., :3]).convert("RGB")
        palette = original.quantize(colors=colors)
        # A second pass with a palette given: Pillow dithers in no other way.
        reduced = DITHERING[dither](original, palette)
        pictures.append(np.asarray(reduced.convert("RGB"), np.float32) / np.float32(255))
    return (np.stack(pictures),)


def _dither_ordered(original: Image.Image, palette: Image.Image, order: int) -> Image.Image:
    """Add a pattern that repeats every `order` pixels, as strong as colours are apart, and take the nearest colour."""
    spread = 2 * 256 / (len(palette.getpalette() or []) // 3)
    pattern = spread * ((_rank_bayer(order) + 0.5) / order**2 - 0.5) + 0.5
    rows, columns = np.indices((original.height, original.width)) % order
    shifted = np.asarray(original, np.float32) + pattern[rows, columns, np.newaxis].astype(np.float32)
    moved = Image.fromarray(shifted.clip(0, 255).astype(np.uint8))
    return moved.quantize(palette=palette, dither=Image.Dither.NONE)


def _rank_bayer(order: int) -> Picture:
    """Bayer's matrix, [order, order]: each number below its size once; neighbours are far apart."""
    if order == 1:
        return np.zeros((1, 1), np.float32)
    quarter = 4 * _rank_bayer(order // 2)
    return np.block([[quarter, quarter + 2], [quarter + 3, quarter + 1]]).astype(np.float32)


DITHERING: dict[str, Callable[[Image.Image, Image.Image], Image.Image]] = {
    "none": lambda original, palette: original.quantize(palette=palette, dither=Image.Dither.NONE),
    "floyd-steinberg": lambda original, palette: original.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG),
    "bayer-2": lambda original, palette: _dither_ordered(original, palette, 2),
    "bayer-4": lambda original, palette: _dither_ordered(original, palette, 4),
    "bayer-8": lambda original, palette: _dither_ordered(original, palette, 8),
    "bayer-16": lambda original, palette: _dither_ordered(original, palette, 16),
}


_IMAGE = Input("IMAGE")
_RADIUS = Input("INT", {"default": 1, "min": 1, "max": _MAX_RADIUS, "step": 1})


def _real(default: float, minimum: float, maximum: float, step: float) -> Input:
    return Input("FLOAT", {"default": default, "min": minimum, "max": maximum, "step": step})


NODES = (
    Node(
        "ImageBlend",
        blend,
        "image/postprocessing",
        required={
            "image1": _IMAGE,
            "image2": _IMAGE,
            "blend_factor": _real(0.5, 0.0, 1.0, 0.01),
            "blend_mode": Input(choices=tuple(BLENDING)),
        },
        outputs=(Output("IMAGE"),),
        display_name="Image Blend",
        description="Mixes two batches of pictures.",
    ),
    Node(
        "ImageBlur",
        blur,
        "image/postprocessing",
        required={"image": _IMAGE, "blur_radius": _RADIUS, "sigma": _real(1.0, 0.1, 10.0, 0.1)},
        outputs=(Output("IMAGE"),),
        display_name="Image Blur",
        description="Blurs pictures with a Gaussian.",
    ),
    Node(
        "ImageQuantize",
        quantize,
        "image/postprocessing",
        required={
            "image": _IMAGE,
            "colors": Input("INT", {"default": 256, "min": 1, "max": 256, "step": 1}),
            "dither": Input(choices=tuple(DITHERING)),
        },
        outputs=(Output("IMAGE"),),
        display_name="Image Quantize",
        description="Reduces pictures to a number of colours, dithered or not.",
    ),
    Node(
        "ImageSharpen",
        sharpen,
        "image/postprocessing",
        required={
            "image": _IMAGE,
            "sharpen_radius": _RADIUS,
            "sigma": _real(1.0, 0.1, 10.0, 0.01),
            "alpha": _real(1.0, 0.0, 5.0, 0.01),
        },
        outputs=(Output("IMAGE"),),
        display_name="Image Sharpen",
        description="Sharpens pictures by adding what blurring takes away.",
    ),
)
