"""Surroundings: what a model for inpainting is shown beside the noisy latent, so that it draws what goes with the rest.

For: the mask of what is to be drawn and the latent of the picture without it, as channels in the order of such models.
Leaves which picture it is to nodes, and showing it to `pipelines` and `networks`.
Invariant: pure; a mask is 1 where something is to be drawn; latents are in the model's scale.
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from engine.latents import cycle

# A grey picture to Stable Diffusion 1. ComfyUI 0.3.64 shows it to models of the other families too.
_GREY = (0.8223, -0.6876, 0.6364, 0.1380)


def surround(latents: Tensor, mask: Tensor | None) -> Tensor:
    """What is shown around latents, [batch, 1 + channels, height, width]; without a mask, grey, all to be drawn."""
    if mask is None:
        mask = torch.ones_like(latents[:, :1])
        latents = torch.tensor(_GREY).reshape(1, -1, 1, 1).expand_as(latents)
    return torch.cat([mask, latents], 1)


def fit(shown: Tensor, latents: Tensor) -> Tensor:
    """What is shown in the size of latents, for each of their batch, its mask rounded to 0 or 1, a half to 0."""
    if shown.shape[2:] != latents.shape[2:]:
        shown = interpolate(shown, size=latents.shape[2:], mode="bilinear")
    return cycle(torch.cat([shown[:, :1].round(), shown[:, 1:]], 1), len(latents))
