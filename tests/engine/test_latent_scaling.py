"""Latents in other sizes, judged by torch and by hand."""

from __future__ import annotations

from math import acos, floor, sin

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.latents import Latent
from engine.nodes import latent_scaling
from engine.nodes.resize import LATENT_METHODS, resize
from tests.engine.contexts import RecordingContext

CONTEXT = RecordingContext()
SIDES = st.integers(1, 12)
Vector = list[float]


def draw(rows: int, columns: int, batch: int = 2) -> Latent:
    generator = torch.Generator().manual_seed(rows * 100 + columns)
    return Latent(torch.randn(batch, 4, rows, columns, generator=generator), [5, 7][:batch])


@pytest.mark.parametrize("method", ["bilinear", "area", "bicubic"])
@settings(max_examples=30)
@given(rows=SIDES, columns=SIDES, factor=st.floats(0.3, 4))
def test_it_does_what_torch_does(method: str, rows: int, columns: int, factor: float) -> None:
    latent = draw(rows, columns)
    [scaled] = latent_scaling.scale_by(CONTEXT, latent, method, factor)
    size = (max(1, round(rows * factor)), max(1, round(columns * factor)))
    expected = torch.nn.functional.interpolate(latent.samples, size=size, mode=method)
    torch.testing.assert_close(scaled.samples, expected, atol=1e-5, rtol=1e-5)
    assert scaled.samples.is_contiguous()
    assert list(scaled.indices) == [5, 7]


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (0, 0, (6, 10)),
        (160, 0, (12, 20)),
        (0, 96, (12, 20)),
        (8, 0, (8, 8)),
        (0, 8, (8, 13)),
        (8, 8, (8, 8)),
        (128, 72, (9, 16)),
        (100, 100, (12, 12)),
    ],
)
def test_sides_of_nothing_follow_from_the_other(width: int, height: int, expected: tuple[int, int]) -> None:
    latent = draw(6, 10)
    [scaled] = latent_scaling.scale(CONTEXT, latent, "nearest-exact", width, height, "disabled")
    assert scaled.samples.shape[2:] == expected


def test_the_middle_is_kept_when_the_aspect_changes() -> None:
    latent = draw(8, 16)
    [scaled] = latent_scaling.scale(CONTEXT, latent, "nearest-exact", 64, 64, "center")
    assert torch.equal(scaled.samples, latent.samples[:, :, :, 4:12])


def test_what_else_a_latent_holds_is_kept() -> None:
    mask = torch.ones(1, 1, 16, 16)
    latent = Latent(draw(2, 2).samples, [3, 7], mask)
    [scaled] = latent_scaling.scale_by(CONTEXT, latent, "area", 2.0)
    assert list(scaled.indices) == [3, 7]
    assert scaled.noise_mask is mask


def turn(first: Vector, second: Vector, part: float) -> Vector:
    """Spherical interpolation of two vectors, by the textbook, with lengths that grow as a line."""
    lengths = [sum(value * value for value in vector) ** 0.5 for vector in (first, second)]
    cosine = sum(a * b for a, b in zip(first, second, strict=True)) / (lengths[0] * lengths[1])
    if cosine > 1 - 1e-5:
        return first
    angle = acos(cosine)
    length = lengths[0] * (1 - part) + lengths[1] * part
    weights = [sin(share * angle) / sin(angle) / own for share, own in zip((1 - part, part), lengths, strict=True)]
    return [length * (weights[0] * a + weights[1] * b) for a, b in zip(first, second, strict=True)]


def turn_line(line: list[Vector], new: int) -> list[Vector]:
    turned = []
    for index in range(new):
        place = min(max((index + 0.5) * len(line) / new - 0.5, 0), len(line) - 1)
        below = floor(place)
        turned.append(turn(line[below], line[min(below + 1, len(line) - 1)], place - below))
    return turned


@settings(max_examples=30)
@given(rows=SIDES, columns=SIDES, height=SIDES, width=SIDES)
def test_bislerp_turns_vectors_first_along_the_width(rows: int, columns: int, height: int, width: int) -> None:
    image = np.random.default_rng(rows * 100 + columns).standard_normal((1, rows, columns, 4)).astype(np.float32)
    wide = [turn_line(line, width) for line in image[0].astype(float).tolist()]
    tall = [turn_line([line[place] for line in wide], height) for place in range(width)]
    expected = np.array(tall).transpose(1, 0, 2)[np.newaxis]
    np.testing.assert_allclose(resize(image, width, height, "bislerp"), expected, atol=1e-4)


def test_bislerp_of_vectors_that_cannot_be_turned() -> None:
    def between(first: Vector, second: Vector) -> Vector:
        line = np.array([[[first, second]]], np.float32)
        middle: Vector = resize(line, 4, 1, "bislerp")[0, 0, 1].tolist()  # a quarter of the way
        return middle

    assert between([1, 2], [3, 6]) == [1, 2]
    assert between([4, 0], [-4, 0]) == [2, 0]
    assert between([0, 0], [0, 0]) == [0, 0]
    assert np.isfinite(between([0, 0], [1, 1])).all()


@pytest.mark.parametrize("method", LATENT_METHODS)
def test_every_method_keeps_a_plain_latent(method: str) -> None:
    latent = Latent.of(torch.full((1, 4, 3, 5), 0.5))
    [scaled] = latent_scaling.scale_by(CONTEXT, latent, method, 1.7)
    torch.testing.assert_close(scaled.samples, torch.full((1, 4, 5, 8), 0.5))
