"""Noise levels: ComfyUI's spacings, and their tails."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.schedules import SCHEDULERS, NoiseSchedule, space_sigmas

BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2  # Stable Diffusion 1
SCHEDULE = NoiseSchedule.of_alphas(np.cumprod(1 - BETAS))
NAMES = st.sampled_from(sorted(SCHEDULERS))


def test_levels_are_those_of_stable_diffusion() -> None:
    assert SCHEDULE.sigmas[0] == pytest.approx(0.0292, abs=1e-4)
    assert SCHEDULE.sigmas[-1] == pytest.approx(14.6146, abs=1e-3)
    assert SCHEDULE.alphas_cumprod == pytest.approx(np.cumprod(1 - BETAS))


@given(name=NAMES, steps=st.integers(1, 2000), denoise=st.floats(0.01, 1))
def test_a_run_falls_to_zero_within_the_levels_of_the_model(name: str, steps: int, denoise: float) -> None:
    sigmas = space_sigmas(SCHEDULE, name, steps, denoise)
    assert sigmas[-1] == 0
    assert np.all(np.diff(sigmas) < 0)
    assert len(sigmas) <= steps + 1
    assert sigmas[0] <= SCHEDULE.sigmas[-1] * (1 + 1e-12)
    assert sigmas[-2] >= SCHEDULE.sigmas[0] * (1 - 1e-12)


@given(name=NAMES, steps=st.integers(1, 200))
def test_a_whole_run_has_all_steps_and_starts_from_the_most_noise(name: str, steps: int) -> None:
    sigmas = space_sigmas(SCHEDULE, name, steps)
    assert len(sigmas) == steps + 1
    assert sigmas[0] == pytest.approx(SCHEDULE.sigmas[-1])


@pytest.mark.parametrize(
    ("name", "steps", "visited"),
    [
        ("normal", 4, [999, 666, 333, 0]),  # the last of which is not yet without noise
        ("normal", 1, [999]),
        ("sgm_uniform", 3, [999, 666, 333]),
        ("simple", 4, [999, 749, 499, 249]),
    ],
)
def test_spacings_in_training_steps(name: str, steps: int, visited: list[int]) -> None:
    assert space_sigmas(SCHEDULE, name, steps) == pytest.approx([*SCHEDULE.sigmas[visited], 0])


def test_levels_between_training_steps_lie_between_their_logarithms() -> None:
    expected = SCHEDULE.sigmas[499] ** 0.5 * SCHEDULE.sigmas[500] ** 0.5
    assert space_sigmas(SCHEDULE, "sgm_uniform", 2)[1] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "option"), [("karras", "use_karras_sigmas"), ("exponential", "use_exponential_sigmas")]
)
def test_spacings_that_diffusers_has_as_well(name: str, option: str) -> None:
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

    theirs = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **{option: True})
    theirs.set_timesteps(12)
    assert space_sigmas(SCHEDULE, name, 12) == pytest.approx(theirs.sigmas.numpy(), rel=1e-4)


def test_denoise_takes_the_tail_of_a_longer_run() -> None:
    assert space_sigmas(SCHEDULE, "normal", 10, 0.5) == pytest.approx(space_sigmas(SCHEDULE, "normal", 20)[-11:])
    assert len(space_sigmas(SCHEDULE, "normal", 10, 0.0)) == 0


def test_an_unknown_scheduler_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown scheduler 'cosine': it is one of normal"):
        space_sigmas(SCHEDULE, "cosine", 10)


@given(step=st.integers(0, 999))
def test_a_level_is_found_where_it_lies(step: int) -> None:
    assert SCHEDULE.find_steps(SCHEDULE.sigmas[[step]]).tolist() == [step]
    assert SCHEDULE.interpolate(np.array([float(step)])) == pytest.approx(SCHEDULE.sigmas[step])
