"""Latent scaling: nodes that change the size of latents.

For: LatentUpscale and LatentUpscaleBy, with the inputs, limits and rules of ComfyUI 0.3.64. Leaves the arithmetic to
`resize`, and what else a LATENT holds as it is.
Invariant: a picture's side is 8 times its latent's.
"""

from __future__ import annotations

from dataclasses import replace

from engine.latents import FACTOR, Latent
from engine.nodes.resize import LATENT_METHODS, crop_to_aspect, resize
from engine.nodes.spec import MAX_RESOLUTION, Context, Input, Node, Output, measure

_LEAST_SIDE = 64  # pixels; ComfyUI's


def scale(context: Context, samples: Latent, upscale_method: str, width: int, height: int, crop: str) -> tuple[Latent]:
    """Latents for pictures of width x height, 64 at least.

    A side of 0 follows from the other, and 0 x 0 leaves the latents as they are.
    """
    if width == 0 and height == 0:
        return (samples,)
    rows, columns = samples.samples.shape[2:]
    height = max(_LEAST_SIDE, height or round(rows * max(_LEAST_SIDE, width) / columns))
    width = max(_LEAST_SIDE, width or round(columns * height / rows))
    size = width // FACTOR, height // FACTOR
    return (_resize(context, samples, *size, upscale_method, center=crop == "center"),)


def scale_by(context: Context, samples: Latent, upscale_method: str, scale_by: float) -> tuple[Latent]:
    """Both sides by a factor."""
    rows, columns = samples.samples.shape[2:]
    width, height = max(1, round(columns * scale_by)), max(1, round(rows * scale_by))
    return (_resize(context, samples, width, height, upscale_method, center=False),)


def _resize(context: Context, latent: Latent, width: int, height: int, method: str, *, center: bool) -> Latent:
    import torch

    context.claim(measure(len(latent.samples), height, width, latent.samples.shape[1]))

    channels_last = latent.samples.movedim(1, -1).numpy()
    if center:
        channels_last = crop_to_aspect(channels_last, width, height)
    resized = torch.from_numpy(resize(channels_last, width, height, method))
    return replace(latent, samples=resized.movedim(-1, 1).contiguous())


_METHOD = Input(choices=LATENT_METHODS)
_SIDE = Input("INT", {"default": 512, "min": 0, "max": MAX_RESOLUTION, "step": 8})

NODES = (
    Node(
        "LatentUpscale",
        scale,
        "latent",
        required={
            "samples": Input("LATENT"),
            "upscale_method": _METHOD,
            "width": _SIDE,
            "height": _SIDE,
            "crop": Input(choices=("disabled", "center")),
        },
        outputs=(Output("LATENT"),),
        display_name="Upscale Latent",
        description="Resizes latents to the width and the height of a picture.",
    ),
    Node(
        "LatentUpscaleBy",
        scale_by,
        "latent",
        required={
            "samples": Input("LATENT"),
            "upscale_method": _METHOD,
            "scale_by": Input("FLOAT", {"default": 1.5, "min": 0.01, "max": 8.0, "step": 0.01}),
        },
        outputs=(Output("LATENT"),),
        display_name="Upscale Latent By",
        description="Resizes latents by a factor.",
    ),
)
