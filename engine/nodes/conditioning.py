"""Conditioning: nodes that say what to draw.

For: ComfyUI's CLIPTextEncode and CLIPSetLastLayer, and the nodes that put conditionings together. Leaves the encoding
to `texts`.
Invariant: a CONDITIONING that was given is not changed.
"""

from dataclasses import replace

from engine.conditioning import Conditioning
from engine.models import Handle, Models
from engine.nodes.asking import ask
from engine.nodes.spec import Context, Input, Node, Output


def encode_text(context: Context, text: str, clip: Handle) -> tuple[object, ...]:
    """What `text` says. Raises ModelError, OutOfMemoryError; ValueError when the text is too long."""
    from engine.pipelines import TextEncoding

    encoder = context.service(Models).text_encoder(clip)
    return (Conditioning((ask(context, TextEncoding.of(encoder, text)),)),)


def set_last_layer(context: Context, clip: Handle, stop_at_clip_layer: int) -> tuple[object, ...]:
    """The text encoder, stopped after a layer that is counted from its last, -1."""
    return (replace(clip, layer=stop_at_clip_layer),)


def combine(context: Context, conditioning_1: Conditioning, conditioning_2: Conditioning) -> tuple[object, ...]:
    """Both at once: what is predicted for either is averaged."""
    return (conditioning_1.combine(conditioning_2),)


def concatenate(context: Context, conditioning_to: Conditioning, conditioning_from: Conditioning) -> tuple[object, ...]:
    """One text after the other, as if it were one. Raises ValueError for those of different kinds of models."""
    return (conditioning_to.append(conditioning_from),)


def zero_out(context: Context, conditioning: Conditioning) -> tuple[object, ...]:
    """Nothing said."""
    return (conditioning.zero_out(),)


_CONDITIONING = Input("CONDITIONING")

NODES = (
    Node(
        class_type="CLIPTextEncode",
        function=encode_text,
        category="conditioning",
        required={
            "text": Input(
                "STRING", {"multiline": True, "dynamicPrompts": True, "tooltip": "What to draw, or what to avoid."}
            ),
            "clip": Input("CLIP", {"tooltip": "The text encoder."}),
        },
        outputs=(Output("CONDITIONING", tooltip="The encoded text, for a sampler."),),
        display_name="CLIP Text Encode (Prompt)",
        description="Encodes a text so that a diffusion model can be guided by it.",
    ),
    Node(
        class_type="CLIPSetLastLayer",
        function=set_last_layer,
        category="conditioning",
        required={
            "clip": Input("CLIP"),
            "stop_at_clip_layer": Input("INT", {"default": -1, "min": -24, "max": -1, "step": 1}),
        },
        outputs=(Output("CLIP"),),
        display_name="CLIP Set Last Layer",
        description="Takes what a text encoder has understood before its last layers.",
    ),
    Node(
        class_type="ConditioningCombine",
        function=combine,
        category="conditioning",
        required={"conditioning_1": _CONDITIONING, "conditioning_2": _CONDITIONING},
        outputs=(Output("CONDITIONING"),),
        display_name="Conditioning (Combine)",
        description="Follows both conditionings at once.",
    ),
    Node(
        class_type="ConditioningConcat",
        function=concatenate,
        category="conditioning",
        required={"conditioning_to": _CONDITIONING, "conditioning_from": _CONDITIONING},
        outputs=(Output("CONDITIONING"),),
        display_name="Conditioning (Concat)",
        description="Puts one encoded text after the other.",
    ),
    Node(
        class_type="ConditioningZeroOut",
        function=zero_out,
        category="advanced/conditioning",
        required={"conditioning": _CONDITIONING},
        outputs=(Output("CONDITIONING"),),
        display_name="ConditioningZeroOut",
        description="Says nothing, in the shape of the conditioning.",
    ),
)
