"""Filters, judged by torch, by Pillow and by hand."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, floor, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from engine.errors import InterruptError
from engine.nodes import filters, images
from engine.nodes.images import Picture
from tests.engine.contexts import RecordingContext
from tests.engine.graphs import make_folders, node
from tests.engine.running import run_graph

VALUES = st.floats(0, 1, width=32)
CONTEXT = RecordingContext()


def draw(rows: int, columns: int, batch: int = 1, channels: int = 3, seed: int = 0) -> Picture:
    return np.random.default_rng(seed).random((batch, rows, columns, channels), np.float32)


def soften(below: float, above: float) -> float:
    """Soft light of one value, as the W3C writes it."""
    if above <= 0.5:
        return below - (1 - 2 * above) * below * (1 - below)
    curve = ((16 * below - 12) * below + 4) * below if below <= 0.25 else sqrt(below)
    return below + (2 * above - 1) * (curve - below)


BY_HAND: dict[str, Callable[[float, float], float]] = {
    "normal": lambda below, above: above,
    "multiply": lambda below, above: below * above,
    "screen": lambda below, above: below + above - below * above,
    "overlay": lambda below, above: 2 * below * above if below <= 0.5 else 2 * (below + above) - 2 * below * above - 1,
    "soft_light": soften,
    "difference": lambda below, above: below - above,
}


@pytest.mark.parametrize("mode", filters.BLENDING)
@given(below=VALUES, above=VALUES, factor=st.floats(0, 1))
def test_values_are_blended_as_by_hand(mode: str, below: float, above: float, factor: float) -> None:
    first, second = (np.full((1, 1, 1, 3), value, np.float32) for value in (below, above))
    [blended] = filters.blend(CONTEXT, first, second, factor, mode)
    expected = below + (BY_HAND[mode](below, above) - below) * factor
    assert blended.dtype == np.float32
    np.testing.assert_allclose(blended, min(1, max(0, expected)), atol=1e-6)


@pytest.mark.parametrize("mode", ["multiply", "screen"])
def test_pictures_are_blended_as_by_pillow(mode: str) -> None:
    first, second = draw(6, 8, seed=1), draw(6, 8, seed=2)
    [blended] = filters.blend(CONTEXT, first, second, 1.0, mode)
    theirs = getattr(ImageChops, mode)(images.encode(first[0]), images.encode(second[0]))
    np.testing.assert_allclose(blended[0] * 255, np.asarray(theirs), atol=3)


def test_the_second_picture_is_fitted_to_the_first() -> None:
    first, second = draw(4, 6, batch=2), np.concatenate([draw(8, 12), np.full((1, 8, 12, 1), 0.5, np.float32)], axis=3)
    [blended] = filters.blend(CONTEXT, first, second, 1.0, "normal")
    [fitted] = images.scale(CONTEXT, second[..., :3], "bicubic", 6, 4, "disabled")
    np.testing.assert_allclose(blended, np.repeat(fitted.clip(0, 1), 2, axis=0), atol=1e-6)
    [opaque] = filters.blend(CONTEXT, second, first[:1], 1.0, "normal")
    assert opaque.shape == (1, 8, 12, 4)
    assert (opaque[..., 3] == 1).all()
    with pytest.raises(ValueError, match="shapes"):
        filters.blend(CONTEXT, draw(4, 6, batch=2), draw(4, 6, batch=3), 0.5, "normal")


def weigh_by_hand(radius: int, sigma: float) -> torch.Tensor:
    """The weights of a square of neighbours, where the middle of a side is at distance 1."""
    side = range(-radius, radius + 1)
    weights = torch.tensor([[exp(-(x * x + y * y) / radius**2 / (2 * sigma**2)) for x in side] for y in side])
    return weights / weights.sum()


def convolve(image: Picture, weights: torch.Tensor) -> Picture:
    """By torch, with mirrored edges."""
    radius, channels = len(weights) // 2, image.shape[-1]
    padded = torch.nn.functional.pad(torch.from_numpy(image).movedim(-1, 1), (radius,) * 4, mode="reflect")
    return (
        torch.nn.functional.conv2d(padded, weights.expand(channels, 1, -1, -1), groups=channels).movedim(1, -1).numpy()
    )


@settings(max_examples=30)
@given(radius=st.integers(1, 31), sigma=st.floats(0.1, 10), rows=st.integers(32, 40), columns=st.integers(32, 40))
def test_blurring_and_sharpening_do_what_torch_does(radius: int, sigma: float, rows: int, columns: int) -> None:
    image = draw(rows, columns, batch=2)
    weights = weigh_by_hand(radius, sigma)
    np.testing.assert_allclose(filters.blur(CONTEXT, image, radius, sigma)[0], convolve(image, weights), atol=1e-5)
    alpha = 0.7
    weights = -10 * alpha * weights
    weights[radius, radius] += 1 + 10 * alpha
    expected = convolve(image, weights).clip(0, 1)
    np.testing.assert_allclose(filters.sharpen(CONTEXT, image, radius, sigma, alpha)[0], expected, atol=2e-4)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 9), (5, 2)])
def test_pictures_smaller_than_the_radius_are_blurred_too(rows: int, columns: int) -> None:
    [plain] = filters.blur(CONTEXT, np.full((1, rows, columns, 3), 0.3, np.float32), 31, 1.0)
    np.testing.assert_allclose(plain, 0.3, atol=1e-6)


def count_colours(picture: Picture) -> int:
    return len(np.unique(picture.reshape(-1, 3), axis=0))


@pytest.mark.parametrize("dither", filters.DITHERING)
@pytest.mark.parametrize("colors", [1, 2, 7, 256])
def test_no_more_colours_than_asked_for(dither: str, colors: int) -> None:
    image = draw(20, 30, batch=2)
    [reduced] = filters.quantize(CONTEXT, image, colors, dither)
    assert reduced.shape == image.shape
    assert reduced.dtype == np.float32
    assert all(1 <= count_colours(picture) <= colors for picture in reduced)


@pytest.mark.parametrize("dither", filters.DITHERING)
def test_colours_that_are_few_enough_are_kept(dither: str) -> None:
    image = np.zeros((1, 16, 16, 3), np.float32)
    image[:, :8] = 1
    np.testing.assert_array_equal(filters.quantize(CONTEXT, image, 2, "none")[0], image)
    assert set(np.unique(filters.quantize(CONTEXT, image, 2, dither)[0])) <= {0.0, 1.0}


def test_dithering_keeps_the_mean_brightness() -> None:
    ramp = np.repeat(np.linspace(0, 1, 64, dtype=np.float32)[np.newaxis, np.newaxis, :, np.newaxis], 3, axis=3)
    ramp = np.repeat(ramp, 64, axis=1)
    [plain] = filters.quantize(CONTEXT, ramp, 2, "none")
    [dithered] = filters.quantize(CONTEXT, ramp, 2, "floyd-steinberg")
    strip = slice(20, 44)
    error = [abs(float((each - ramp)[:, :, strip].mean(axis=1).std())) for each in (plain, dithered)]
    assert error[1] < error[0] / 3


BAYER_4 = [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]  # as Bayer published it


def test_an_ordered_pattern_is_bayers() -> None:
    image = draw(9, 10, seed=3)
    [reduced] = filters.quantize(CONTEXT, image, 8, "bayer-4")
    original = images.encode(image[0])
    palette = original.quantize(colors=8)
    shifted = Image.new("RGB", original.size)
    for y in range(9):
        for x in range(10):
            pattern = 64 * ((BAYER_4[y % 4][x % 4] + 0.5) / 16 - 0.5) + 0.5  # 64: twice the step between 8 colours
            pixel = original.getpixel((x, y))
            assert isinstance(pixel, tuple)
            red, green, blue = (floor(min(255, max(0, value + pattern))) for value in pixel)
            shifted.putpixel((x, y), (red, green, blue))
    expected = shifted.quantize(palette=palette, dither=Image.Dither.NONE).convert("RGB")
    np.testing.assert_array_equal(images.encode(reduced[0]), expected)


@pytest.mark.parametrize("kind", ["blur", "quantize"])
def test_an_interrupt_comes_through_between_pictures(kind: str) -> None:
    context = RecordingContext(interrupt_at=0)
    with pytest.raises(InterruptError):
        context.progress(0, 1)
    with pytest.raises(InterruptError):
        filters.blur(context, draw(4, 4), 1, 1.0) if kind == "blur" else filters.quantize(
            context, draw(4, 4), 2, "none"
        )


def test_filters_in_a_row_in_the_engine(tmp_path: Path) -> None:
    folders = make_folders(tmp_path)
    graph = {
        "1": node("EmptyImage", width=8, height=8, batch_size=1, color=0x804020),
        "2": node("EmptyImage", width=4, height=4, batch_size=1, color=0xFFFFFF),
        "3": node("ImageBlend", image1=["1", 0], image2=["2", 0], blend_factor=0.5, blend_mode="multiply"),
        "4": node("ImageBlur", image=["3", 0], blur_radius=2, sigma=1.0),
        "5": node("ImageSharpen", image=["4", 0], sharpen_radius=1, sigma=1.0, alpha=1.0),
        "6": node("ImageQuantize", image=["5", 0], colors=2, dither="none"),
        "7": node("SaveImage", images=["6", 0], filename_prefix="filtered"),
    }
    record = run_graph(graph, folders)
    assert record["status"]["status_str"] == "success"
    with Image.open(folders.output / "filtered_00001_.png") as saved:
        np.testing.assert_allclose(np.asarray(saved), np.full((8, 8, 3), [0x80, 0x40, 0x20]), atol=1)
