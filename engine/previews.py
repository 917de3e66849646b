"""Previews: what a latent will look like, without decoding it.

For: a small picture of a step, cheap enough to make at every one where few prompts run. Leaves sending it to the
server.
Invariant: the cost does not depend on the size of the model; the colours are those of the model's own autoencoder.
"""

import io
import os
import threading
from dataclasses import dataclass
from typing import IO

import torch
from PIL import Image
from torch import Tensor

from engine.device import Place
from engine.pipelines import Autoencoder
from engine.transfer import fetch
from engine.turns import take_turn

LONGER_SIDE = 512  # ComfyUI 0.3.64's --preview-size
_QUALITY = 95  # ComfyUI's
_PATCHES = 8  # a side, of the latent that a projection is fitted to
_PATCH = 3  # latents a side: large enough for a colour to settle in its middle
_SAMPLES = 2
_PATIENCE = 0.01  # seconds until a preview that waits for others is left out
_drawing = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Colours in 0..1 as a linear function of a latent's channels: `weights` [channels + 1, 3], the bias last."""

    weights: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class ProjectionFit:
    """Ask for the projection that comes nearest to what an autoencoder decodes."""

    autoencoder: Autoencoder

    def perform(self, place: Place) -> Projection:
        return fit_projection(self.autoencoder, place)


def fit_projection(autoencoder: Autoencoder, place: Place) -> Projection:
    """Least squares over patches of one latent value each, which the autoencoder decodes to patches of one colour."""
    generator = torch.Generator("cpu").manual_seed(0)
    shape = (_SAMPLES, autoencoder.channels, _PATCHES, _PATCHES)
    patches = autoencoder.scale.leave(torch.randn(shape, generator=generator))
    latents = patches.repeat_interleave(_PATCH, 2).repeat_interleave(_PATCH, 3)
    pictures = fetch(autoencoder.decode(place, latents, _SAMPLES)).permute(0, 3, 1, 2)
    colours = torch.nn.functional.interpolate(pictures, size=(_PATCHES, _PATCHES), mode="area")
    known = patches.permute(0, 2, 3, 1).reshape(-1, autoencoder.channels)
    known = torch.cat([known, torch.ones(len(known), 1)], 1)
    return Projection(torch.linalg.lstsq(known, colours.permute(0, 2, 3, 1).reshape(-1, 3)).solution)


def offer_preview(latent: Tensor, projection: Projection) -> bytes | None:
    """What `render_preview` gives, or None where other threads draw theirs for a while.

    One at a time, they take no more of the machine than it can spare: the next pass comes first.
    """
    with take_turn(_drawing, _PATIENCE) as mine:
        return render_preview(latent, projection) if mine else None


def render_preview(latent: Tensor, projection: Projection) -> bytes:
    """A JPEG of one latent [channels, height, width] in the autoencoder's scale, its longer side LONGER_SIDE pixels."""
    weights = projection.weights
    colours = torch.einsum("chw,cr->hwr", latent, weights[:-1]) + weights[-1]
    pixels = (colours.clamp(0, 1) * 255).to(torch.uint8).numpy()
    picture = Image.fromarray(pixels)
    scale = LONGER_SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    with _open_memory() as encoded:
        picture.resize(size, Image.Resampling.BILINEAR).save(encoded, "JPEG", quality=_QUALITY)
        encoded.seek(0)
        return encoded.read()


def _open_memory() -> IO[bytes]:
    """A file in memory, where there are such: Pillow keeps all threads waiting while it encodes into anything else."""
    try:
        return os.fdopen(os.memfd_create("preview"), "w+b", buffering=0)
    except (AttributeError, OSError):  # not Linux, forbidden by a sandbox, or too many files are open
        return io.BytesIO()
