"""Inpainting: nodes that say which part of a latent is to be drawn.

For: ComfyUI's SetLatentNoiseMask, VAEEncodeForInpaint and InpaintModelConditioning. Leaves keeping the rest as it is to
`sampling`, and showing it to models that were trained to be shown it to `pipelines`.
Invariant: a mask is 1 where something is to be drawn.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.conditioning import Conditioning
from engine.latents import Latent
from engine.models import Handle, Models
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
    hidden = _lay(mask, pixels).round()
    (latent,) = encode(context, _hide(pixels, hidden), vae)
    return (replace(latent, noise_mask=_grow(_read(hidden), grow_mask_by)),)


def condition(
    context: Context,
    positive: Conditioning,
    negative: Conditioning,
    vae: Handle,
    pixels: NDArray[np.float32],
    mask: NDArray[np.float32],
    noise_mask: bool,
) -> tuple[Conditioning, Conditioning, Latent]:
    """Conditionings that show a model for inpainting pictures, grey where the mask hides them, and their latents.

    With `noise_mask`, the model draws nothing but what is hidden. Raises InterruptError, ModelError, OutOfMemoryError.
    """
    from engine.surroundings import surround

    fitted = _lay(mask, pixels)
    (latent,) = encode(context, pixels, vae)
    (around,) = encode(context, _hide(pixels, fitted.round()), vae)
    masked = replace(latent, noise_mask=_read(fitted))
    scale = context.service(Models).autoencoder(vae).scale
    shown = surround(scale.enter(around.samples), masked.fit_mask())
    return positive.show(shown), negative.show(shown), masked if noise_mask else latent


def _lay(mask: NDArray[np.float32], pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Masks [any, height, width] in the size that pictures are cropped to."""
    from torch.nn.functional import interpolate

    fitted = interpolate(_read(mask), size=pixels.shape[1:3], mode="bilinear")
    return crop(fitted.movedim(1, -1).numpy())[..., 0]


def _hide(pixels: NDArray[np.float32], hidden: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pictures, cropped, that are grey where masks of their size are 1; the masks are taken in turn."""
    turns = -(-len(pixels) // len(hidden))
    kept = 1 - np.tile(hidden, (turns, 1, 1))[: len(pixels), ..., None]
    return (crop(pixels) - np.float32(0.5)) * kept + np.float32(0.5)


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
    Node(
        "InpaintModelConditioning",
        condition,
        "conditioning/inpaint",
        required={
            "positive": Input("CONDITIONING"),
            "negative": Input("CONDITIONING"),
            "vae": Input("VAE"),
            "pixels": Input("IMAGE"),
            "mask": Input("MASK"),
            "noise_mask": Input(
                "BOOLEAN", {"default": True, "tooltip": "Whether nothing but what the mask hides is drawn."}
            ),
        },
        outputs=(
            Output("CONDITIONING", name="positive"),
            Output("CONDITIONING", name="negative"),
            Output("LATENT", name="latent"),
        ),
        display_name="InpaintModelConditioning",
        description="Shows a model for inpainting pictures without what a mask hides, which is to be drawn.",
    ),
)
