"""The denoiser: a UNet that learns to take noise out of latents as a text encoder says that a caption wants.

For: its architecture and its training. Leaves latents to `latents`, words to `captions`, what they mean to `reading`,
and measuring to `measurement`.
Invariant: seeded: step n sees the same batch in every run over the same latents.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from training.captions import write_caption, write_nothing
from training.latents import draw_training_scene, measure_scale, read_latents
from training.partners import do_once, own_share, rank
from training.reading import DROPPED, WIDTH, make_text_encoder, read_reader
from training.scenes import Scene
from training.states import Journal, Trainee, load_state, pace, quicken
from training.vocabulary import encode_captions, read_tokenizer, write_tokenizer

# Stable Diffusion 1's noise levels; the velocity is learned, which is well posed where the latent is nearly noise.
SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
}

_BATCH = 32
_RATE = 1.0e-3
_HASTE = 1.5  # above 1, times of much noise are more frequent: what is drawn, and where, is decided there
_RATIO = 5.0  # signal to noise ratio from which on the weight falls (Hang et al. 2023)


def make_unet() -> Any:
    """A fresh UNet2DConditionModel of 4.3 M parameters, with attention at 8 x 8.

    What the text wants goes everywhere with the time, and to its place by cross-attention.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=WIDTH,
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=16,
    )


def list_alphas() -> Tensor:
    """The share of signal power at each of the training steps, as SCHEDULER tells it."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


class Painter(nn.Module):
    """The two networks: the text encoder has learned to read and stays as it is."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.text_encoder = make_text_encoder(tokens).requires_grad_(False)
        self.unet = make_unet()

    def forward(self, latents: Tensor, times: Tensor, ids: Tensor) -> Tensor:
        """The velocity [batch, 4, height, width] at `times` [batch] of captions [batch, tokens]."""
        words = self.text_encoder(ids)[0]
        velocity: Tensor = self.unet(latents, times, encoder_hidden_states=words, return_dict=False)[0]
        return velocity


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step learns from."""

    latents: Tensor
    noise: Tensor
    times: Tensor
    ids: Tensor

    def take(self, rows: slice) -> Self:
        """Some of the rows."""
        parts = (self.latents, self.noise, self.times, self.ids)
        return type(self)(*(part[rows] for part in parts))

    def to(self, device: str) -> Self:
        """The same on a device."""
        parts = (self.latents, self.noise, self.times, self.ids)
        return type(self)(*(part.to(device) for part in parts))


def draw_batch(seed: int, step: int, latents: Tensor, scenes: Sequence[Scene], tokenizer: Any) -> Batch:
    """The batch of a step, over latents of unit variance."""
    chance = random.Random(f"denoiser {seed} {step}")
    generator = torch.Generator().manual_seed(chance.getrandbits(62))
    picked = [chance.randrange(len(latents)) for _ in range(_BATCH)]
    captions = [
        write_nothing(chance) if chance.random() < DROPPED else write_caption(chance, scenes[index]) for index in picked
    ]
    # One time from each of as many equal parts as there are rows: less chance in the loss.
    spread = (torch.arange(_BATCH) + torch.rand(_BATCH, generator=generator)) / _BATCH
    return Batch(
        latents=latents[picked],
        noise=torch.randn((_BATCH, *latents.shape[1:]), generator=generator),
        times=((1 - spread**_HASTE) * 1000).long().clamp(max=999),
        ids=torch.tensor(encode_captions(tokenizer, captions)),
    )


def measure_loss(painter: nn.Module, batch: Batch, alphas: Tensor) -> Tensor:
    """The squared error of each row's velocity [batch], weighted by its signal to noise ratio."""
    alpha = alphas[batch.times].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * batch.latents + (1 - alpha).sqrt() * batch.noise
    velocity = alpha.sqrt() * batch.noise - (1 - alpha).sqrt() * batch.latents
    with quicken(noisy.device.type):
        predicted: Tensor = painter(noisy, batch.times, batch.ids).float()
    # The error of the velocity is that of the latent times the ratio plus 1.
    weight = (_RATIO * (1 - alpha)).clamp(max=1).view(-1)
    return weight * (predicted - velocity).square().mean(dim=(1, 2, 3))


def train_denoiser(
    folder: Path,
    steps: int,
    seed: int = 0,
    device: str = "cpu",
    measure: Callable[[int, Painter, float], None] | None = None,
    measure_every: int = 500,
) -> None:
    """Train until `steps`, taking up what is in `folder`; `measure` gets the averaged networks now and then."""
    torch.manual_seed(seed)
    tokens = do_once(lambda: write_tokenizer(folder / "tokenizer"))
    tokenizer = read_tokenizer(folder / "tokenizer")
    raw = read_latents(folder)
    scale = do_once(lambda: _fix_scale(folder, raw))
    latents = raw * scale
    scenes = [draw_training_scene(seed, number) for number in range(len(latents))]
    painter = Painter(tokens)
    painter.text_encoder.load_state_dict(read_reader(folder))
    trainee = Trainee(painter, folder / "denoiser.pt", _RATE, device)
    journal = Journal(folder / "denoiser.jsonl", 50)
    alphas = list_alphas().to(device)
    while trainee.step < steps:
        step = trainee.step
        batch = draw_batch(seed, step, latents, scenes, tokenizer).take(own_share()).to(device)
        rows = measure_loss(painter, batch, alphas)
        trainee.learn(rows.mean(), pace(step, steps))
        last = trainee.step == steps
        high, middle, low = (float(third.mean()) for third in rows.detach().tensor_split(3))
        journal.note(trainee.step, last, loss=(low + middle + high) / 3, low=low, middle=middle, high=high)
        trainee.keep(last)
        if measure and (trainee.step % measure_every == 0 or last):
            trainee.keep(True)
            if rank() == 0:
                measure(trainee.step, trainee.average.module, scale)


def read_painter(folder: Path) -> tuple[Painter, float]:
    """The averaged networks that a folder of states has, and the scale of their latents."""
    found = load_state(folder / "denoiser.pt")
    if found is None:
        raise FileNotFoundError(f"{folder} has no denoiser")
    painter = Painter(write_tokenizer(folder / "tokenizer"))
    painter.load_state_dict(found["average"])
    return painter.eval().requires_grad_(False), float(json.loads((folder / "scale.json").read_text(encoding="utf-8")))


def _fix_scale(folder: Path, latents: Tensor) -> float:
    """The scale of the first latents, kept: it is part of what the networks learn."""
    path = folder / "scale.json"
    if not path.exists():
        path.write_text(json.dumps(measure_scale(latents)), encoding="utf-8")
    return float(json.loads(path.read_text(encoding="utf-8")))
