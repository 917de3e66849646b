"""Tiny checkpoints with random weights of the families of flow matching, made of the checkpoint of `engine.tiny`."""

import json
import shutil
import string
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection
from transformers.models.t5.configuration_t5 import T5Config
from transformers.models.t5.modeling_t5 import T5EncoderModel
from transformers.models.t5.tokenization_t5 import T5Tokenizer

from tests.engine.families import change, make_text_model

CLIP_WIDTHS = 32, 48
POOLED = 24, 40
T5_WIDTH = 96
CHANNELS = 16
SD3_SCALE, FLUX_SCALE = (1.5305, 0.0609), (0.3611, 0.1159)


def build_sd3(tiny: Path, folder: Path, *, t5: bool = True) -> None:
    """Stable Diffusion 3.5: three text encoders, of which T5 may be left out, and attention of two kinds."""
    _begin(tiny, folder, SD3_SCALE)
    scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler), encoding="utf-8")
    shutil.copytree(tiny / "tokenizer", folder / "tokenizer_2")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        for suffix, width, pooled in zip(("", "_2"), CLIP_WIDTHS, POOLED, strict=True):
            model = make_text_model(
                tiny, CLIPTextModelWithProjection, width, num_hidden_layers=3, projection_dim=pooled
            )
            model.save_pretrained(folder / f"text_encoder{suffix}")
        if t5:
            _write_t5(folder, "_3")
        transformer = SD3Transformer2DModel(
            sample_size=16,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=T5_WIDTH,
            caption_projection_dim=32,
            pooled_projection_dim=sum(POOLED),
            pos_embed_max_size=16,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        )
        _shake(transformer).save_pretrained(folder / "transformer")
    change(
        folder / "model_index.json",
        _class_name="StableDiffusion3Pipeline",
        transformer=["diffusers", "SD3Transformer2DModel"],
        scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"],
        text_encoder=["transformers", "CLIPTextModelWithProjection"],
        text_encoder_2=["transformers", "CLIPTextModelWithProjection"],
        tokenizer_2=["transformers", "CLIPTokenizer"],
        text_encoder_3=["transformers", "T5EncoderModel"] if t5 else [None, None],
        tokenizer_3=["transformers", "T5TokenizerFast"] if t5 else [None, None],
    )


def build_flux(tiny: Path, folder: Path, *, guided: bool = True) -> None:
    """Flux: CLIP's summary, T5's tokens, and guidance as a number unless it is like schnell."""
    _begin(tiny, folder, FLUX_SCALE)
    scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0, "use_dynamic_shifting": guided}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler), encoding="utf-8")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        make_text_model(tiny, CLIPTextModel, CLIP_WIDTHS[0], num_hidden_layers=2).save_pretrained(
            folder / "text_encoder"
        )
        _write_t5(folder, "_2")
        transformer = FluxTransformer2DModel(
            in_channels=4 * CHANNELS,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=T5_WIDTH,
            pooled_projection_dim=CLIP_WIDTHS[0],
            guidance_embeds=guided,
            axes_dims_rope=(4, 6, 6),
        )
        _shake(transformer).save_pretrained(folder / "transformer")
    change(
        folder / "model_index.json",
        _class_name="FluxPipeline",
        transformer=["diffusers", "FluxTransformer2DModel"],
        scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"],
        text_encoder=["transformers", "CLIPTextModel"],
        text_encoder_2=["transformers", "T5EncoderModel"],
        tokenizer_2=["transformers", "T5TokenizerFast"],
    )


def _begin(tiny: Path, folder: Path, scale: tuple[float, float]) -> None:
    """What the families have in common: a CLIP tokenizer and an autoencoder of 16 channels that are not centred."""
    shutil.copytree(tiny / "tokenizer", folder / "tokenizer")
    (folder / "scheduler").mkdir()
    index = json.loads((tiny / "model_index.json").read_text(encoding="utf-8"))
    del index["unet"]
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        AutoencoderKL(
            block_out_channels=(8, 16, 16, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=CHANNELS,
            norm_num_groups=8,
            use_quant_conv=False,
            use_post_quant_conv=False,
            scaling_factor=scale[0],
            shift_factor=scale[1],
        ).save_pretrained(folder / "vae")


def _write_t5(folder: Path, suffix: str) -> None:
    """A T5 encoder, and a tokenizer to which each letter is a token."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary = [*special, ("▁", -2.0), *((letter, -3.0) for letter in string.ascii_letters)]
    kind: Any = T5Tokenizer
    kind(vocab=vocabulary, extra_ids=0).save_pretrained(folder / f"tokenizer{suffix}")
    config = T5Config(
        vocab_size=len(vocabulary),
        d_model=T5_WIDTH,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    _shake(T5EncoderModel(config)).save_pretrained(folder / f"text_encoder{suffix}")


def _shake(network: Any) -> Any:
    """Fresh norms and gates do nothing, which would hide whether they are there."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.1)
    return network
