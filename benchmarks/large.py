"""`python -m benchmarks.large FOLDER`: a checkpoint of the size of Stable Diffusion 1.5, with random weights.

What a pass costs does not depend on what the weights are, and published ones are not always at hand. Leaves measuring
to the others. Invariant: each layer has the shape that it has in the published configuration; weights are float16.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.tiny import build_checkpoint, make_clip

SIDE = 512
"""Pixels a side of the pictures that it is made for."""


def build_large(folder: Path, device: str = "cpu") -> None:
    """Write the checkpoint, 2.1 GB, to `folder`. Random numbers are drawn on `device`, which is faster on a GPU."""
    import torch

    def short(make: Callable[..., Any]) -> Callable[..., Any]:
        def make_short(*given: Any) -> Any:
            with torch.device(device):
                return make(*given).half()

        return make_short

    build_checkpoint(folder, short(_make_text_encoder), short(_make_unet), short(_make_autoencoder))


def _make_text_encoder(vocabulary: Mapping[str, int]) -> Any:
    return make_clip(vocabulary, hidden_size=768, intermediate_size=3072, layers=12, heads=12)


def _make_unet() -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=SIDE // 8,
        block_out_channels=(320, 640, 1280, 1280),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        layers_per_block=2,
        attention_head_dim=8,
        cross_attention_dim=768,
    )


def _make_autoencoder() -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(
        sample_size=SIDE,
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    )


def main(words: Sequence[str]) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description="Make a large random checkpoint.")
    parser.add_argument("folder", type=Path, help="where to write it, such as models/checkpoints/large")
    parser.add_argument("--device", default="cpu", help="on what the weights are drawn (%(default)s)")
    options = parser.parse_args(words)
    build_large(options.folder, options.device)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
