"""Resampling, judged by torch, which ComfyUI uses for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.nodes.resize import METHODS, crop_to_aspect, resize

SIDES = st.integers(1, 24)


def draw_picture(rows: int, columns: int, batch: int = 2) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(rows * 100 + columns).random((batch, rows, columns, 3), np.float32)


@pytest.mark.parametrize("method", ["nearest-exact", "bilinear", "area", "bicubic"])
@given(rows=SIDES, columns=SIDES, width=SIDES, height=SIDES)
def test_it_does_what_torch_does(method: str, rows: int, columns: int, width: int, height: int) -> None:
    image = draw_picture(rows, columns)
    ours = resize(image, width, height, method)
    channels_first = torch.from_numpy(image).movedim(-1, 1)
    theirs = torch.nn.functional.interpolate(channels_first, size=(height, width), mode=method).movedim(1, -1)
    assert ours.shape == (2, height, width, 3)
    assert ours.dtype == np.float32
    lines, places = clear_of_edges(rows, height), clear_of_edges(columns, width)
    judged = np.ix_(range(2), lines, places, range(3)) if method == "nearest-exact" else ...
    np.testing.assert_allclose(ours[judged], theirs.numpy()[judged], atol=1e-5)  # torch weighs in float32


def clear_of_edges(old: int, new: int) -> list[int]:
    """The new pixels whose middle lies within an old one: on an edge either neighbour is the nearest."""
    return [line for line in range(new) if (2 * line + 1) * old % (2 * new)]


def test_the_nearest_of_two_equally_near_is_the_later() -> None:
    image = draw_picture(1, 2)
    np.testing.assert_array_equal(resize(image, 1, 1, "nearest-exact"), image[:, :, 1:])


def test_lanczos_keeps_a_plain_colour() -> None:
    image = np.full((1, 9, 5, 3), 51 / 255, np.float32)
    np.testing.assert_allclose(resize(image, 20, 30, "lanczos"), np.full((1, 30, 20, 3), 51 / 255), atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_size_changes_nothing(method: str) -> None:
    image = draw_picture(4, 6)
    assert resize(image, 6, 4, method) is image


@given(rows=SIDES, columns=SIDES, width=SIDES, height=SIDES)
def test_cropping_takes_the_middle_at_the_aspect(rows: int, columns: int, width: int, height: int) -> None:
    image = draw_picture(rows, columns, 1)
    cropped = crop_to_aspect(image, width, height)
    kept_rows, kept_columns = cropped.shape[1:3]
    assert kept_rows == rows or kept_columns == columns
    assert 1 <= kept_rows <= rows
    assert 1 <= kept_columns <= columns
    assert crop_to_aspect(draw_picture(10, 20), 10, 10).shape[1:3] == (10, 10)
    assert crop_to_aspect(draw_picture(20, 10), 10, 10).shape[1:3] == (10, 10)
