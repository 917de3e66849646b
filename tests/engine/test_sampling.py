"""Samplers, against data of which the perfect model is known: each number drawn from N(MEAN, SPREAD**2)."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.conditioning import Conditioning
from engine.noise import draw_noise, seed_items
from engine.samplers import FLOW_SAMPLERS, SAMPLERS
from engine.sampling import Evaluation, Guidance, PredictionType, Sampling, sample
from engine.schedules import SCHEDULERS, NoiseSchedule, space_sigmas

MEAN, SPREAD = 0.7, 0.5
LOW = 0.1  # where measured runs stop: the last step into 0 is of first order for all of them
SCHEDULE = NoiseSchedule.of_alphas(np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2))
NOTHING = Guidance(Conditioning.of(torch.zeros(1, 77, 8)), Conditioning.of(torch.zeros(1, 77, 8)), 1.0)
ORDERS = {"euler": 1, "ddim": 1, "heun": 2, "dpm_2": 2, "dpmpp_2m": 2, "uni_pc": 3, "uni_pc_bh2": 3}
DETERMINISTIC = sorted(name for name, sampler in SAMPLERS.items() if sampler.noise is None)


def answer(evaluation: Evaluation) -> Tensor:
    """The perfect prediction: the expected data given noisy ones is a weighted mean, as both are Gaussian."""
    sigma = evaluation.sigma
    noisy = evaluation.latent * math.hypot(sigma, 1)
    clean = (SPREAD**2 * noisy + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)
    noise = (noisy - clean) / sigma
    if evaluation.prediction_type == "epsilon":
        return noise
    return (noise - sigma * clean) / math.hypot(sigma, 1)


def make_run(
    sampler: str,
    scheduler: str = "karras",
    steps: int = 20,
    *,
    seed: int = 3,
    indices: range = range(2),
    prediction_type: PredictionType = "epsilon",
    denoise: float = 1.0,
    latent: Tensor | None = None,
) -> Sampling:
    if latent is None:
        latent = torch.zeros(len(indices), 4, 8, 8)
    skip_last = sampler in SAMPLERS and SAMPLERS[sampler].skips_last_level
    sigmas = space_sigmas(SCHEDULE, scheduler, steps, denoise, skip_last=skip_last)
    return Sampling(latent, seed_items(seed, indices), sampler, sigmas, SCHEDULE, prediction_type, NOTHING)


def carry_out(run: Sampling) -> tuple[Tensor, list[Evaluation]]:
    asked: list[Evaluation] = []
    evaluations = sample(run)
    try:
        asked.append(next(evaluations))
        while True:
            asked.append(evaluations.send(answer(asked[-1])))
    except StopIteration as end:
        result: Tensor = end.value
        return result, asked


def carry_down(sampler: str, steps: int, size: int = 2, prediction_type: PredictionType = "epsilon") -> Tensor:
    """From noise to a level above 0, in steps of equal ratio."""
    sigmas = np.geomspace(SCHEDULE.sigmas[-1], LOW, steps + 1)
    return carry_out(replace(make_run(sampler, indices=range(size), prediction_type=prediction_type), sigmas=sigmas))[0]


def follow_exactly(seed: int, size: int, sigma: float = 0.0) -> Tensor:
    """Where the flow leads from the noise of a whole run: for Gaussian data it scales what is above the mean."""
    first = float(SCHEDULE.sigmas[-1])
    start = draw_noise(seed_items(seed, range(size)), (4, 8, 8)) * math.hypot(first, 1)
    return MEAN + (start - MEAN) * math.hypot(SPREAD, sigma) / math.hypot(SPREAD, first)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_samplers_without_noise_follow_the_flow(sampler: str, prediction_type: PredictionType) -> None:
    exact = follow_exactly(3, 2, LOW)

    def measure(steps: int) -> float:
        return float((carry_down(sampler, steps, prediction_type=prediction_type) - exact).abs().max())

    coarse, fine = measure(20), measure(40)
    assert 1 / 4 < fine / coarse * 2 ** (ORDERS[sampler] - 1) < 1 / 1.4, "halved steps halve the error, once an order"


@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_samplers_without_noise_end_where_the_flow_does(sampler: str) -> None:
    result, _ = carry_out(make_run(sampler, steps=100))
    assert float((result - follow_exactly(3, 2)).abs().max()) < 0.03


def test_a_sampler_that_follows_a_path_has_its_noise_to_second_order() -> None:
    def measure(sampler: str) -> float:
        return abs(float(carry_down(sampler, 10, 24).std()) / math.hypot(SPREAD, LOW) - 1)

    assert measure("dpmpp_sde") < measure("euler_ancestral") / 4


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_part_that_stops_early_leaves_the_noise_of_its_last_level(sampler: str) -> None:
    run = make_run(sampler, "simple", 20, indices=range(8))
    result, asked = carry_out(replace(run, sigmas=run.sigmas[:8]))
    assert [each.step for each in asked if each.completes] == list(range(1, 8))
    noise = (result - MEAN).std()
    assert float(noise) == pytest.approx(math.hypot(SPREAD, run.sigmas[7]), rel=0.15)


@pytest.mark.parametrize("sampler", ["euler", "ddim"])
@settings(max_examples=15)
@given(steps=st.integers(2, 12), data=st.data())
def test_two_parts_draw_what_the_whole_draws(sampler: str, steps: int, data: st.DataObject) -> None:
    middle = data.draw(st.integers(1, steps - 1))
    run = make_run(sampler, steps=steps)
    half, _ = carry_out(replace(run, generators=seed_items(3, range(2)), sigmas=run.sigmas[: middle + 1]))
    parts, _ = carry_out(replace(run, latent=half, sigmas=run.sigmas[middle:], adds_noise=False))
    whole, _ = carry_out(make_run(sampler, steps=steps))
    assert float((parts - whole).abs().max()) <= 1e-4


@pytest.mark.parametrize(("sampler", "steps"), [("euler_ancestral", 100), ("dpmpp_sde", 20), ("dpmpp_2m_sde", 100)])
def test_samplers_with_noise_draw_from_the_data(sampler: str, steps: int) -> None:
    result, _ = carry_out(make_run(sampler, steps=steps, indices=range(16)))
    assert float(result.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(result.std()) == pytest.approx(SPREAD, abs=0.05)


def test_lcm_draws_around_the_mean() -> None:
    result, _ = carry_out(make_run("lcm", "sgm_uniform", 8, indices=range(32)))
    assert float(result.mean()) == pytest.approx(MEAN, abs=0.02)
    assert 0.1 < float(result.std()) < SPREAD  # it jumps to the expected end, which varies less than the data


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_lcm_jumps_to_the_expected_end_and_adds_fresh_noise_of_exactly_the_next_level(
    scheduler: str, prediction_type: PredictionType
) -> None:
    run = make_run("lcm", scheduler, 6, prediction_type=prediction_type)
    result, asked = carry_out(run)
    assert [each.sigma for each in asked] == pytest.approx(run.sigmas[:-1])
    ends = [each.estimate(answer(each)) for each in asked]
    generators = seed_items(3, range(2))
    draw_noise(generators, (4, 8, 8))  # what the run begins with
    for each, end in zip(asked[1:], ends, strict=False):
        noise = draw_noise(generators, (4, 8, 8))
        assert torch.allclose(each.latent * math.hypot(each.sigma, 1), end + each.sigma * noise, atol=1e-4)
    assert torch.allclose(result, ends[-1], atol=1e-4), "nothing is added to the last"


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_combination_ends_in_the_data(sampler: str, scheduler: str) -> None:
    run = make_run(sampler, scheduler)
    result, asked = carry_out(run)
    steps = len(run.sigmas) - 1
    assert result.dtype == torch.float32
    assert float(result.mean()) == pytest.approx(MEAN, abs=0.1)
    assert 0.2 < float(result.std()) < 0.9
    assert [each.step for each in asked if each.completes] == list(range(1, steps + 1))
    assert {each.steps for each in asked} == {steps}
    assert all(float(each.latent.std()) < 1.5 for each in asked), "the network is asked about unit variance"


@settings(max_examples=30)
@given(
    sampler=st.sampled_from(sorted(SAMPLERS)),
    scheduler=st.sampled_from(sorted(SCHEDULERS)),
    steps=st.integers(1, 12),
    denoise=st.floats(0.1, 1),
)
def test_an_item_does_not_depend_on_its_neighbours(sampler: str, scheduler: str, steps: int, denoise: float) -> None:
    latent = draw_noise(seed_items(9, range(3)), (4, 8, 8))
    together, _ = carry_out(make_run(sampler, scheduler, steps, indices=range(3), denoise=denoise, latent=latent))
    for index in range(3):
        alone, _ = carry_out(
            make_run(
                sampler, scheduler, steps, indices=range(index, index + 1), denoise=denoise, latent=latent[[index]]
            )
        )
        assert float((together[index] - alone[0]).abs().max()) <= 1e-4


def make_masked(sampler: str, mask: Tensor, steps: int = 8, denoise: float = 1.0) -> Sampling:
    latent = draw_noise(seed_items(9, range(len(mask))), (4, 8, 8))
    return replace(make_run(sampler, steps=steps, denoise=denoise, latent=latent, indices=range(len(mask))), mask=mask)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_what_a_mask_leaves_out_is_kept(sampler: str, prediction_type: PredictionType) -> None:
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, 2:6, 3:] = 1
    run = replace(make_masked(sampler, mask), prediction_type=prediction_type)
    noise = draw_noise(seed_items(3, range(2)), (4, 8, 8))
    result, asked = carry_out(run)
    drawn = mask.bool().expand_as(result)
    assert torch.equal(result[~drawn], run.latent[~drawn])
    assert float((result - run.latent)[drawn].abs().mean()) > 0.3
    for each in asked:
        shown = each.latent * math.hypot(each.sigma, 1)
        assert torch.allclose(shown[~drawn], (run.latent + each.sigma * noise)[~drawn], atol=1e-4)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_mask_of_all_draws_what_no_mask_draws_and_one_of_nothing_nothing(sampler: str) -> None:
    run = make_masked(sampler, torch.ones(2, 1, 8, 8))
    plain, _ = carry_out(replace(run, mask=None, generators=seed_items(3, range(2))))
    assert float((carry_out(run)[0] - plain).abs().max()) <= 1e-3
    nothing = make_masked(sampler, torch.zeros(2, 1, 8, 8))
    assert torch.equal(carry_out(nothing)[0], nothing.latent)


def test_a_mask_in_between_mixes_what_is_expected_with_what_there_was() -> None:
    run = make_masked("euler", torch.full((1, 1, 8, 8), 0.25), steps=1)
    result, asked = carry_out(run)
    expected = asked[0].estimate(answer(asked[0]))
    assert torch.allclose(result, 0.25 * expected + 0.75 * run.latent, atol=1e-5)


@settings(max_examples=15)
@given(sampler=st.sampled_from(sorted(SAMPLERS)), denoise=st.floats(0.2, 1), seed=st.integers(0, 99))
def test_an_item_under_a_mask_does_not_depend_on_its_neighbours(sampler: str, denoise: float, seed: int) -> None:
    mask = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(seed)).round()
    run = make_masked(sampler, mask, 5, denoise)
    together, _ = carry_out(run)
    for index in range(3):
        only = slice(index, index + 1)
        own = replace(run, latent=run.latent[only], mask=mask[only], generators=seed_items(3, [index]))
        assert float((together[only] - carry_out(own)[0]).abs().max()) <= 1e-4


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_the_less_denoise_the_more_is_kept(sampler: str) -> None:
    latent = MEAN + SPREAD * draw_noise(seed_items(9, range(2)), (4, 8, 8))
    changes = []
    for denoise in (0.0, 0.1, 0.3, 0.6, 1.0):
        result, _ = carry_out(make_run(sampler, denoise=denoise, latent=latent))
        changes.append(float((result - latent).abs().mean()))
    assert changes[0] == 0
    assert 0 < changes[1] < changes[-1] / 2
    # Samplers that add noise reach the point where nothing is kept before the end, and waver there.
    assert all(more > 0.95 * less for less, more in pairwise(changes))


def test_the_expected_end_is_told_at_each_step() -> None:
    for prediction_type in ("epsilon", "v_prediction"):
        result, asked = carry_out(make_run("euler", prediction_type=prediction_type))
        last = asked[-1].estimate(answer(asked[-1]))
        assert torch.allclose(last, result, atol=1e-4)
        first = asked[0].estimate(answer(asked[0]))
        assert float((first - MEAN).abs().max()) < 0.1, "from noise alone, the mean is to be expected"


def test_steps_of_second_order_ask_twice_and_end_once() -> None:
    _, asked = carry_out(make_run("heun", steps=3))
    assert [(each.step, each.completes) for each in asked] == [
        (1, False),
        (1, True),
        (2, False),
        (2, True),
        (3, True),
    ]


def test_the_level_before_the_last_is_left_out_for_the_samplers_of_which_comfyui_discards_it() -> None:
    for samplers in (SAMPLERS, FLOW_SAMPLERS):
        skipping = {name for name, sampler in samplers.items() if sampler.skips_last_level}
        assert skipping == {"dpm_2", "uni_pc", "uni_pc_bh2"} & set(samplers)


def test_an_unknown_sampler_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="there is no sampler 'magic': it is one of euler"):
        next(sample(make_run("magic")))


def test_a_prediction_that_is_no_number_is_refused_at_once() -> None:
    evaluations = sample(make_run("euler"))
    evaluation = next(evaluations)
    prediction = answer(evaluation)
    prediction[0, 0, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="step 1 is not finite"):
        evaluations.send(prediction)


@pytest.mark.parametrize("name", SAMPLERS)
def test_schedulers_of_a_sampler_are_of_one_class(name: str) -> None:
    first, second = (SAMPLERS[name].build(num_train_timesteps=10) for _ in range(2))
    assert type(first) is type(second)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_run_goes_on_where_its_answers_come_from(sampler: str, masked: bool) -> None:
    """On a device that computes nothing, but refuses what is not there: no tensor of the run is left behind."""
    mask = torch.ones(1, 1, 8, 8)
    mask[..., :4] = 0
    evaluations = sample(make_masked(sampler, mask) if masked else make_run(sampler, steps=8))
    asked = [next(evaluations)]
    try:
        while True:
            asked.append(evaluations.send(torch.empty_like(asked[-1].latent, device="meta")))
    except StopIteration as end:
        finished: Tensor = end.value
    assert [evaluation.latent.device.type for evaluation in asked] == ["cpu"] + ["meta"] * (len(asked) - 1)
    assert finished.device.type == "meta"
