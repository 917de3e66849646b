"""Samplers and schedules of flow matching, against data of which the perfect model is known, and against diffusers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.conditioning import Conditioning
from engine.noise import draw_noise, seed_items
from engine.samplers import FLOW_SAMPLERS, SAMPLERS, find_sampler
from engine.sampling import Evaluation, Guidance, Sampling, sample
from engine.schedules import SCHEDULERS, FlowSchedule, space_sigmas

MEAN, SPREAD = 0.7, 0.5  # the data: each number drawn from N(MEAN, SPREAD**2)
SCHEDULE = FlowSchedule(3.0)
NOTHING = Guidance(Conditioning.of(torch.zeros(1, 77, 8)), Conditioning.of(torch.zeros(1, 77, 8)), 1.0)
DETERMINISTIC = sorted(name for name, sampler in FLOW_SAMPLERS.items() if sampler.noise is None)
SHAPE = 16, 8, 8


def answer(evaluation: Evaluation) -> Tensor:
    """The perfect velocity: the expected noise less the expected data, given their mixture."""
    sigma, latent = evaluation.sigma, evaluation.latent
    power = (SPREAD * (1 - sigma)) ** 2 + sigma**2
    clean = MEAN + SPREAD**2 * (1 - sigma) / power * (latent - (1 - sigma) * MEAN)
    return (latent - clean) / sigma


def finish(start: Tensor) -> Tensor:
    """Where the perfect way from noise ends: all quantiles are kept."""
    return MEAN + SPREAD * start


def make_run(sampler: str, scheduler: str = "normal", steps: int = 20, **changes: object) -> Sampling:
    skip_last = FLOW_SAMPLERS[sampler].skips_last_level
    sigmas = space_sigmas(SCHEDULE, scheduler, steps, skip_last=skip_last)
    run = Sampling(torch.zeros(2, *SHAPE), seed_items(3, range(2)), sampler, sigmas, SCHEDULE, "flow", NOTHING)
    return replace(run, **changes)  # type: ignore[arg-type]


def carry_out(run: Sampling) -> tuple[Tensor, list[Evaluation]]:
    asked: list[Evaluation] = []
    evaluations = sample(run)
    try:
        evaluation = next(evaluations)
        while True:
            asked.append(evaluation)
            evaluation = evaluations.send(answer(evaluation))
    except StopIteration as end:
        finished: Tensor = end.value
        return finished, asked


def measure(sampler: str, steps: int) -> float:
    found, _ = carry_out(make_run(sampler, steps=steps))
    return float((found - finish(draw_noise(seed_items(3, range(2)), SHAPE))).abs().mean())


@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_samplers_end_where_the_perfect_way_ends(sampler: str) -> None:
    rough, fine = measure(sampler, 20), measure(sampler, 80)
    assert fine < 0.02
    assert fine < rough / 2.5, "more steps come nearer"


@pytest.mark.parametrize("sampler", sorted(set(FLOW_SAMPLERS) - set(DETERMINISTIC)))
def test_samplers_with_noise_draw_the_data(sampler: str) -> None:
    found, _ = carry_out(make_run(sampler, steps=160))
    if sampler == "lcm":  # which is for models that jump to the end: here all ends in the middle of the data
        assert float(found.mean()) == pytest.approx(MEAN, abs=0.05)
    else:
        assert (float(found.mean()), float(found.std())) == pytest.approx((MEAN, SPREAD), abs=0.05)


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
@pytest.mark.parametrize("sampler", sorted(FLOW_SAMPLERS))
def test_every_sampler_follows_every_scheduler(sampler: str, scheduler: str) -> None:
    found, asked = carry_out(make_run(sampler, scheduler, 6))
    assert bool(found.isfinite().all())
    assert asked[-1].step == asked[-1].steps
    assert asked[0].timestep == pytest.approx(1000 * asked[0].sigma, rel=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_normal_is_the_spacing_of_diffusers(shift: float) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(12)
    assert space_sigmas(FlowSchedule(shift), "normal", 12) == pytest.approx(theirs.sigmas.numpy(), abs=1e-6)


def test_levels_are_those_of_diffusers() -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    assert np.flip(SCHEDULE.sigmas) == pytest.approx(theirs.sigmas.numpy(), abs=1e-6)


@given(st.floats(0.05, 1e6), st.sampled_from(sorted(SCHEDULERS)), st.integers(1, 40), st.sampled_from([0.3, 1.0]))
def test_levels_fall_from_noise_to_0(shift: float, scheduler: str, steps: int, denoise: float) -> None:
    sigmas = space_sigmas(FlowSchedule(shift), scheduler, steps, denoise)
    assert sigmas[-1] == 0
    assert np.all(np.diff(sigmas) < 0)
    assert sigmas[0] <= 1 + 1e-12


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m"])
def test_a_run_in_two_parts_is_the_whole_run(sampler: str) -> None:
    whole, _ = carry_out(make_run(sampler, steps=8))
    sigmas = space_sigmas(SCHEDULE, "normal", 8)
    first, _ = carry_out(make_run(sampler, sigmas=sigmas[:4]))
    second, _ = carry_out(make_run(sampler, sigmas=sigmas[3:], latent=first, adds_noise=False))
    # A multistep sampler forgets in between what it knew of the step before.
    assert torch.allclose(second, whole, atol=0.05 if sampler == "dpmpp_2m" else 1e-4)


def test_what_a_mask_keeps_is_kept_to_the_bit() -> None:
    kept = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(2, 1, *SHAPE[1:])
    mask[..., 4:] = 1
    found, asked = carry_out(make_run("euler", steps=6, latent=kept, mask=mask))
    assert torch.equal(found[..., :4], kept[..., :4])
    assert not torch.allclose(found[..., 4:], kept[..., 4:], atol=0.1)
    noise = draw_noise(seed_items(3, range(2)), SHAPE)
    shown = asked[2].latent[..., :4]
    expected = (1 - asked[2].sigma) * kept[..., :4] + asked[2].sigma * noise[..., :4]
    assert torch.allclose(shown, expected, atol=1e-5), "the model sees what is kept under the run's noise"


@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - set(FLOW_SAMPLERS)))
def test_a_sampler_that_is_not_there_for_flow_matching_is_refused_by_name(sampler: str) -> None:
    with pytest.raises(ValueError, match=f"no sampler '{sampler}' for models of flow matching.*: it is one of euler"):
        find_sampler(sampler, flow=True)
