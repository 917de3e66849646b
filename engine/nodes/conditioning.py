"""Conditioning: nodes that say what to draw.

For: ComfyUI's CLIPTextEncode. Leaves the encoding to `pipelines`.
Invariant: a CONDITIONING is a tensor [1, tokens, width], float32 on the CPU.
"""

from engine.models import Handle, Models
from engine.nodes.asking import ask
from engine.nodes.spec import Context, Input, Node, Output


def encode_text(context: Context, text: str, clip: Handle) -> tuple[object, ...]:
    """The embedding of `text`. Raises ModelError, OutOfMemoryError; ValueError when the text is too long."""
    from engine.pipelines import TextEncoding

    encoder = context.service(Models).text_encoder(clip)
    return (ask(context, TextEncoding(encoder, text)),)


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
)
