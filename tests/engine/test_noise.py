"""Noise: an item's own, whoever is beside it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.noise import Path, draw_noise, seed_items

SHAPE = (4, 8, 8)
SEEDS = st.integers(0, 2**64 - 1)


@given(seed=SEEDS, size=st.integers(1, 5))
def test_an_item_of_a_batch_is_what_its_own_seed_draws_alone(seed: int, size: int) -> None:
    batch = draw_noise(seed_items(seed, range(size)), SHAPE)
    for index in range(size):
        alone = draw_noise(seed_items((seed + index) % 2**64, [0]), SHAPE)
        assert torch.equal(batch[index], alone[0])


@given(seed=SEEDS)
def test_one_item_draws_what_comfyui_draws(seed: int) -> None:
    expected = torch.randn((1, *SHAPE), generator=torch.Generator("cpu").manual_seed(seed))
    assert torch.equal(draw_noise(seed_items(seed, [0]), SHAPE), expected)


def test_noise_goes_on_from_where_it_was() -> None:
    together, alone = seed_items(7, [0, 1]), seed_items(8, [0])
    for _ in range(3):
        assert torch.equal(draw_noise(together, SHAPE)[1:], draw_noise(alone, SHAPE))


def test_noise_is_standard_normal() -> None:
    noise = draw_noise(seed_items(0, range(64)), (4, 32, 32))
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert float(noise.std()) == pytest.approx(1, abs=0.01)


@given(ratio=st.floats(1.01, 30), share=st.floats(0.1, 0.9))
def test_a_path_hangs_together_over_a_step_and_not_over_two(ratio: float, share: float) -> None:
    high, low = torch.tensor(10.0), torch.tensor(10.0 / ratio)
    middle = high ** (1 - share) * low**share
    path = Path(seed_items(0, range(4)), (64, 64))
    half, whole, later = path(high, middle), path(high, low), path(low, low / 2)
    for noise in (half, whole, later):
        assert float(noise.mean()) == pytest.approx(0, abs=0.05)
        assert float(noise.std()) == pytest.approx(1, abs=0.05)
    expected = float((high - middle) / (high - low)) ** 0.5
    assert float((half * whole).mean()) == pytest.approx(expected, abs=0.05)
    assert float((whole * later).mean()) == pytest.approx(0, abs=0.05)
