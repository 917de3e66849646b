"""Checkpoints: what a model's components make together.

For: the parts of `pipelines` and `texts`, with the numbers that its configuration has for them, and their way to the
device. Leaves reading components to `components`, and which parts stay in memory to `models`.
Invariant: a model of a family that this engine does not run is refused by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from engine.components import load_component, load_network, read_index, read_json
from engine.device import Place
from engine.errors import ModelError
from engine.flow import find_transformer, read_flow_denoiser, read_flow_text_encoder, read_scale
from engine.loras import Lora
from engine.networks import Unet
from engine.pipelines import Autoencoder, Denoiser
from engine.schedules import NoiseSchedule
from engine.shelves import INDEX, Source
from engine.texts import TextEncoder, Tower

Part: TypeAlias = Denoiser | TextEncoder | Autoencoder
Strength: TypeAlias = tuple[Lora, float]

_PREDICTIONS = ("epsilon", "v_prediction")
_OTHER_NOISE = ("EDM", "FlowMatch")
_WAYS_IN = (None, "text_proj")  # of embeddings into the network: as they are, or through a layer of its own
_ADDITIONS = (None, "text", "text_time")  # to the time: what sums the embedding up, or what the encoder has summed up
_INPAINTING = 4 + 1 + 4, 4  # channels that a UNet takes, with a mask and the latent of a picture, and that it gives
_NOT_RUN = {5: " (a depth model)", 7: " (an upscaler)", 8: " (InstructPix2Pix)"}  # by the channels that they take
_TIMES = 6  # numbers of size and place that Stable Diffusion XL is told; its refiner is told five


def read_part(source: Source, part: Literal["model", "clip", "vae"], loras: Sequence[Strength] = ()) -> Part:
    """A part of a checkpoint, with LoRAs merged into it, on the CPU in float32. Raises ModelError."""
    match part:
        case "model":
            return _read_denoiser(source, loras)
        case "clip":
            return _read_text_encoder(source, loras)
        case "vae":
            return _make_autoencoder(source, load_component(source, "vae"), read_json(source, "vae/config.json"))


def read_autoencoder(source: Source) -> Autoencoder:
    """An autoencoder that is no part of a checkpoint. Raises ModelError."""
    within = "vae" if (source.folder / "vae").is_dir() else ""
    config = read_json(source, f"{within}/config.json".lstrip("/"))
    if (kind := config.get("_class_name")) != "AutoencoderKL":
        raise ModelError(f"autoencoder {source.name!r} is {kind}, which this engine does not run")
    return _make_autoencoder(source, load_network(source, within, "AutoencoderKL"), config)


def _make_autoencoder(source: Source, vae: Any, config: Mapping[str, Any]) -> Autoencoder:
    if config.get("latents_mean"):
        raise ModelError(f"checkpoint {source.name!r}: its latents have a mean for each channel, which is not run")
    return Autoencoder(vae, int(config.get("latent_channels", 4)), read_scale(config))


def _read_denoiser(source: Source, loras: Sequence[Strength]) -> Denoiser:
    if kind := find_transformer(source):
        return read_flow_denoiser(source, kind, loras)
    if read_json(source, INDEX).get("requires_aesthetics_score"):
        raise ModelError(f"checkpoint {source.name!r}: refiners, which are told how pretty to draw, are not run")
    scheduler = read_json(source, "scheduler/scheduler_config.json")
    if (noise := str(scheduler.get("_class_name"))).startswith(_OTHER_NOISE):
        raise ModelError(f"checkpoint {source.name!r}: its scheduler is {noise}, whose kind of noise is not known here")
    prediction = scheduler.get("prediction_type", "epsilon")
    if prediction not in _PREDICTIONS:
        raise ModelError(f"checkpoint {source.name!r}: models that predict {prediction!r} are not run")
    unet = load_component(source, "unet")
    config = unet.config
    added = config.addition_embed_type
    if added not in _ADDITIONS or config.class_embed_type or config.encoder_hid_dim_type not in _WAYS_IN:
        raise ModelError(f"checkpoint {source.name!r}: its unet is conditioned on what this engine does not know")
    taken, given = config.in_channels, config.out_channels
    if taken != given and (taken, given) != _INPAINTING:
        which = f"takes {taken} channels and gives {given}{_NOT_RUN.get(taken, '')}"
        raise ModelError(f"checkpoint {source.name!r}: its unet {which}, and such are not run")
    pooled = None
    if added == "text_time":
        pooled = int(config.projection_class_embeddings_input_dim) - _TIMES * int(config.addition_time_embed_dim)
    for lora, strength in loras:
        lora.merge("unet", unet, strength)
    scale = read_scale(read_json(source, "vae/config.json"))
    return Denoiser(Unet(unet, pooled), read_schedule(scheduler), prediction, scale)


def _read_text_encoder(source: Source, loras: Sequence[Strength]) -> TextEncoder:
    if kind := find_transformer(source):
        return read_flow_text_encoder(source, kind, loras)
    has = read_index(source)
    suffixes = [suffix for suffix in ("", "_2", "_3") if f"text_encoder{suffix}" in has]
    towers = []
    for suffix in suffixes or [""]:
        tower = Tower(load_component(source, f"tokenizer{suffix}"), load_component(source, f"text_encoder{suffix}"))
        for lora, strength in loras:
            lora.merge(f"text_encoder{suffix}", tower.model, strength)
        towers.append(tower)
    # Stable Diffusion XL, which has two encoders, was trained on the last layer but one as it is.
    return TextEncoder(tuple(towers)) if len(towers) == 1 else TextEncoder(tuple(towers), layer=-2, normed=False)


def read_schedule(config: Mapping[str, Any]) -> NoiseSchedule:
    """The noise levels that a scheduler's configuration of diffusers tells of."""
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

    known = (
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "rescale_betas_zero_snr",
    )
    scheduler = EulerDiscreteScheduler(**{name: config[name] for name in known if name in config})
    return NoiseSchedule.of_alphas(scheduler.alphas_cumprod.numpy().astype(np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Ask for the networks of a part to be moved to the device; the answer is their size in bytes."""

    part: Part

    def perform(self, place: Place) -> int:
        dtype, layout = place.dtype, torch.preserve_format
        match self.part:
            case Denoiser(network=network):
                networks = [network.module]
            case TextEncoder(towers=towers):
                networks = [tower.model for tower in towers]
            case Autoencoder(vae=module):
                networks, dtype = [module], torch.float32  # some of them overflow in a shorter format
                if place.device.type == "cpu":
                    layout = torch.channels_last  # faster, as `benchmarks.networks` measures; it hardly helps UNets
        # Not the module's own `to`, which warns that what was loaded should not be cast.
        move: Any = torch.nn.Module.to
        for network in networks:
            move(network, place.device, dtype, memory_format=layout)
            network.eval().requires_grad_(False)
            _keep_precise(network, dtype)
        return sum(
            tensor.numel() * tensor.element_size()
            for network in networks
            for tensor in (*network.parameters(), *network.buffers())
        )


def _keep_precise(network: Any, dtype: torch.dtype) -> None:
    """Leave what overflows in float16 in float32, by the names that transformers has for it: parts of T5."""
    if dtype == torch.float16:
        precise = getattr(network, "_keep_in_fp32_modules", None) or ()
        for name, module in network.named_modules():
            if name.rpartition(".")[2] in precise:
                module.float()
