"""Samplers: ComfyUI's names for ways from one noise level to the next, and the scheduler of diffusers that does each.

For: one table, with the reason for each choice beside it. Leaves running them to `sampling`.
Invariant: importing this module imports neither torch nor diffusers, so that names can be told before either is needed.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Sampler:
    """How a scheduler of diffusers is made and what it expects."""

    build: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    preserves_variance: bool = False  # steps on latents of unit variance, else on signal plus sigma times noise
    second: Literal["end", "middle"] | None = None  # where a step asks again, unless it leads to 0; middle in log sigma
    noise: Literal["drawn", "path"] | None = None  # drawn by the scheduler, or given to it as a `noise.Path`
    floor: float = 0.0  # the level that stands in for 0
    ceiling: float = math.inf  # the highest level that it can compute with
    looks_up: bool = False  # noise levels by time, where others are told them
    skips_last_level: bool = False  # ComfyUI leaves out the level before 0, where a high order makes it worse

    @property
    def evaluations(self) -> int:
        """Questions for each step but one that leads to 0, which asks one."""
        return 1 if self.second is None else 2


def _build_euler(**options: Any) -> Any:
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

    return EulerDiscreteScheduler(**options)


def _build_euler_ancestral(**options: Any) -> Any:
    from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler

    return EulerAncestralDiscreteScheduler(**options)


def _build_heun(**options: Any) -> Any:
    from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler

    return HeunDiscreteScheduler(**options)


def _build_dpm_2(**options: Any) -> Any:
    from diffusers.schedulers.scheduling_k_dpm_2_discrete import KDPM2DiscreteScheduler

    return _bare(KDPM2DiscreteScheduler)(**options)


def _build_dpm_sde(**options: Any) -> Any:
    from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler

    return _bare(DPMSolverSDEScheduler)(**options)


@cache
def _bare(kind: type[Any]) -> type[Any]:
    """A kind of scheduler whose constructor lays out a whole training run, without that.

    What it lays out is replaced anyway, takes up to half a second, and calls numpy in a way that numpy has deprecated.
    """
    import torch

    def set_timesteps(scheduler: Any, *_: object) -> None:
        scheduler.sigmas, scheduler.sample, scheduler.mid_point_sigma = torch.empty(0), None, None

    return type(kind.__name__, (kind,), {"set_timesteps": set_timesteps})


def _build_dpm_multistep(**options: Any) -> Any:
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(**options)


def _build_unipc(**options: Any) -> Any:
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    return UniPCMultistepScheduler(**options)


def _build_flow_euler(**options: Any) -> Any:
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**options)


def _build_flow_heun(**options: Any) -> Any:
    from diffusers.schedulers.scheduling_flow_match_heun_discrete import FlowMatchHeunDiscreteScheduler

    scheduler: Any = FlowMatchHeunDiscreteScheduler(**options)
    scheduler.set_timesteps(1)  # its constructor leaves out what a step remembers for the next
    return scheduler


def _build_lcm(**options: Any) -> Any:
    from diffusers.schedulers.scheduling_lcm import LCMScheduler

    return LCMScheduler(**options)


SAMPLERS: Mapping[str, Sampler] = {
    # Algorithm 2 of Karras et al. 2022 without churn, which ComfyUI has off as well.
    "euler": Sampler(_build_euler),
    # The same split of a step into one down and one up by fresh noise, eta 1.
    "euler_ancestral": Sampler(_build_euler_ancestral, noise="drawn"),
    # The trapezoid rule with an Euler step to zero, Algorithm 1 of Karras et al. 2022.
    "heun": Sampler(_build_heun, second="end"),
    # DPM-Solver-2 of Lu et al. 2022 in sigma: the midpoint rule, its middle taken in log sigma. No churn, as above.
    "dpm_2": Sampler(_build_dpm_2, second="middle", skips_last_level=True),
    # DPM-Solver++ (stochastic), eta 1; k-diffusion grows a Brownian tree for its noise, so seeds give other pictures
    # there. The singlestep scheduler could do it without torchsde, but draws the noise of a half step as if it were no
    # part of the whole, which leaves an error of first order in the variance.
    "dpmpp_sde": Sampler(_build_dpm_sde, second="middle", noise="path"),
    # DPM-Solver++(2M) in its midpoint form and of first order into zero, as k-diffusion has it.
    "dpmpp_2m": Sampler(_build_dpm_multistep, {"algorithm_type": "dpmsolver++"}, preserves_variance=True),
    # The same with noise, eta 1; k-diffusion draws it from a Brownian tree, so seeds give other pictures there.
    "dpmpp_2m_sde": Sampler(
        _build_dpm_multistep, {"algorithm_type": "sde-dpmsolver++"}, preserves_variance=True, noise="drawn"
    ),
    # UniPC of third order with B1, as ComfyUI sets it: B1 grows without limit towards 0, so that a run ends just above.
    "uni_pc": Sampler(
        _build_unipc,
        {"solver_order": 3, "solver_type": "bh1"},
        preserves_variance=True,
        floor=0.001,
        skips_last_level=True,
    ),
    # The same with B2, which reaches 0.
    "uni_pc_bh2": Sampler(
        _build_unipc, {"solver_order": 3, "solver_type": "bh2"}, preserves_variance=True, skips_last_level=True
    ),
    # ComfyUI's ddim is its euler: the two are one integrator when no noise is added. DDIMScheduler knows no sigmas.
    "ddim": Sampler(_build_euler),
    # Predict the end, add noise of the next level.
    "lcm": Sampler(_build_lcm, preserves_variance=True, noise="drawn", looks_up=True),
}


def _flow(sampler: Sampler) -> Sampler:
    """The same solver of diffusers for flow matching, which has no level of noise alone: its logarithms need data."""
    options = {**sampler.options, "use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    return replace(sampler, options=options, preserves_variance=False, ceiling=1 - 1e-6)


FLOW_SAMPLERS: Mapping[str, Sampler] = {
    # Euler's rule on the straight way between noise and data, the sampler that Stable Diffusion 3 and Flux come with.
    "euler": Sampler(_build_flow_euler),
    # The trapezoid rule, with an Euler step to zero.
    "heun": Sampler(_build_flow_heun, second="end"),
    # The solvers of other models with the logarithm of data to noise that flow matching has. ComfyUI's dpmpp_2m weighs
    # the step before by the logarithm of sigma instead, which is the same in the limit of small steps.
    **{name: _flow(SAMPLERS[name]) for name in ("dpmpp_2m", "dpmpp_2m_sde", "uni_pc", "uni_pc_bh2")},
    # The two are one integrator, as above.
    "ddim": Sampler(_build_flow_euler),
    # Predict the end, mix it with noise for the next level: Euler's scheduler does so where it is stochastic.
    "lcm": Sampler(_build_flow_euler, {"stochastic_sampling": True}, noise="drawn"),
    # diffusers has neither an ancestral sampler for flow matching nor DPM-Solver-2 or the stochastic DPM-Solver++ of
    # half steps: euler_ancestral, dpm_2 and dpmpp_sde are refused.
}


def find_sampler(name: str, *, flow: bool) -> Sampler:
    """The sampler of that name, for models of flow matching or for others. Raises ValueError when there is none."""
    found = (FLOW_SAMPLERS if flow else SAMPLERS).get(name)
    if found is None:
        whom = " for models of flow matching, such as Stable Diffusion 3 and Flux" if flow and name in SAMPLERS else ""
        known = ", ".join(FLOW_SAMPLERS if flow else SAMPLERS)
        raise ValueError(f"there is no sampler {name!r}{whom}: it is one of {known}")
    return found
