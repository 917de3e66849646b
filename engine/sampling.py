"""Sampling: a run from noise to a picture's latent, as a generator of questions to the model.

For: carrying a run out with one of `samplers`. Leaves the answers to whoever drives the generator, so that questions of
many runs can share one forward pass, and knows neither models nor devices.
Invariant: pure but for the noise generators it is given; everything is float32 on the CPU; an item of the batch never
influences another.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from engine.noise import draw_noise
from engine.samplers import SAMPLERS, Sampler
from engine.schedules import Levels, NoiseSchedule

PredictionType: TypeAlias = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True, slots=True, eq=False)
class Guidance:
    """What to draw: embeddings [1, tokens, width], and how far to go from `negative` towards `positive`."""

    positive: Tensor
    negative: Tensor
    cfg: float


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """A question: what noise (or velocity) is in `latent`? The answer has its shape, guidance applied.

    `latent` [batch, channels, height, width] has unit variance where the data have, as the network expects it.
    """

    latent: Tensor
    timestep: int
    guidance: Guidance
    sigma: float
    prediction_type: PredictionType
    step: int  # 1 .. steps
    steps: int
    completes: bool  # whether the step ends with this answer; samplers of second order ask twice

    def estimate(self, prediction: Tensor) -> Tensor:
        """The finished latent, as this answer lets expect it."""
        scale = math.hypot(self.sigma, 1)
        if self.prediction_type == "epsilon":
            return self.latent * scale - self.sigma * prediction
        return (self.latent - self.sigma * prediction) / scale


@dataclass(frozen=True, slots=True, eq=False)
class Sampling:
    """One run. `latent` [batch, channels, height, width] is in the model's scale; each item has its generator."""

    latent: Tensor
    generators: Sequence[torch.Generator]
    sampler: str
    sigmas: Levels  # of `schedules.space_sigmas`
    schedule: NoiseSchedule
    prediction_type: PredictionType
    guidance: Guidance


def sample(run: Sampling) -> Generator[Evaluation, Tensor, Tensor]:
    """Yield evaluations, take their predictions, return the finished latent [batch, channels, height, width].

    A run without sigmas returns its latent as it is, as ComfyUI does where `denoise` is 0. Raises ValueError for a
    sampler that is not in SAMPLERS, FloatingPointError when a prediction is not finite.
    """
    if run.sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {run.sampler!r}: it is one of {', '.join(SAMPLERS)}")
    sampler = SAMPLERS[run.sampler]
    steps = len(run.sigmas) - 1
    if steps < 1:
        return run.latent
    scheduler = _arrange(sampler, run)
    latent = _add_noise(sampler, run)
    options = {"generator": list(run.generators)} if sampler.stochastic else {}
    for index, timestep in enumerate(scheduler.timesteps):
        evaluation = Evaluation(
            latent=scheduler.scale_model_input(latent, timestep),
            timestep=int(timestep),
            guidance=run.guidance,
            sigma=float(scheduler.sigmas[index]),
            prediction_type=run.prediction_type,
            step=index // sampler.evaluations + 1,
            steps=steps,
            completes=(index + 1) % sampler.evaluations == 0 or index + 1 == len(scheduler.timesteps),
        )
        prediction = yield evaluation
        if not bool(torch.isfinite(prediction).all()):
            raise FloatingPointError(f"the model's prediction in step {evaluation.step} is not finite")
        latent = scheduler.step(prediction, timestep, latent, return_dict=False, **options)[0]
    return latent


def _arrange(sampler: Sampler, run: Sampling) -> Any:
    """A scheduler that visits exactly the run's sigmas.

    They are laid into a fresh scheduler: its own spacings know neither ComfyUI's nor the tail of a run that `denoise`
    asks for, and most schedulers take no sigmas as an argument.
    """
    sigmas = torch.tensor(run.sigmas.copy(), dtype=torch.float32)
    times = torch.from_numpy(run.schedule.find_steps(run.sigmas[:-1]))
    scheduler = sampler.build(
        num_train_timesteps=len(run.schedule.sigmas), prediction_type=run.prediction_type, **sampler.options
    )
    repeat = sampler.evaluations
    scheduler.num_inference_steps = len(times)
    scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(repeat), sigmas[-1:]])
    # Whole steps as indices for schedulers that look noise levels up by time, where 0 would mean "already clean" to the
    # boundary condition of consistency models; as floats for the others, which refuse whole numbers as likely mistakes.
    times = times.clamp(min=1) if sampler.preserves_variance else times.to(torch.float32)
    scheduler.timesteps = torch.cat([times[:1], times[1:].repeat_interleave(repeat)])
    scheduler.alphas_cumprod = torch.tensor(run.schedule.alphas_cumprod, dtype=torch.float32)
    scheduler.set_begin_index(0)
    return scheduler


def _add_noise(sampler: Sampler, run: Sampling) -> Tensor:
    """The latent that the run starts from, with noise of its first sigma."""
    sigma = float(run.sigmas[0])
    # At the model's last level a latent is noise alone in the eyes of the model, so that the two add up as if it were.
    whole = sigma >= float(run.schedule.sigmas[-1]) * (1 - 1e-5)
    noise = draw_noise(run.generators, run.latent.shape[1:])
    noisy = run.latent + noise * (math.hypot(sigma, 1) if whole else sigma)
    return noisy / math.hypot(sigma, 1) if sampler.preserves_variance else noisy
