"""Previews: the size that ComfyUI has, and the colours that the autoencoder would give."""

import io
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from engine.device import Place
from engine.latents import Scale
from engine.pipelines import Autoencoder
from engine.previews import Projection, _drawing, fit_projection, offer_preview, render_preview

CPU = Place(torch.device("cpu"), torch.float32)
# A latent's first three channels are red, green and blue around gray, the fourth darkens.
COLOURS = Projection(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [-0.1, -0.1, -0.1], [0.5, 0.5, 0.5]]))


@dataclass
class LinearVae:
    """Decodes each latent to a block of 8 x 8 pixels of one colour, in -1..1, by known weights."""

    projection: Projection

    def decode(self, latent: Tensor, return_dict: bool) -> tuple[Tensor]:
        weights = self.projection.weights
        colours = torch.einsum("bchw,cr->brhw", latent, weights[:-1]) + weights[-1][:, None, None]
        return ((colours * 2 - 1).repeat_interleave(8, 2).repeat_interleave(8, 3),)


def open_preview(encoded: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(encoded))
    assert picture.format == "JPEG"
    return picture


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(64, 64, (512, 512)), (8, 16, (512, 256)), (96, 64, (341, 512)), (1, 1000, (512, 1)), (128, 128, (512, 512))],
)
def test_the_longer_side_is_512(height: int, width: int, size: tuple[int, int]) -> None:
    assert open_preview(render_preview(torch.zeros(4, height, width), COLOURS)).size == size


def test_colours_are_where_the_latent_has_them() -> None:
    latent = torch.zeros(4, 16, 16)
    latent[0, :, :8] = 0.5
    latent[2, :, 8:] = 0.5
    pixels = np.asarray(open_preview(render_preview(latent, COLOURS)), dtype=int)
    assert np.abs(pixels[256, 100] - [255, 127, 127]).max() <= 4
    assert np.abs(pixels[256, 400] - [127, 127, 255]).max() <= 4


def test_what_is_too_bright_is_white() -> None:
    pixels = np.asarray(open_preview(render_preview(torch.full((4, 8, 8), 50.0), COLOURS)))
    assert pixels.min() >= 250


def test_a_projection_finds_how_a_linear_autoencoder_decodes() -> None:
    vae: Any = LinearVae(Projection(COLOURS.weights * torch.tensor([0.02] * 4 + [1.0])[:, None]))
    fitted = fit_projection(Autoencoder(vae, channels=4, scale=Scale(0.18215)), CPU)
    assert torch.allclose(fitted.weights, vae.projection.weights, atol=1e-4)


def test_a_preview_is_cheap() -> None:
    latent = torch.randn(4, 64, 64, generator=torch.Generator().manual_seed(0)) / 5

    def measure() -> float:
        start = time.perf_counter()
        render_preview(latent, COLOURS)
        return time.perf_counter() - start

    assert min(measure() for _ in range(10)) < 0.05


def test_a_preview_that_waits_for_others_is_left_out() -> None:
    latent = torch.zeros(4, 8, 8)
    assert offer_preview(latent, COLOURS) == render_preview(latent, COLOURS)
    with _drawing:
        assert offer_preview(latent, COLOURS) is None
    assert offer_preview(latent, COLOURS) is not None


def test_one_that_fails_does_not_keep_others_waiting() -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError):
            offer_preview(torch.zeros(3, 8, 8), COLOURS)
    assert offer_preview(torch.zeros(4, 8, 8), COLOURS) is not None


@pytest.mark.parametrize("reason", [OSError(38, "Function not implemented"), OSError(24, "Too many open files")])
def test_a_preview_needs_no_file_in_memory(reason: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise reason

    expected = render_preview(torch.zeros(4, 8, 8), COLOURS)
    monkeypatch.setattr(os, "memfd_create", refuse)
    assert render_preview(torch.zeros(4, 8, 8), COLOURS) == expected
