"""Noise levels: ComfyUI's spacings, and their tails."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.schedules import SCHEDULERS, NoiseSchedule, cut_sigmas, space_sigmas

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
    assert len(sigmas) <= steps + 1 or (name == "ddim_uniform" and denoise > 0.9999)
    assert sigmas[0] <= SCHEDULE.sigmas[-1] * (1 + 1e-12)
    assert sigmas[-2] >= SCHEDULE.sigmas[0] * (1 - 1e-12)


@given(name=st.sampled_from(sorted(set(SCHEDULERS) - {"ddim_uniform", "beta"})), steps=st.integers(1, 200))
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
        ("ddim_uniform", 4, [751, 501, 251, 1]),
        ("ddim_uniform", 3, [667, 334, 1]),
        ("beta", 1, [999]),
        ("beta", 2, [999, 500]),  # the median of 999 steps is rounded to the even one
    ],
)
def test_spacings_in_training_steps(name: str, steps: int, visited: list[int]) -> None:
    assert space_sigmas(SCHEDULE, name, steps) == pytest.approx([*SCHEDULE.sigmas[visited], 0])


def test_levels_between_training_steps_lie_between_their_logarithms() -> None:
    expected = SCHEDULE.sigmas[499] ** 0.5 * SCHEDULE.sigmas[500] ** 0.5
    assert space_sigmas(SCHEDULE, "sgm_uniform", 2)[1] == pytest.approx(expected)


def test_strides_that_do_not_fit_give_more_steps_than_asked_for() -> None:
    assert len(space_sigmas(SCHEDULE, "ddim_uniform", 30)) == 32
    assert len(space_sigmas(SCHEDULE, "ddim_uniform", 30, 0.5)) == 31, "a tail has what was asked for"


@given(steps=st.integers(1, 300))
def test_beta_takes_the_quantiles_of_its_distribution(steps: int) -> None:
    from scipy.stats import beta

    quantiles = beta.ppf([1 - step / steps for step in range(steps)], 0.6, 0.6)
    expected = sorted({SCHEDULE.sigmas[round(quantile * 999)] for quantile in quantiles}, reverse=True)
    assert space_sigmas(SCHEDULE, "beta", steps) == pytest.approx([*expected, 0])


@given(name=NAMES, steps=st.integers(1, 60))
def test_the_last_level_can_be_left_out(name: str, steps: int) -> None:
    longer = space_sigmas(SCHEDULE, name, steps + 1)
    assert space_sigmas(SCHEDULE, name, steps, skip_last=True).tolist() == [*longer[:-2], 0]


@given(
    steps=st.integers(1, 20),
    start=st.integers(0, 25),
    middle=st.integers(0, 25),
    end=st.integers(0, 25),
    data=st.data(),
)
def test_parts_of_a_run_make_the_whole(steps: int, start: int, middle: int, end: int, data: st.DataObject) -> None:
    whole = space_sigmas(SCHEDULE, "karras", steps)
    start, middle, end = sorted((start, middle, end))
    first = cut_sigmas(whole, start, middle, finish=False)
    second = cut_sigmas(whole, middle, end, finish=False)
    joined = [*first, *second[1:]] if len(first) else [*second]
    assert joined == whole[start : end + 1].tolist()


def test_a_part_that_finishes_leads_to_zero() -> None:
    whole = space_sigmas(SCHEDULE, "karras", 10)
    assert cut_sigmas(whole, 2, 5, finish=True).tolist() == [*whole[2:5], 0]
    assert cut_sigmas(whole, 2, 10000, finish=True).tolist() == whole[2:].tolist()
    for start, end in ((10, 10000), (11, 10000), (5, 5), (7, 3), (0, 0)):
        assert len(cut_sigmas(whole, start, end, finish=True)) < 2, "nothing to do"


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
    assert SCHEDULE.find_times(SCHEDULE.sigmas[[step]]).tolist() == [step]
    assert SCHEDULE.interpolate(np.array([float(step)])) == pytest.approx(SCHEDULE.sigmas[step])


@pytest.mark.parametrize("denoise", [1e-5, 1e-9, 1e-300])
def test_a_run_that_memory_could_not_hold_is_refused(denoise: float) -> None:
    with pytest.raises(ValueError, match="too long a run"):
        space_sigmas(SCHEDULE, "normal", 10_000, denoise)
