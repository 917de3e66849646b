"""Flow matching: nodes for Stable Diffusion 3 and Flux.

For: ComfyUI's EmptySD3LatentImage, CLIPTextEncodeSD3, CLIPTextEncodeFlux, FluxGuidance, ModelSamplingSD3 and
ModelSamplingFlux. Leaves loading, sampling and decoding to the nodes of all models.
Invariant: a CONDITIONING or a MODEL that was given is not changed.
"""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.conditioning import Conditioning
from engine.latents import FACTOR, Latent
from engine.models import Handle, Models
from engine.nodes.asking import ask
from engine.nodes.spec import MAX_RESOLUTION, Context, Input, Node, Output

if TYPE_CHECKING:
    from engine.conditioning import Cue

_CHANNELS = 16
_CHUNK = 77  # tokens of CLIP
# Flux's patches of 16 pixels a side at which ModelSamplingFlux has its two shifts, and the way between is straight.
_FEW, _MANY = 256, 4096
_PATCH = 16


def make_empty(context: Context, width: int, height: int, batch_size: int) -> tuple[object, ...]:
    """Latents of nothing, for pictures of `width` times `height`."""
    import torch

    # One item's memory whatever the size of the batch: nobody writes into a latent.
    nothing = torch.zeros(1, _CHANNELS, height // FACTOR, width // FACTOR)
    return (Latent.of(nothing.expand(batch_size, -1, -1, -1)),)


def encode_for_sd3(
    context: Context, clip: Handle, clip_l: str, clip_g: str, t5xxl: str, empty_padding: str
) -> tuple[object, ...]:
    """What a text for each encoder says. Without padding, an encoder that is told nothing adds no tokens of nothing.

    Raises ValueError when a text is too long, ModelError, OutOfMemoryError.
    """
    from engine.pipelines import TextEncoding

    padded = empty_padding != "none"
    encoder = context.service(Models).text_encoder(clip)
    tokens = encoder.tokenize_each({"l": clip_l, "g": clip_g, "t5xxl": t5xxl}, padded=padded)
    cue = ask(context, TextEncoding(encoder, tokens))
    return (Conditioning((cue if padded or clip_l or clip_g else _drop_clip(cue),)),)


def _drop_clip(cue: "Cue") -> "Cue":
    """What T5 says alone."""
    silent = cue.zero_out()
    rest = cue.embedding[:, _CHUNK:]
    return replace(silent, embedding=rest) if rest.shape[1] else silent


def encode_for_flux(context: Context, clip: Handle, clip_l: str, t5xxl: str, guidance: float) -> tuple[object, ...]:
    """What a text for each encoder says, and how closely to follow it. Raises what `encode_for_sd3` raises."""
    from engine.pipelines import TextEncoding

    encoder = context.service(Models).text_encoder(clip)
    tokens = encoder.tokenize_each({"l": clip_l, "t5xxl": t5xxl})
    return (Conditioning((ask(context, TextEncoding(encoder, tokens)),)).guide(guidance),)


def guide(context: Context, conditioning: Conditioning, guidance: float) -> tuple[object, ...]:
    """The same conditioning, followed as closely as `guidance` says by models that are told."""
    return (conditioning.guide(guidance),)


def shift_for_sd3(context: Context, model: Handle, shift: float) -> tuple[object, ...]:
    """The model with its steps moved towards noise. Raises ValueError for one that has no shift, or a shift of 0."""
    if shift <= 0:
        raise ValueError("the shift must be above 0")
    return (_shift(context, model, shift),)


def shift_for_flux(
    context: Context, model: Handle, max_shift: float, base_shift: float, width: int, height: int
) -> tuple[object, ...]:
    """The same by the size of the picture. Raises ValueError for a model without a shift, and one beyond all bounds."""
    slope = (max_shift - base_shift) / (_MANY - _FEW)
    exponent = base_shift + (width * height / _PATCH**2 - _FEW) * slope
    try:
        return (_shift(context, model, math.exp(exponent)),)
    except OverflowError as error:
        raise ValueError(f"a shift of {exponent:g} is too much") from error


def _shift(context: Context, model: Handle, shift: float) -> Handle:
    shifted = replace(model, shift=shift)
    context.service(Models).denoiser(shifted)  # which refuses other models
    return shifted


def _make_side(default: int, step: int, tooltip: str) -> Input:
    options = {"default": default, "min": 16, "max": MAX_RESOLUTION, "step": step, "tooltip": tooltip}
    return Input("INT", options)


def _make_number(default: float, step: float, tooltip: str) -> Input:
    return Input("FLOAT", {"default": default, "min": 0.0, "max": 100.0, "step": step, "tooltip": tooltip})


def _make_text(tooltip: str) -> Input:
    return Input("STRING", {"multiline": True, "dynamicPrompts": True, "tooltip": tooltip})


_CLIP = Input("CLIP", {"tooltip": "The text encoders."})
_MODEL = Input("MODEL", {"tooltip": "A model of flow matching."})
_GUIDANCE = _make_number(3.5, 0.1, "How closely to follow the text.")

NODES = (
    Node(
        class_type="EmptySD3LatentImage",
        function=make_empty,
        category="latent/sd3",
        required={
            "width": _make_side(1024, 16, "Width of the pictures, in pixels."),
            "height": _make_side(1024, 16, "Height of the pictures, in pixels."),
            "batch_size": Input("INT", {"default": 1, "min": 1, "max": 4096, "tooltip": "How many pictures."}),
        },
        outputs=(Output("LATENT", tooltip="Latents of nothing."),),
        description="Makes a batch of empty latents with 16 channels, for Stable Diffusion 3 and Flux.",
    ),
    Node(
        class_type="CLIPTextEncodeSD3",
        function=encode_for_sd3,
        category="advanced/conditioning",
        required={
            "clip": _CLIP,
            "clip_l": _make_text("For CLIP's smaller encoder."),
            "clip_g": _make_text("For CLIP's larger encoder."),
            "t5xxl": _make_text("For T5."),
            "empty_padding": Input(
                choices=("none", "empty_prompt"), options={"tooltip": "What stands for texts that are empty."}
            ),
        },
        outputs=(Output("CONDITIONING", tooltip="The encoded texts, for a sampler."),),
        description="Encodes a text of its own for each of Stable Diffusion 3's encoders.",
    ),
    Node(
        class_type="CLIPTextEncodeFlux",
        function=encode_for_flux,
        category="advanced/conditioning/flux",
        required={
            "clip": _CLIP,
            "clip_l": _make_text("For CLIP, which sums it up."),
            "t5xxl": _make_text("For T5."),
            "guidance": _GUIDANCE,
        },
        outputs=(Output("CONDITIONING", tooltip="The encoded texts, for a sampler."),),
        description="Encodes a text of its own for each of Flux's encoders, and says how closely to follow them.",
    ),
    Node(
        class_type="FluxGuidance",
        function=guide,
        category="advanced/conditioning/flux",
        required={"conditioning": Input("CONDITIONING"), "guidance": _GUIDANCE},
        outputs=(Output("CONDITIONING"),),
        description="Says how closely Flux is to follow a conditioning.",
    ),
    Node(
        class_type="ModelSamplingSD3",
        function=shift_for_sd3,
        category="advanced/model",
        required={"model": _MODEL, "shift": _make_number(3.0, 0.01, "Above 1, more of the steps are near noise.")},
        outputs=(Output("MODEL"),),
        description="Shifts where a model of flow matching takes its steps.",
    ),
    Node(
        class_type="ModelSamplingFlux",
        function=shift_for_flux,
        category="advanced/model",
        required={
            "model": _MODEL,
            "max_shift": _make_number(1.15, 0.01, "The shift, as an exponent, of pictures of 1024 x 1024."),
            "base_shift": _make_number(0.5, 0.01, "The shift, as an exponent, of pictures of 256 x 256."),
            "width": _make_side(1024, 8, "Width of the pictures, in pixels."),
            "height": _make_side(1024, 8, "Height of the pictures, in pixels."),
        },
        outputs=(Output("MODEL"),),
        description="Shifts where a model of flow matching takes its steps, by the size of the picture.",
    ),
)
