"""Noise levels: which a model was trained on, and which a run visits.

For: ComfyUI's schedulers, as pure functions from a model's noise levels and a number of steps to falling sigmas.
Leaves the steps between two levels to `sampling`.
Invariant: what `space_sigmas` gives falls strictly, ends in 0 and never leaves the levels of the model.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.float64]

_KARRAS_RHO = 7.0  # Karras et al. 2022, section 5: the best of those that they tried
_BETA = 0.6  # both parameters of the beta distribution; Lee et al. 2024 and ComfyUI 0.3.64
_MAX_PLANNED = 1_000_000  # levels of a whole run: ComfyUI's 10,000 steps at a denoise of 0.01
_FULL_DENOISE = 0.9999  # ComfyUI 0.3.64 takes what is above for 1


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
    def last(self) -> int:
        """The training step with the most noise."""
        return len(self.sigmas) - 1

    def interpolate(self, steps: Levels) -> Levels:
        """Sigmas at fractional training steps, linear in the logarithm."""
        return np.exp(np.interp(steps, np.arange(len(self.sigmas)), np.log(self.sigmas)))

    def find_steps(self, sigmas: Levels) -> NDArray[np.int64]:
        """The training steps nearest to `sigmas` in the logarithm: what the model is told as time."""
        midpoints = (np.log(self.sigmas[1:]) + np.log(self.sigmas[:-1])) / 2
        return np.searchsorted(midpoints, np.log(sigmas)).astype(np.int64)


def _space_normal(schedule: NoiseSchedule, steps: int) -> Levels:
    return schedule.interpolate(np.linspace(schedule.last, 0, steps))


def _space_sgm_uniform(schedule: NoiseSchedule, steps: int) -> Levels:
    return schedule.interpolate(np.linspace(schedule.last, 0, steps + 1)[:-1])


def _space_simple(schedule: NoiseSchedule, steps: int) -> Levels:
    stride = len(schedule.sigmas) / steps
    return schedule.sigmas[schedule.last - (np.arange(steps) * stride).astype(np.int64)]


def _space_karras(schedule: NoiseSchedule, steps: int) -> Levels:
    high, low = schedule.sigmas[-1] ** (1 / _KARRAS_RHO), schedule.sigmas[0] ** (1 / _KARRAS_RHO)
    return np.asarray(np.linspace(high, low, steps) ** _KARRAS_RHO)


def _space_exponential(schedule: NoiseSchedule, steps: int) -> Levels:
    return np.geomspace(schedule.sigmas[-1], schedule.sigmas[0], steps)


def _space_ddim_uniform(schedule: NoiseSchedule, steps: int) -> Levels:
    # Whole strides from training step 1: up to a stride below the most noise, and more levels than steps where the
    # stride was rounded down.
    return schedule.sigmas[1 :: max(1, len(schedule.sigmas) // steps)][::-1]


def _space_beta(schedule: NoiseSchedule, steps: int) -> Levels:
    from scipy.special import betaincinv  # here, since loading it takes time that names do not need

    quantiles: Levels = betaincinv(_BETA, _BETA, 1 - np.linspace(0, 1, steps, endpoint=False))
    return schedule.sigmas[np.rint(quantiles * schedule.last).astype(np.int64)]


SCHEDULERS: Mapping[str, Callable[[NoiseSchedule, int], Levels]] = {
    "normal": _space_normal,
    "karras": _space_karras,
    "exponential": _space_exponential,
    "simple": _space_simple,
    "sgm_uniform": _space_sgm_uniform,
    "ddim_uniform": _space_ddim_uniform,
    "beta": _space_beta,
}


def space_sigmas(
    schedule: NoiseSchedule, scheduler: str, steps: int, denoise: float = 1.0, *, skip_last: bool = False
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
