"""Single files of weights, in the layout of their first authors, with their configuration beside them."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.device import Device
from engine.errors import ModelError
from engine.ldm import list_original_names
from engine.models import Handle, Models
from engine.shelves import list_autoencoders, list_checkpoints
from tests.engine.families import build_inpainting, build_xl

VAE_NAMES = {
    "mid_block.attentions.0": "mid.attn_1",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
    "resnets": "block",
}
OPEN_CLIP_NAMES = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "fc1": "c_fc",
    "fc2": "c_proj",
    "self_attn": "attn",
}


def read(folder: Path) -> dict[str, Tensor]:
    """The weights of a component in diffusers' format."""
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def write_unet(folder: Path) -> dict[str, Tensor]:
    """As LDM has it."""
    weights = read(folder)
    names = list_original_names({key.rpartition(".")[0] for key in weights}, 1)
    modules = {name: key for key, name in names.items()}
    found = {}
    for key, weight in weights.items():
        module, _, kind = key.rpartition(".")
        found[f"model.diffusion_model.{modules[module]}.{kind}"] = weight
    return found


def write_autoencoder(folder: Path, prefix: str = "first_stage_model.") -> dict[str, Tensor]:
    """As LDM has it: levels of the decoder counted from the coarsest, attention as convolutions of one pixel."""
    found = {}
    for key, weight in read(folder).items():
        name = key
        for level in range(4):
            name = name.replace(f"down_blocks.{level}.", f"down.{level}.").replace(
                f"up_blocks.{level}.", f"up.{3 - level}."
            )
        for new, old in VAE_NAMES.items():
            name = name.replace(new, old)
        is_projection = "attn_1" in name and weight.ndim == 2
        found[prefix + name] = weight[:, :, None, None].contiguous() if is_projection else weight
    return found


def write_text_model(folder: Path, prefix: str) -> dict[str, Tensor]:
    """As transformers had it, which LDM took over."""
    return {
        f"{prefix}{key if 'text_model' in key else f'text_model.{key}'}": each for key, each in read(folder).items()
    }


def write_open_clip(folder: Path, prefix: str) -> dict[str, Tensor]:
    """As OpenCLIP has it: the projections of attention in one, the last projection transposed."""
    weights, found = read(folder), {}
    for key, weight in weights.items():
        name, value = key, weight
        if ".k_proj." in key or ".v_proj." in key:
            continue
        if ".q_proj." in key:
            value = torch.cat([weights[key.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")])
            name = key.replace(".q_proj.", ".in_proj_")
        if key == "text_projection.weight":
            name, value = "text_projection", weight.T.contiguous()
        for new, old in OPEN_CLIP_NAMES.items():
            name = name.replace(new, old)
        found[prefix + name] = value
    return found


def write_first(folder: Path) -> dict[str, Tensor]:
    """Stable Diffusion 1 in one file."""
    text = write_text_model(folder / "text_encoder", "cond_stage_model.transformer.")
    return write_unet(folder / "unet") | write_autoencoder(folder / "vae") | text


def write_xl(folder: Path) -> dict[str, Tensor]:
    """Stable Diffusion XL in one file."""
    first = write_text_model(folder / "text_encoder", "conditioner.embedders.0.transformer.")
    second = write_open_clip(folder / "text_encoder_2", "conditioner.embedders.1.model.")
    return write_unet(folder / "unet") | write_autoencoder(folder / "vae") | first | second


def copy_configuration(folder: Path, to: Path) -> None:
    """All of a checkpoint in diffusers' format but its weights."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors"))


def list_weights(models: Models, name: str) -> Mapping[str, Tensor]:
    """All weights of a checkpoint as they are in memory."""
    networks: dict[str, Any] = {
        "unet": models.denoiser(Handle(name, "model")).network.module,
        "vae": models.autoencoder(Handle(name, "vae")).vae,
    }
    towers = models.text_encoder(Handle(name, "clip")).towers
    networks |= {f"tower {number}": tower.model for number, tower in enumerate(towers)}
    return {
        f"{part} {key}": weight for part, network in networks.items() for key, weight in network.state_dict().items()
    }


@pytest.mark.parametrize("place", ["configs", "checkpoints"])
@pytest.mark.parametrize(("family", "write"), [("tiny", write_first), ("inpainting", write_first), ("xl", write_xl)])
def test_a_file_gives_what_the_folder_gives(
    device: Device,
    checkpoints: Path,
    tmp_path: Path,
    family: str,
    write: Callable[[Path], dict[str, Tensor]],
    place: str,
) -> None:
    source = checkpoints / "tiny"
    if build := {"inpainting": build_inpainting, "xl": build_xl}.get(family):
        source = tmp_path / "other" / "checkpoints" / family
        build(checkpoints / "tiny", source)
    copy_configuration(source, tmp_path / place / "sub" / "one")
    (tmp_path / "checkpoints" / "sub").mkdir(parents=True, exist_ok=True)
    save_file(write(source), tmp_path / "checkpoints" / "sub" / "one.safetensors")
    assert list_checkpoints(tmp_path / "checkpoints") == ["sub/one.safetensors"]
    models = Models(device, tmp_path)
    models.load("sub/one.safetensors")
    found = list_weights(models, "sub/one.safetensors")
    expected = list_weights(Models(device, source.parent.parent), family)
    assert found.keys() == expected.keys()
    assert all(torch.equal(weight, expected[key]) for key, weight in found.items())


def test_a_file_without_configuration_says_what_it_needs(device: Device, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    save_file({"a": torch.zeros(1)}, tmp_path / "checkpoints" / "one.safetensors")
    with pytest.raises(ModelError, match=r"belongs to models/configs/one$") as refused:
        Models(device, tmp_path).load("one.safetensors")
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize(
    "prefix",
    ["model.diffusion_model.", "model.diffusion_model.middle_block", "first_stage_model.", "cond_stage_model."],
)
def test_a_file_that_lacks_weights_is_refused(device: Device, checkpoints: Path, tmp_path: Path, prefix: str) -> None:
    copy_configuration(checkpoints / "tiny", tmp_path / "configs" / "one")
    weights = write_first(checkpoints / "tiny")
    (tmp_path / "checkpoints").mkdir()
    left = {key: weight for key, weight in weights.items() if not key.startswith(prefix)}
    save_file(left, tmp_path / "checkpoints" / "one.safetensors")
    with pytest.raises(ModelError, match=r"checkpoint 'one\.safetensors': its ") as refused:
        Models(device, tmp_path).load("one.safetensors")
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("family", ["tiny", "flux"])
def test_an_autoencoder_alone_is_read_from_a_folder_or_a_file(
    device: Device, checkpoints: Path, flow_checkpoints: Path, tmp_path: Path, family: str
) -> None:
    source = (checkpoints if family == "tiny" else flow_checkpoints) / family
    vae = source / "vae"
    shutil.copytree(vae, tmp_path / "vae" / "folder")
    save_file(write_autoencoder(vae, prefix=""), tmp_path / "vae" / "file.safetensors")
    copy_configuration(vae, tmp_path / "configs" / "file")
    save_file(write_autoencoder(vae), tmp_path / "vae" / "whole.safetensors")
    copy_configuration(source, tmp_path / "configs" / "whole")
    assert list_autoencoders(tmp_path / "vae") == ["file.safetensors", "folder", "whole.safetensors"]
    expected = Models(device, source.parent.parent).autoencoder(Handle(family, "vae"))
    others = Models(device, tmp_path)
    for name in list_autoencoders(tmp_path / "vae"):
        found = others.autoencoder(others.load_autoencoder(name))
        assert (found.channels, found.scale) == (expected.channels, expected.scale)
        weights = expected.vae.state_dict()
        assert all(torch.equal(weight, weights[key]) for key, weight in found.vae.state_dict().items())


def test_an_autoencoder_of_another_kind_is_refused(device: Device, tmp_path: Path) -> None:
    (tmp_path / "vae" / "odd").mkdir(parents=True)
    (tmp_path / "vae" / "odd" / "config.json").write_text('{"_class_name": "AutoencoderTiny"}')
    with pytest.raises(ModelError, match="autoencoder 'odd' is AutoencoderTiny, which this engine does not run"):
        Models(device, tmp_path).load_autoencoder("odd")
    with pytest.raises(ModelError, match="there is no autoencoder 'even'"):
        Models(device, tmp_path).load_autoencoder("even")
