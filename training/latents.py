"""Latents: the training set as the denoiser sees it.

For: encoding scenes once, in pieces that are written as they are done. Leaves the autoencoder's training to
`autoencoder`.
Invariant: scene n is the same in every run, so that latents need no record of what they show; latents are held at the
autoencoder's scale, and `scale` brings them to unit variance.
"""

import random
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.autoencoder import to_tensor
from training.drawing import draw_picture
from training.partners import own_share
from training.scenes import Scene, draw_scene
from training.states import append_line, load_state, save_state

_PIECE = 2000  # scenes in a file
_BATCH = 16


def draw_training_scene(seed: int, number: int) -> Scene:
    """Scene `number` of the training set."""
    return draw_scene(random.Random(f"scene {seed} {number}"))


@torch.no_grad()
def encode_scenes(folder: Path, autoencoder: Any, pieces: int, seed: int = 0, device: str = "cpu") -> None:
    """Write the latents of `pieces` times 2000 scenes to `folder`, those that this encoder has not made already."""
    fingerprint = take_fingerprint(autoencoder)
    for piece in range(pieces)[own_share()]:
        path = folder / f"latents-{piece:03d}.pt"
        found = load_state(path)
        if found and found["encoder"] == fingerprint:
            continue
        scenes = [draw_training_scene(seed, piece * _PIECE + index) for index in range(_PIECE)]
        parts = []
        for start in range(0, _PIECE, _BATCH):
            pictures = to_tensor([draw_picture(scene) for scene in scenes[start : start + _BATCH]]).to(device)
            parts.append(autoencoder.encode(pictures).latent_dist.mode().half().cpu())
        save_state(path, {"latents": torch.cat(parts), "encoder": fingerprint})
        append_line(folder / "latents.jsonl", piece=piece, scenes=(piece + 1) * _PIECE)


def take_fingerprint(autoencoder: Any) -> int:
    """A number that is another one when the encoder's weights are."""
    fingerprint = 0
    for part in (autoencoder.encoder, autoencoder.quant_conv):
        for tensor in part.state_dict().values():
            fingerprint = zlib.crc32(tensor.cpu().contiguous().numpy().tobytes(), fingerprint)
    return fingerprint


def read_latents(folder: Path) -> Tensor:
    """The latents [scenes, 4, 16, 16] of the pieces that are there, without gaps."""
    parts: list[Tensor] = []
    while piece := load_state(folder / f"latents-{len(parts):03d}.pt"):
        parts.append(piece["latents"].float())
    if not parts:
        raise FileNotFoundError(f"{folder} has no latents")
    return torch.cat(parts)


def measure_scale(latents: Tensor) -> float:
    """What brings latents to unit variance: `scaling_factor` of the autoencoder's configuration."""
    return round(1 / float(latents.square().mean().sqrt()), 5)
