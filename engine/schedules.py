"""Noise levels: which a model was trained on, and which a run visits.

For: ComfyUI's schedulers, as pure functions from a model's noise levels and a number of steps to falling sigmas.
Leaves the steps between two levels to `sampling`.
Invariant: what `space_sigmas` gives falls strictly, ends in 0 and never leaves the levels of the model.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.float64]

_KARRAS_RHO = 7.0  # Karras et al. 2022, section 5: the best of those that they tried
_BETA = 0.6  # both parameters of the beta distribution; Lee et al. 2024 and ComfyUI 0.3.64
_MAX_PLANNED = 1_000_000  # levels of a whole run: ComfyUI's 10,000 steps at a denoise of 0.01
_FULL_DENOISE = 0.9999  # ComfyUI 0.3.64 takes what is above for 1


FULL_TIME = 1000  # what a model of flow matching is told where all is noise


class Schedule(Protocol):
    """The noise levels that a model was trained on."""

    @property
    def sigmas(self) -> Levels:
        """All of them, rising."""
        ...

    @property
    def span(self) -> tuple[float, float]:
        """The steps of training, as `interpolate` counts them, with the most noise and with the least."""
        ...

    def interpolate(self, steps: Levels) -> Levels:
        """Sigmas at fractional training steps."""
        ...

    def find_times(self, sigmas: Levels) -> Levels:
        """What the model is told as time at `sigmas`."""
        ...


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The noise levels of a discrete diffusion model: `sigmas[t]` is the noise to signal ratio at training step t."""

    sigmas: Levels

    @classmethod
    def of_alphas(cls, alphas_cumprod: Levels) -> "NoiseSchedule":
        """From the products of alphas, in the words of DDPM (Ho et al. 2020)."""
        return cls(np.sqrt((1 - alphas_cumprod) / alphas_cumprod))

    @property
    def alphas_cumprod(self) -> Levels:
        """The share of signal power at each training step."""
        return 1 / (self.sigmas**2 + 1)

    @property
    def span(self) -> tuple[float, float]:
        """The training steps with the most noise and with the least."""
        return len(self.sigmas) - 1.0, 0.0

    def interpolate(self, steps: Levels) -> Levels:
        """Sigmas at fractional training steps, linear in the logarithm."""
        return np.exp(np.interp(steps, np.arange(len(self.sigmas)), np.log(self.sigmas)))

    def find_times(self, sigmas: Levels) -> Levels:
        """The training steps nearest to `sigmas` in the logarithm, in whole numbers: what the model is told as time."""
        midpoints = (np.log(self.sigmas[1:]) + np.log(self.sigmas[:-1])) / 2
        return np.searchsorted(midpoints, np.log(sigmas)).astype(np.float64)


@dataclass(frozen=True, eq=False)
class FlowSchedule:
    """The noise levels of a model of flow matching: sigma is the share of noise, and 1 - sigma that of the data.

    A `shift` above 1 moves steps towards noise, as Esser et al. 2024 do for large pictures (section 5.3.2). ComfyUI
    0.3.64 lists `count` levels, of which some of its schedulers choose.
    """

    shift: float
    count: int = 1000

    @cached_property
    def sigmas(self) -> Levels:
        """The levels that are listed, rising to 1."""
        return self.interpolate(np.arange(1, self.count + 1) / self.count)

    @property
    def span(self) -> tuple[float, float]:
        """All noise, and the last level that is listed: shifted once more there, in ComfyUI and in diffusers alike."""
        return 1.0, float(self.sigmas[0])

    def interpolate(self, steps: Levels) -> Levels:
        """Sigmas where `steps` go evenly from 1 to 0."""
        return self.shift * steps / (1 + (self.shift - 1) * steps)

    def find_times(self, sigmas: Levels) -> Levels:
        """What the model is told as time, from 0 to 1000."""
        return sigmas * FULL_TIME


def _space_normal(schedule: Schedule, steps: int) -> Levels:
    return schedule.interpolate(np.linspace(*schedule.span, steps))


def _space_sgm_uniform(schedule: Schedule, steps: int) -> Levels:
    return schedule.interpolate(np.linspace(*schedule.span, steps + 1)[:-1])


def _space_simple(schedule: Schedule, steps: int) -> Levels:
    stride = len(schedule.sigmas) / steps
    return schedule.sigmas[-1 - (np.arange(steps) * stride).astype(np.int64)]


def _space_karras(schedule: Schedule, steps: int) -> Levels:
    high, low = schedule.sigmas[-1] ** (1 / _KARRAS_RHO), schedule.sigmas[0] ** (1 / _KARRAS_RHO)
    return np.asarray(np.linspace(high, low, steps) ** _KARRAS_RHO)


def _space_exponential(schedule: Schedule, steps: int) -> Levels:
    return np.geomspace(schedule.sigmas[-1], schedule.sigmas[0], steps)


def _space_ddim_uniform(schedule: Schedule, steps: int) -> Levels:
    # Whole strides from training step 1: up to a stride below the most noise, and more levels than steps where the
    # stride was rounded down.
    return schedule.sigmas[1 :: max(1, len(schedule.sigmas) // steps)][::-1]


def _space_beta(schedule: Schedule, steps: int) -> Levels:
    from scipy.special import betaincinv  # here, since loading it takes time that names do not need

    quantiles: Levels = betaincinv(_BETA, _BETA, 1 - np.linspace(0, 1, steps, endpoint=False))
    return schedule.sigmas[np.rint(quantiles * (len(schedule.sigmas) - 1)).astype(np.int64)]


SCHEDULERS: Mapping[str, Callable[[Schedule, int], Levels]] = {
    "normal": _space_normal,
    "karras": _space_karras,
    "exponential": _space_exponential,
    "simple": _space_simple,
    "sgm_uniform": _space_sgm_uniform,
    "ddim_uniform": _space_ddim_uniform,
    "beta": _space_beta,
}


def space_sigmas(
    schedule: Schedule, scheduler: str, steps: int, denoise: float = 1.0, *, skip_last: bool = False
) -> Levels:
    """The falling noise levels of a run, 0 at its end; none at all where `denoise` is 0.

    They are `steps + 1`, but for schedulers that can't have as many. Below 1, `denoise` takes the last `steps` of a
    longer run of `steps / denoise`, as ComfyUI 0.3.64 does, so that a run starts from less noise and keeps more of the
    picture. With `skip_last` one more is planned and the level before 0 left out. Levels that would be visited twice,
    because more steps are planned than the model was trained on, are visited once. Raises ValueError for a scheduler
    not in SCHEDULERS, and for a whole run of more levels than memory should hold.
    """
    if scheduler not in SCHEDULERS:
        raise ValueError(f"unknown scheduler {scheduler!r}: it is one of {', '.join(SCHEDULERS)}")
    if denoise <= 0:
        return np.empty(0)
    whole = denoise > _FULL_DENOISE
    planned = steps if whole else math.floor(min(steps / denoise, 2.0**53))
    if planned > _MAX_PLANNED:
        raise ValueError(f"{steps} steps at a denoise of {denoise:g} are the end of a run of {planned}: too long a run")
    levels = (
        SCHEDULERS[scheduler](schedule, planned + 1)[:-1] if skip_last else SCHEDULERS[scheduler](schedule, planned)
    )
    sigmas = np.append(levels if whole else levels[-steps:], 0.0)
    return np.flip(np.unique(sigmas))


def cut_sigmas(sigmas: Levels, start: int, end: int, *, finish: bool) -> Levels:
    """The levels of the steps from `start` up to `end`, counted from 0; both may lie beyond the last.

    With `finish`, a part that ends before the run does goes on to 0 in its last step. Fewer than two levels are left
    where there is nothing to do.
    """
    part = sigmas[: end + 1].copy()
    if finish and len(part):
        part[-1] = 0.0
    return part[start:]
