"""Noise, one seed for each item of a batch.

For: the numbers that a picture starts from and that stochastic samplers add. Leaves their scale to `sampling`.
Invariant: the noise of an item depends on its own seed and shape alone, drawn on the CPU whatever the accelerator.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.transfer import send

_SEEDS = 2**64


def seed_items(seed: int, indices: Iterable[int]) -> list[torch.Generator]:
    """One generator for each index: item i of a batch is what `seed + i` draws alone, so that it can be drawn again.

    The first item draws the numbers that ComfyUI 0.3.64 draws for a batch of one.
    """
    return [torch.Generator("cpu").manual_seed((seed + index) % _SEEDS) for index in indices]


def draw_noise(generators: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    """Standard normal noise [len(generators), *shape], row i drawn from generator i alone, in float32."""
    return torch.cat([torch.randn((1, *shape), generator=generator) for generator in generators])


@dataclass(slots=True, eq=False)
class Path:
    """Noise for steps that ask twice, on `device`: over the way to the middle of a step, then over the whole, in turn.

    Both are standard normal, and hang together as the ways of one Brownian motion do whose clock is sigma. k-diffusion
    grows a tree of it, which answers for any two levels; where only these are asked for, this costs a fiftieth.
    """

    generators: Sequence[torch.Generator]
    shape: Sequence[int]  # of an item
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    half: Tensor | None = None
    middle: Tensor | None = None

    def __call__(self, high: Tensor, low: Tensor) -> Tensor:
        """Noise [len(generators), *shape] over the way from sigma `high` down to `low`."""
        fresh = send(draw_noise(self.generators, self.shape), self.device)
        if self.half is None or self.middle is None:
            self.half, self.middle = fresh, low
            return fresh
        share = (high - self.middle) / (high - low)
        whole = share.sqrt() * self.half + (1 - share).sqrt() * fresh
        self.half = self.middle = None
        return whole
