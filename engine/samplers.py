"""Samplers: ComfyUI's names for ways from one noise level to the next, and the scheduler of diffusers that does each.

For: one table, with the reason for each choice beside it. Leaves running them to `sampling`.
Invariant: importing this module imports neither torch nor diffusers, so that names can be told before either is needed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Sampler:
    """How a scheduler of diffusers is made and what it expects."""

    build: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    preserves_variance: bool = False  # steps on latents of unit variance, else on signal plus sigma times noise
    evaluations: int = 1  # for each step but the last, which needs one
    stochastic: bool = False


def _build_euler(**options: Any) -> Any:
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

    return EulerDiscreteScheduler(**options)


def _build_euler_ancestral(**options: Any) -> Any:
    from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler

    return EulerAncestralDiscreteScheduler(**options)


def _build_heun(**options: Any) -> Any:
    from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler

    return HeunDiscreteScheduler(**options)


def _build_dpm_multistep(**options: Any) -> Any:
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(**options)


def _build_lcm(**options: Any) -> Any:
    from diffusers.schedulers.scheduling_lcm import LCMScheduler

    return LCMScheduler(**options)


SAMPLERS: Mapping[str, Sampler] = {
    # Algorithm 2 of Karras et al. 2022 without churn, which ComfyUI has off as well.
    "euler": Sampler(_build_euler),
    # The same split of a step into one down and one up by fresh noise, eta 1.
    "euler_ancestral": Sampler(_build_euler_ancestral, stochastic=True),
    # The trapezoid rule with an Euler step to zero, Algorithm 1 of Karras et al. 2022.
    "heun": Sampler(_build_heun, evaluations=2),
    # DPM-Solver++(2M) in its midpoint form and of first order into zero, as k-diffusion has it.
    "dpmpp_2m": Sampler(_build_dpm_multistep, {"algorithm_type": "dpmsolver++"}, preserves_variance=True),
    # The same with noise, eta 1; k-diffusion draws it from a Brownian tree, so seeds give other pictures there.
    "dpmpp_2m_sde": Sampler(
        _build_dpm_multistep, {"algorithm_type": "sde-dpmsolver++"}, preserves_variance=True, stochastic=True
    ),
    # ComfyUI's ddim is its euler: the two are one integrator when no noise is added. DDIMScheduler knows no sigmas.
    "ddim": Sampler(_build_euler),
    # Predict the end, add noise of the next level; whole training steps only, on which its boundary condition rests.
    "lcm": Sampler(_build_lcm, preserves_variance=True, stochastic=True),
}
