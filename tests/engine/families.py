"""Tiny checkpoints with random weights of the families that `engine.tiny` does not make, made of its checkpoint."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

WIDTHS = 32, 48  # of Stable Diffusion XL's two encoders
POOLED = 40
PAD = 0  # "!", which OpenCLIP's tokenizers fill chunks with


def build_second(tiny: Path, folder: Path) -> None:
    """Stable Diffusion 2: OpenCLIP's text encoder without its last layer, velocities, linear projections."""
    shutil.copytree(tiny, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        make_text_model(tiny, CLIPTextModel, 32, num_hidden_layers=23, hidden_act="gelu").save_pretrained(
            folder / "text_encoder"
        )
        make_unet(32, use_linear_projection=True).save_pretrained(folder / "unet")
    change(folder / "tokenizer" / "tokenizer_config.json", pad_token="!")
    change(folder / "tokenizer" / "special_tokens_map.json", pad_token="!")
    change(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction", _class_name="DDIMScheduler")


def build_inpainting(tiny: Path, folder: Path) -> None:
    """Stable Diffusion 1 for inpainting: a UNet that is shown a mask and the latent of what is around it."""
    shutil.copytree(tiny, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        make_unet(32, in_channels=9).save_pretrained(folder / "unet")
    change(folder / "model_index.json", _class_name="StableDiffusionInpaintPipeline", _diffusers_version="0.30.0")


def build_xl(tiny: Path, folder: Path, channels: int = 4) -> None:
    """Stable Diffusion XL: two text encoders, of which the second sums texts up, and sizes."""
    shutil.copytree(tiny, folder)
    shutil.copytree(tiny / "tokenizer", folder / "tokenizer_2")
    change(folder / "tokenizer_2" / "tokenizer_config.json", pad_token="!")
    change(folder / "tokenizer_2" / "special_tokens_map.json", pad_token="!")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        make_text_model(tiny, CLIPTextModel, WIDTHS[0], num_hidden_layers=3).save_pretrained(folder / "text_encoder")
        make_text_model(
            tiny, CLIPTextModelWithProjection, WIDTHS[1], num_hidden_layers=4, projection_dim=POOLED, hidden_act="gelu"
        ).save_pretrained(folder / "text_encoder_2")
        make_unet(
            sum(WIDTHS),
            in_channels=channels,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=POOLED + 6 * 8,
            transformer_layers_per_block=(1, 2),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ).save_pretrained(folder / "unet")
    change(folder / "vae" / "config.json", scaling_factor=0.13025, force_upcast=True)
    change(
        folder / "model_index.json",
        _class_name="StableDiffusionXLPipeline",
        text_encoder_2=["transformers", "CLIPTextModelWithProjection"],
        tokenizer_2=["transformers", "CLIPTokenizer"],
        force_zeros_for_empty_prompt=True,
    )


def make_text_model(tiny: Path, kind: Any, width: int, **options: Any) -> Any:
    """A text model for the tokenizer of the tiny checkpoint."""
    vocabulary = json.loads((tiny / "tokenizer" / "vocab.json").read_text(encoding="utf-8"))
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=2 * width,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
        **options,
    )
    model = kind(config)
    # Fresh models have norms that do nothing, which would hide whether they are applied.
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.1)
    return model


def make_unet(width: int, **options: Any) -> Any:
    """A UNet of two levels for embeddings of `width`."""
    blocks: dict[str, Any] = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=width,
        norm_num_groups=8,
        **{**blocks, **options},
    )


def change(path: Path, **changes: object) -> None:
    """Set keys of an object in a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")
