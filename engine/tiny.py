"""A tiny Stable-Diffusion-1-style checkpoint with random weights.

For: running every component of the real thing in a second on a small machine; `python -m engine.tiny FOLDER` makes one.
Leaves pictures worth looking at to trained models: these are coloured noise.
Invariant: the same seed gives the same files; nothing is fetched.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_WIDTH = 32  # of text embeddings
_TOKENS = 77  # CLIP's

_SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
}

_INDEX_NAME = "model_index.json"
_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def build_tiny(folder: Path, seed: int = 0) -> None:
    """Write the checkpoint to `folder`."""
    build_checkpoint(folder, _make_text_encoder, _make_unet, _make_autoencoder, seed)


def build_checkpoint(
    folder: Path,
    make_text_encoder: Callable[[Mapping[str, int]], Any],
    make_unet: Callable[[], Any],
    make_autoencoder: Callable[[], Any],
    seed: int = 0,
) -> None:
    """Write a checkpoint of networks of any size; that of texts is made for a vocabulary of letters.

    Its index comes last, so that a folder with an index is whole.
    """
    import torch

    from engine.components import silence_progress

    silence_progress()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vocabulary = _write_tokenizer(folder / "tokenizer")
        make_text_encoder(vocabulary).save_pretrained(folder / "text_encoder")
        make_unet().save_pretrained(folder / "unet")
        make_autoencoder().save_pretrained(folder / "vae")
    _write_json(folder / "scheduler" / "scheduler_config.json", _SCHEDULER)
    _write_json(folder / _INDEX_NAME, _INDEX)


def _write_tokenizer(folder: Path) -> dict[str, int]:
    """CLIP's byte-level alphabet without any merges: each letter is a token."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    start, end = "<|startoftext|>", "<|endoftext|>"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), start, end]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    special = {"bos_token": start, "eos_token": end, "pad_token": end, "unk_token": end}
    _write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    _write_json(folder / "special_tokens_map.json", special)
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": _TOKENS, **special}
    _write_json(folder / "tokenizer_config.json", config)
    return vocabulary


def _make_text_encoder(vocabulary: Mapping[str, int]) -> Any:
    return make_clip(vocabulary, hidden_size=_WIDTH, intermediate_size=2 * _WIDTH, layers=2, heads=4)


def make_clip(
    vocabulary: Mapping[str, int], *, hidden_size: int, intermediate_size: int, layers: int, heads: int
) -> Any:
    """CLIP's text model for a vocabulary that ends texts, and fills them up, with its last token."""
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel

    end = vocabulary["<|endoftext|>"]
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary),
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=_TOKENS,
            bos_token_id=vocabulary["<|startoftext|>"],
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def _make_unet() -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=_WIDTH,
        norm_num_groups=8,
    )


def _make_autoencoder() -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16, 16, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=128,
    )


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m engine.tiny", description="Make a tiny random checkpoint.")
    parser.add_argument("folder", type=Path, help="where to write it, such as models/checkpoints/tiny")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if (arguments.folder / _INDEX_NAME).exists():
        print(f"{arguments.folder} has a checkpoint already")
        return
    build_tiny(arguments.folder, arguments.seed)
    size = sum(path.stat().st_size for path in arguments.folder.rglob("*") if path.is_file())
    print(f"{arguments.folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
