"""Models of flow matching: what Stable Diffusion 3 and Flux are made of.

For: the parts of `pipelines` and `texts` out of a folder in diffusers' format that has a transformer. Leaves other
checkpoints to `checkpoints`, and reading components to `components`.
Invariant: a model whose transformer or scheduler does what this engine does not know is refused by name.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from engine.components import load_component, read_index, read_json
from engine.errors import ModelError
from engine.latents import Scale
from engine.loras import Lora
from engine.networks import Flux, Network, StableDiffusion3
from engine.pipelines import Denoiser
from engine.schedules import FlowSchedule
from engine.shelves import Source
from engine.t5 import T5Tower
from engine.texts import JoinForSD3, TextEncoder, Tower, join_for_flux

SD3, FLUX = "SD3Transformer2DModel", "FluxTransformer2DModel"
_LISTED = {SD3: 1000, FLUX: 10_000}  # noise levels, of which some of ComfyUI's schedulers choose
_LEAST_TOKENS = {SD3: 77, FLUX: 256}  # that ComfyUI 0.3.64 fills T5's texts up to
_UNKNOWN = ("invert_sigmas", "shift_terminal")  # options of schedulers that other families have


def find_transformer(source: Source) -> str | None:
    """The class of a checkpoint's transformer; None where it has none, or a UNet. Raises ModelError for other kinds."""
    has = read_index(source)
    if "transformer" not in has or "unet" in has:
        return None
    if (kind := has["transformer"].rpartition(".")[2]) not in _LISTED:
        load_component(source, "transformer")  # which is refused by its name
    if source.file is not None:
        # diffusers converts those of Flux in the published size alone, and most files leave the text encoders out.
        raise ModelError(
            f"checkpoint {source.name!r}: {kind} is read from folders in diffusers' format, not from files"
        )
    return kind


def read_flow_denoiser(source: Source, kind: str, loras: Sequence[tuple[Lora, float]]) -> Denoiser:
    """The transformer of a checkpoint, which is of class `kind`, with LoRAs merged into it. Raises ModelError."""
    scale = read_scale(read_json(source, "vae/config.json"))
    shift = _read_shift(source)
    return make_denoiser(source, kind, load_component(source, "transformer"), shift, scale, loras)


def make_denoiser(
    source: Source, kind: str, transformer: Any, shift: float, scale: Scale, loras: Sequence[tuple[Lora, float]]
) -> Denoiser:
    """A transformer of class `kind` with its numbers, and LoRAs merged into it. Raises ModelError."""
    config = transformer.config
    if (config.out_channels or config.in_channels) != config.in_channels:
        raise ModelError(f"checkpoint {source.name!r}: its transformer is conditioned on pictures, which is not run")
    for lora, strength in loras:
        lora.merge("transformer", transformer, strength)
    network: Network = Flux(transformer) if kind == FLUX else StableDiffusion3(transformer)
    return Denoiser(network, FlowSchedule(shift, _LISTED[kind]), "flow", scale)


def read_flow_text_encoder(source: Source, kind: str, loras: Sequence[tuple[Lora, float]]) -> TextEncoder:
    """The text encoders of a checkpoint whose transformer is of class `kind`. Raises ModelError."""
    suffixes = ["", "_2"]
    if kind == SD3 and "text_encoder_3" in read_index(source):  # which may be left out
        suffixes.append("_3")
    parts = []
    for suffix in suffixes:
        tokenizer, model = (load_component(source, f"{part}{suffix}") for part in ("tokenizer", "text_encoder"))
        for lora, strength in loras:
            lora.merge(f"text_encoder{suffix}", model, strength)
        parts.append((tokenizer, model))
    width = int(read_json(source, "transformer/config.json").get("joint_attention_dim", 4096))
    return make_text_encoder(kind, parts, width)


def make_text_encoder(kind: str, parts: Sequence[tuple[Any, Any]], width: int) -> TextEncoder:
    """Tokenizers with models, CLIP's before T5's, as the encoder for a transformer of class `kind`.

    `width` is that of the embeddings.
    """
    count = 2 if kind == SD3 else 1  # of CLIP's
    towers: tuple[Tower | T5Tower, ...] = (
        *(Tower(*part, "text_embeds" if kind == SD3 else "pooler_output") for part in parts[:count]),
        *(T5Tower(*part, _LEAST_TOKENS[kind]) for part in parts[count:]),
    )
    if kind == FLUX:
        return TextEncoder(towers, join=join_for_flux, names=("l", "t5xxl"))
    # As for XL, which is conditioned on the last layer but one as it is.
    return TextEncoder(towers, layer=-2, normed=False, join=JoinForSD3(width), names=("l", "g", "t5xxl"))


def read_scale(config: Mapping[str, Any]) -> Scale:
    """The scale of an autoencoder's latents, in its configuration."""
    # Older configurations leave Stable Diffusion 1's value out.
    return Scale(float(config.get("scaling_factor", 0.18215)), float(config.get("shift_factor") or 0))


def _read_shift(source: Source) -> float:
    config = read_json(source, "scheduler/scheduler_config.json")
    if not (kind := str(config.get("_class_name"))).startswith("FlowMatch"):
        raise ModelError(f"checkpoint {source.name!r}: its scheduler is {kind}, which is not one of flow matching")
    strange = [name for name in _UNKNOWN if config.get(name)]
    if config.get("time_shift_type", "exponential") != "exponential":
        strange.append("time_shift_type")
    if strange:
        raise ModelError(f"checkpoint {source.name!r}: its scheduler has {strange[0]}, which this engine does not know")
    if not config.get("use_dynamic_shifting"):
        return float(config.get("shift", 1.0))
    # Where the shift grows with the picture, that of the largest is taken, as in ComfyUI; ModelSamplingFlux has others.
    return math.exp(float(config.get("max_shift", 1.15)))
