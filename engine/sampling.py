"""Sampling: a run from noise to a picture's latent, as a generator of questions to the model.

For: carrying a run out with one of `samplers`. Leaves the answers to whoever drives the generator, so that questions of
many runs can share one forward pass, and knows no models.
Invariant: pure but for the noise generators it is given; everything is float32, on the CPU until the first answer and
from then on where answers come from; an item of the batch never influences another.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from engine.conditioning import Conditioning
from engine.noise import Path, draw_noise
from engine.samplers import Sampler, find_sampler
from engine.schedules import Levels, NoiseSchedule, Schedule
from engine.transfer import send

_LATE = 1000  # a time to consistency models, who weigh what they are given by 2.5e-9 there

PredictionType: TypeAlias = Literal["epsilon", "v_prediction", "flow"]  # noise, or a velocity of two kinds


@dataclass(frozen=True, slots=True, eq=False)
class Guidance:
    """What to draw, and how far to go from `negative` towards `positive`."""

    positive: Conditioning
    negative: Conditioning
    cfg: float


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """A question: what noise (or velocity) is in `latent`? The answer has its shape, guidance applied.

    `latent` [batch, channels, height, width] is as the network expects it: of unit variance where the data have it, or
    for flow matching a mixture of noise and data by shares of `sigma` and `1 - sigma`.
    """

    latent: Tensor
    timestep: float
    guidance: Guidance
    sigma: float
    prediction_type: PredictionType
    step: int  # 1 .. steps
    steps: int
    completes: bool  # whether the step ends with this answer; samplers of second order ask twice

    def estimate(self, prediction: Tensor) -> Tensor:
        """The finished latent, as this answer lets expect it."""
        if self.prediction_type == "flow":
            return self.latent - self.sigma * prediction
        scale = math.hypot(self.sigma, 1)
        if self.prediction_type == "epsilon":
            return self.latent * scale - self.sigma * prediction
        return (self.latent - self.sigma * prediction) / scale

    def predict(self, finished: Tensor) -> Tensor:
        """The answer that lets expect `finished`."""
        if self.prediction_type == "flow":
            return (self.latent - finished) / self.sigma
        scale = math.hypot(self.sigma, 1)
        if self.prediction_type == "epsilon":
            return (self.latent * scale - finished) / self.sigma
        return (self.latent - finished * scale) / self.sigma


@dataclass(frozen=True, slots=True, eq=False)
class Sampling:
    """One run. `latent` [batch, channels, height, width] is in the model's scale; each item has its generator.

    Where `mask` [batch, 1, height, width] is 0 the latent is kept, where it is 1 drawn, in between mixed.
    Without `adds_noise` the latent has the noise of the first sigma already.
    """

    latent: Tensor
    generators: Sequence[torch.Generator]
    sampler: str
    sigmas: Levels  # of `schedules.space_sigmas`
    schedule: Schedule
    prediction_type: PredictionType
    guidance: Guidance
    mask: Tensor | None = None
    adds_noise: bool = True


def sample(run: Sampling) -> Generator[Evaluation, Tensor, Tensor]:
    """Yield evaluations, take their predictions, return the finished latent [batch, channels, height, width].

    A run whose sigmas end above 0 returns a latent with noise of the last of them. One without steps returns its latent
    as it is, as ComfyUI does where `denoise` is 0. Raises ValueError for a sampler that is not there for this kind of
    model, FloatingPointError when a prediction is not finite; on an accelerator, which would have to be waited for in
    each step, whoever takes the finished latent has to look.
    """
    flow = run.prediction_type == "flow"
    sampler = find_sampler(run.sampler, flow=flow)
    steps = len(run.sigmas) - 1
    if steps < 1:
        return run.latent
    noise = _draw_noise(run)
    latent = _start(sampler, run, noise)
    levels = _list_levels(sampler, run)
    times = run.schedule.find_times(levels)
    scheduler = _arrange(sampler, run, times)
    options = {"generator": list(run.generators)} if sampler.noise == "drawn" else {}
    for index, sigma in enumerate(levels[: steps * sampler.evaluations]):
        timestep = scheduler.timesteps[index]
        own = Evaluation(
            latent=latent if flow else scheduler.scale_model_input(latent, timestep),
            timestep=float(times[index]),
            guidance=run.guidance,
            sigma=float(sigma),
            prediction_type=run.prediction_type,
            step=index // sampler.evaluations + 1,
            steps=steps,
            completes=(index + 1) % sampler.evaluations == 0 or index + 1 == len(levels),
        )
        asked = own if run.mask is None else _show_kept(own, run.mask, run.latent, noise)
        prediction = yield asked
        if (device := prediction.device) != latent.device:
            latent = send(latent, device)
            if run.mask is not None:
                noise, run = send(noise, device), _move(run, run.mask, device)
                own, asked = (replace(each, latent=send(each.latent, device)) for each in (own, asked))
            if isinstance(path := getattr(scheduler, "noise_sampler", None), Path):
                path.device = device
        if device.type == "cpu" and not is_finite(prediction):
            raise FloatingPointError(f"the model's prediction in step {own.step} is not finite")
        if run.mask is not None:
            prediction = own.predict(torch.lerp(run.latent, asked.estimate(prediction), run.mask))
        latent = scheduler.step(prediction, timestep, latent, return_dict=False, **options)[0]
    return _finish(sampler, run, latent)


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is infinite or no number. A sum shows it, in a tenth of the time."""
    return math.isfinite(float(tensor.sum()))


def _move(run: Sampling, mask: Tensor, device: torch.device) -> Sampling:
    """The run with what a mask goes on to need on the device."""
    return replace(run, latent=send(run.latent, device), mask=send(mask, device))


def _show_kept(own: Evaluation, mask: Tensor, kept: Tensor, noise: Tensor) -> Evaluation:
    """The question with what is kept, under the noise that the run began with, in place of what the sampler has there.

    ComfyUI 0.3.64 asks so: around the mask the model sees what it would see if that were drawn as well.
    """
    if own.prediction_type == "flow":
        noisy = torch.lerp(kept, noise, own.sigma)
    else:
        noisy = (kept + noise * own.sigma) / math.hypot(own.sigma, 1)
    return replace(own, latent=torch.lerp(noisy, own.latent, mask))


def _extend(run: Sampling) -> Levels:
    """The run's sigmas and on to 0: to a scheduler, one that stops before is the beginning of one that does not."""
    return run.sigmas if run.sigmas[-1] == 0 else np.append(run.sigmas, 0.0)


def _list_levels(sampler: Sampler, run: Sampling) -> Levels:
    """The noise level of each question, up to 0."""
    sigmas = _extend(run)
    if sampler.second is None:
        return sigmas[:-1]
    seconds = sigmas[1:] if sampler.second == "end" else np.sqrt(sigmas[:-1] * sigmas[1:])
    return np.column_stack([sigmas[:-1], seconds]).ravel()[:-1]


def _arrange(sampler: Sampler, run: Sampling, times: Levels) -> Any:
    """A scheduler that visits exactly the run's sigmas.

    They are laid into a fresh scheduler: its own spacings know neither ComfyUI's nor the tail of a run that `denoise`
    asks for, and most schedulers take no sigmas as an argument.
    """
    sigmas = torch.tensor(_extend(run).clip(sampler.floor, sampler.ceiling), dtype=torch.float32)
    scheduler = _build(sampler, run)
    repeat = sampler.evaluations
    scheduler.num_inference_steps = len(times)
    scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(repeat), sigmas[-1:]])
    # What KDPM2DiscreteScheduler reads beside them; DPMSolverSDEScheduler finds the middles by itself.
    scheduler.sigmas_interpol = (sigmas[:-1] * sigmas[1:]).sqrt().repeat_interleave(repeat)
    if sampler.looks_up:
        _let_look_up(scheduler, sigmas[:-1])
    else:  # some refuse whole numbers as likely mistakes; to others they are steps of the training
        scheduler.timesteps = torch.tensor(times, dtype=torch.int64 if sampler.preserves_variance else torch.float32)
    scheduler.set_begin_index(0)
    if sampler.noise == "path":
        scheduler.noise_sampler = Path(run.generators, run.latent.shape[1:])
    return scheduler


def _let_look_up(scheduler: Any, sigmas: Tensor) -> None:
    """Have a scheduler that looks noise up by time find exactly these levels, each by a time of its own.

    All are too late for the boundary condition of consistency models, which ComfyUI has not, to say anything.
    """
    scheduler.timesteps = torch.arange(_LATE + len(sigmas), _LATE, -1)
    scheduler.alphas_cumprod = torch.ones(_LATE + len(sigmas) + 1)
    scheduler.alphas_cumprod[scheduler.timesteps] = 1 / (1 + sigmas**2)


def _build(sampler: Sampler, run: Sampling) -> Any:
    if not isinstance(run.schedule, NoiseSchedule):
        return sampler.build(**sampler.options)
    steps = len(run.schedule.sigmas)
    scheduler = sampler.build(num_train_timesteps=steps, prediction_type=run.prediction_type, **sampler.options)
    scheduler.alphas_cumprod = torch.tensor(run.schedule.alphas_cumprod, dtype=torch.float32)
    return scheduler


def _draw_noise(run: Sampling) -> Tensor:
    noise = draw_noise(run.generators, run.latent.shape[1:])
    # Drawn in any case: else the steps would add what an earlier run of the same seed has put into the latent.
    return noise if run.adds_noise else torch.zeros_like(noise)


def _start(sampler: Sampler, run: Sampling, noise: Tensor) -> Tensor:
    """The latent that the run starts from, with noise of its first sigma."""
    sigma = float(run.sigmas[0])
    if run.prediction_type == "flow":
        return torch.lerp(run.latent, noise, sigma)
    # At the model's last level a latent is noise alone in the eyes of the model, so that the two add up as if it were.
    whole = sigma >= float(run.schedule.sigmas[-1]) * (1 - 1e-5)
    noisy = run.latent + noise * (math.hypot(sigma, 1) if whole else sigma)
    return noisy / math.hypot(sigma, 1) if sampler.preserves_variance else noisy


def _finish(sampler: Sampler, run: Sampling, latent: Tensor) -> Tensor:
    """What the steps have led to, its signal of whole strength; what was to be kept is to the bit what it was."""
    sigma = float(run.sigmas[-1])
    if run.prediction_type == "flow":
        finished = latent / (1 - sigma)
    else:
        finished = latent * math.hypot(sigma, 1) if sampler.preserves_variance else latent
    if run.mask is None or sigma > 0:
        return finished
    return torch.where(run.mask == 0, run.latent, finished)
