"""Inpainting: nodes that say which part of a latent is to be drawn.

For: ComfyUI's SetLatentNoiseMask and VAEEncodeForInpaint. Leaves keeping the rest as it is to `sampling`.
Invariant: a mask is 1 where something is to be drawn.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.latents import Latent
from engine.models import Handle
from engine.nodes.latents import crop, encode
from engine.nodes.spec import Context, Input, Node, Output

if TYPE_CHECKING:
    from torch import Tensor


def set_mask(context: Context, samples: Latent, mask: NDArray[np.float32]) -> tuple[Latent]:
    """The same latents, of which only what the mask shows will be drawn."""
    return (replace(samples, noise_mask=_read(mask)),)


def encode_masked(
    context: Context, pixels: NDArray[np.float32], vae: Handle, mask: NDArray[np.float32], grow_mask_by: int
) -> tuple[Latent]:
    """Latents of pictures, grey where the mask hides them; drawn will be what lies within `grow_mask_by` / 2 of that.

    The mask is rounded to 0 or 1 as in ComfyUI 0.3.64, a half to 0.
    """
    from torch.nn.functional import interpolate

    fitted = interpolate(_read(mask), size=pixels.shape[1:3], mode="bilinear").round()
    hidden = crop(fitted.movedim(1, -1).numpy())
    turns = -(-len(pixels) // len(hidden))
    kept = 1 - np.tile(hidden, (turns, 1, 1, 1))[: len(pixels)]
    (latent,) = encode(context, (crop(pixels) - np.float32(0.5)) * kept + np.float32(0.5), vae)
    return (replace(latent, noise_mask=_grow(_read(hidden[..., 0]), grow_mask_by)),)


def _read(mask: NDArray[np.float32]) -> Tensor:
    """A mask as a tensor [batch, 1, height, width] of its own."""
    import torch

    return torch.from_numpy(np.array(mask))[:, None]


def _grow(mask: Tensor, size: int) -> Tensor:
    """A mask of 0 and 1 with each 1 spread over a square of `size`, an even one further down and to the right."""
    from torch.nn.functional import max_pool2d

    if size == 0:
        return mask
    height, width = mask.shape[2:]
    return max_pool2d(mask, size, stride=1, padding=size // 2)[:, :, :height, :width]


NODES = (
    Node(
        "SetLatentNoiseMask",
        set_mask,
        "latent/inpaint",
        required={"samples": Input("LATENT"), "mask": Input("MASK")},
        outputs=(Output("LATENT"),),
        display_name="Set Latent Noise Mask",
        description="Marks the part of latents that is to be drawn.",
    ),
    Node(
        "VAEEncodeForInpaint",
        encode_masked,
        "latent/inpaint",
        required={
            "pixels": Input("IMAGE"),
            "vae": Input("VAE"),
            "mask": Input("MASK"),
            "grow_mask_by": Input("INT", {"default": 6, "min": 0, "max": 64, "step": 1}),
        },
        outputs=(Output("LATENT"),),
        display_name="VAE Encode (for Inpainting)",
        description="Turns pictures into latents without what a mask hides, which is to be drawn.",
    ),
)
