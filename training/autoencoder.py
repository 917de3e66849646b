"""The autoencoder: pictures to latents of an eighth of their size with four channels, and back.

For: its architecture and its training. Leaves the pictures to `drawing`.
Invariant: seeded: step n sees the same batch in every run, however often the run was interrupted.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.drawing import Picture, draw_exercise, draw_picture
from training.partners import own_share, rank
from training.scenes import SIDE, draw_scene
from training.states import Journal, Trainee, pace, quicken

CHANNELS = 4
_BATCH = 8
_CROPS = ((0.15, 32), (0.85, 64), (1.0, SIDE))  # until which share of the steps pieces of which side are seen
_RATE = 6e-4
_REFINING = 0.4  # of that, where the decoder alone learns
_MISS = 0.08  # of a latent's spread, by which the decoder alone learns to bear that it is off
_FIRST_VARIANCE = -5.0  # of a latent, as a logarithm
_EXERCISES = 0.3  # of a batch, the rest are scenes
_EDGES = 0.5  # weight of the differences between neighbouring pixels: without it edges ring
_OUTLINES = (
    4.0  # how much more a pixel weighs near an edge of full contrast: plain ground is most of a picture, and easy
)
_NEAR = 7  # pixels: the side of the square about a pixel in which an edge is near
_DIVERGENCE = 3e-4  # weight of the divergence from a unit normal: latents stay near 1, and near noise decodes the same


def make_autoencoder() -> Any:
    """A fresh AutoencoderKL of 1.6 M parameters."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    model = AutoencoderKL(
        # Sixteen channels at full size: fewer are no faster on a CPU, whose vectors hold sixteen numbers.
        block_out_channels=(16, 32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=CHANNELS,
        # One group: what is normalised in parts loses the colour of a plain background.
        norm_num_groups=1,
        sample_size=128,
        mid_block_add_attention=False,
    )
    _straighten(model)
    return model


@torch.no_grad()
def _straighten(model: Any) -> None:
    """Start from networks that let colours through: ordinary beginnings take thousands of steps to find the way.

    Residual branches start at nothing, changes of size copy, changes of width turn, and the latent is nearly exact.
    """
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if name.endswith("conv2"):
            nn.init.zeros_(module.weight)
        elif "sampler" in name or "quant" in name:
            nn.init.dirac_(module.weight)
        elif name.endswith(("conv_in", "conv_out", "conv_shortcut")):
            middle = module.kernel_size[0] // 2
            nn.init.normal_(module.weight, std=0.02)
            module.weight[:, :, middle, middle] = nn.init.orthogonal_(torch.empty(module.weight.shape[:2]))
        else:
            continue
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    model.quant_conv.weight[CHANNELS:] = 0
    model.quant_conv.bias[CHANNELS:] = _FIRST_VARIANCE


def to_tensor(pictures: list[Picture]) -> Tensor:
    """Pictures as [batch, 3, height, width] in -1..1."""
    stacked = torch.from_numpy(np.stack(pictures))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1


def draw_batch(seed: int, step: int, size: int, side: int) -> Tensor:
    """The pictures of a step, or pieces of them, which take less time and teach as much at first."""
    chance = random.Random(f"autoencoder {seed} {step}")
    pictures = []
    for _ in range(size):
        picture = draw_exercise(chance) if chance.random() < _EXERCISES else draw_picture(draw_scene(chance))
        left, top = chance.randint(0, SIDE - side), chance.randint(0, SIDE - side)
        pictures.append(picture[top : top + side, left : left + side])
    return to_tensor(pictures)


def measure_loss(pictures: Tensor, decoded: Tensor) -> tuple[Tensor, Tensor]:
    """The mean distance of pixels, those near edges weighted, and of the differences between neighbours."""
    error = decoded - pictures
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return (error.abs() * (1 + _OUTLINES * find_outlines(pictures))).mean(), edges


def find_outlines(pictures: Tensor) -> Tensor:
    """How much contrast there is near each pixel [batch, 1, height, width], from 0 to 1 between black and white."""
    nearest = nn.functional.max_pool2d(pictures, 3, stride=1, padding=1)
    contrast = nearest + nn.functional.max_pool2d(-pictures, 3, stride=1, padding=1)
    return nn.functional.max_pool2d(contrast.amax(1, keepdim=True) / 2, _NEAR - 2, stride=1, padding=_NEAR // 2 - 1)


def train_autoencoder(
    folder: Path, steps: int, seed: int = 0, device: str = "cpu", frozen_from: int | None = None
) -> None:
    """Train until `steps`, taking up what is in `folder`.

    From step `frozen_from` on only the decoder learns, so that latents made before stay valid: to make clean pictures
    of latents that are a little off, as those of a denoiser are.
    """
    torch.manual_seed(seed)
    model = make_autoencoder()
    torch.manual_seed(seed + rank())  # partners start from equal weights and sample apart
    trainee = Trainee(model, folder / "autoencoder.pt", _RATE, device)
    first = frozen_from or 0
    if frozen_from is not None:
        _freeze_encoder(model, trainee.average.module)
    journal = Journal(folder / "autoencoder.jsonl", 100)
    while trainee.step < steps:
        step = trainee.step
        side = SIDE if frozen_from is not None else next(side for share, side in _CROPS if step < share * steps)
        batch = draw_batch(seed, step, _BATCH if frozen_from is None else _BATCH // 2, side)
        pictures = batch[own_share()].to(device)
        with quicken(device):
            posterior = model.encode(pictures).latent_dist
            latents = posterior.sample()
            if frozen_from is not None:
                latents = latents + _MISS * latents.std() * torch.randn_like(latents)
            decoded = model.decode(latents, return_dict=False)[0]
        pixels, edges = measure_loss(pictures, decoded.float())
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        share = pace(step - first, steps - first) * (1.0 if frozen_from is None else _REFINING)
        trainee.learn(pixels + _EDGES * edges + _DIVERGENCE * divergence, share)
        last = trainee.step == steps
        journal.note(trainee.step, last, l1=pixels.item(), edges=edges.item(), kl=divergence.item())
        trainee.keep(last)


def _freeze_encoder(model: Any, average: Any) -> None:
    """Keep the encoder as it is in the average, which the latents were made with."""
    for part, kept in ((model.encoder, average.encoder), (model.quant_conv, average.quant_conv)):
        part.load_state_dict(kept.state_dict())
        part.requires_grad_(False)
