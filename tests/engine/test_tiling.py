"""Tiles: every place is covered, and what a part does not see makes no difference away from the seams."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.tiling import blend_tiles, cut, place_tiles

Picture = NDArray[np.float32]
SIDES = st.integers(1, 40)


@st.composite
def tilings(draw: st.DrawFn) -> tuple[int, int]:
    tile = draw(st.integers(1, 20))
    return tile, draw(st.integers(0, tile - 1))


@given(length=st.integers(1, 200), tiling=tilings())
def test_tiles_cover_a_side_and_overlap(length: int, tiling: tuple[int, int]) -> None:
    tile, overlap = tiling
    starts = place_tiles(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] + tile >= length
    assert length <= tile or starts[-1] + tile == length
    for earlier, later in pairwise(starts):
        assert earlier < later <= earlier + tile - overlap


@given(height=SIDES, width=SIDES, tiling=tilings(), factor=st.integers(1, 4))
def test_work_that_looks_at_one_place_at_a_time_is_the_same_in_tiles(
    height: int, width: int, tiling: tuple[int, int], factor: int
) -> None:
    latent = np.random.default_rng(0).random((height, width, 3), dtype=np.float32)

    def paint(part: Picture) -> Picture:
        return np.repeat(np.repeat(part, factor, 0), factor, 1)

    tiled = blend_tiles(height, width, *tiling, factor, lambda rows, columns: paint(latent[rows, columns]))
    assert np.allclose(tiled, paint(latent), atol=1e-5)


@given(height=SIDES, width=SIDES, tiling=tilings())
def test_no_part_is_larger_than_a_tile(height: int, width: int, tiling: tuple[int, int]) -> None:
    for rows, columns in cut(height, width, *tiling):
        assert rows.stop - rows.start == min(height, tiling[0])
        assert columns.stop - columns.start == min(width, tiling[0])


def test_parts_that_differ_fade_into_each_other() -> None:
    painted = iter((0.0, 1.0))
    picture = blend_tiles(8, 14, 8, 2, 2, lambda *_: np.full((16, 16, 3), next(painted), np.float32))
    row = picture[5, :, 0]
    assert row[:12].tolist() == [0] * 12
    assert row[16:].tolist() == [1] * 12
    assert np.all(np.diff(row[11:17]) > 0.1)
