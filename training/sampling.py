"""Sampling: pictures for captions, as the engine draws them at its default settings.

For: looking at a model while it trains. Leaves the engine's own samplers to the engine.
Invariant: a picture depends on its caption and its seed alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.denoiser import Painter, list_alphas
from training.drawing import Picture
from training.vocabulary import encode_captions

STEPS = 20
GUIDANCE = 2.0
_ROWS = 16  # pictures at once


@torch.no_grad()
def paint(
    painter: Painter,
    autoencoder: Any,
    tokenizer: Any,
    captions: Sequence[str],
    scale: float,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
) -> list[Picture]:
    """A picture for each caption; the seed of each is its place in `captions`."""
    device = next(painter.parameters()).device
    pictures: list[Picture] = []
    for start in range(0, len(captions), _ROWS):
        part = captions[start : start + _ROWS]
        noise = torch.stack(
            [torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(start + row)) for row in range(len(part))]
        )
        ids = torch.tensor(encode_captions(tokenizer, [*part, *[""] * len(part)]), device=device)
        latents = _denoise(painter, noise.to(device), ids, steps, guidance)
        decoded = autoencoder.decode(latents / scale, return_dict=False)[0]
        pixels = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        pictures += [np.asarray(picture) for picture in pixels]
    return pictures


def _denoise(painter: Painter, noise: Tensor, ids: Tensor, steps: int, guidance: float) -> Tensor:
    """Euler's method over noise levels that are even in time, down to none."""
    words = painter.text_encoder(ids)[0]
    alphas = list_alphas().double()
    levels = ((1 - alphas) / alphas).sqrt()
    times = torch.linspace(999, 0, steps, dtype=torch.float64)
    sigmas = torch.tensor([*np.exp(np.interp(times, np.arange(1000), levels.log())), 0.0], dtype=torch.float32)
    latent = noise * float(sigmas[0].square().add(1).sqrt())
    for time, sigma, following in zip(times, sigmas, sigmas[1:], strict=False):
        spread = float(sigma.square().add(1).sqrt())
        moments = torch.full((len(ids),), round(float(time)), device=noise.device)
        velocity = painter.unet((latent / spread).repeat(2, 1, 1, 1), moments, encoder_hidden_states=words)[0]
        told, untold = velocity.chunk(2)
        velocity = untold + guidance * (told - untold)
        clean = latent / spread**2 - velocity * float(sigma) / spread
        latent = clean + (latent - clean) * float(following / sigma)
    return latent
