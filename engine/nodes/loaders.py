"""Loaders: nodes that bring models into a workflow.

For: ComfyUI's CheckpointLoaderSimple, UNETLoader, CLIPLoader, DualCLIPLoader, TripleCLIPLoader, VAELoader, LoraLoader
and LoraLoaderModelOnly. Leaves finding models to `shelves`, reading and keeping them to `models`.
Invariant: what these nodes give are handles, so that a cached output holds no weights.
"""

from collections.abc import Sequence

from engine.models import Handle, Models
from engine.nodes.spec import Context, Folders, Input, Node, Output
from engine.shelves import (
    list_autoencoders,
    list_diffusion_models,
    list_loras,
    list_text_encoders,
    offer_checkpoints,
)


def _list_checkpoints(folders: Folders) -> Sequence[str]:
    return offer_checkpoints(folders.models)


def _list_autoencoders(folders: Folders) -> Sequence[str]:
    return list_autoencoders(folders.models / "vae")


def _list_loras(folders: Folders) -> Sequence[str]:
    return list_loras(folders.models / "loras")


def _list_diffusion_models(folders: Folders) -> Sequence[str]:
    return list_diffusion_models(folders.models / "diffusion_models")


def _list_text_encoders(folders: Folders) -> Sequence[str]:
    return list_text_encoders(folders.models / "text_encoders")


def load_checkpoint(context: Context, ckpt_name: str) -> tuple[object, ...]:
    """MODEL, CLIP and VAE of the checkpoint, in memory. Raises ModelError, OutOfMemoryError."""
    return context.service(Models).load(ckpt_name)


def load_autoencoder(context: Context, vae_name: str) -> tuple[object, ...]:
    """VAE, in memory. Raises ModelError, OutOfMemoryError."""
    return (context.service(Models).load_autoencoder(vae_name),)


def load_diffusion_model(context: Context, unet_name: str, weight_dtype: str) -> tuple[object, ...]:
    """MODEL, in memory. Raises ModelError, OutOfMemoryError."""
    return (context.service(Models).load_diffusion_model(unet_name),)


def load_text_encoder(context: Context, clip_name: str, type: str, device: str = "default") -> tuple[object, ...]:
    """CLIP of one encoder, in memory. Raises ModelError, OutOfMemoryError."""
    return (context.service(Models).load_text_encoders(type, [clip_name]),)


def load_two_text_encoders(
    context: Context, clip_name1: str, clip_name2: str, type: str, device: str = "default"
) -> tuple[object, ...]:
    """CLIP of two encoders, in any order, in memory. Raises ModelError, OutOfMemoryError."""
    return (context.service(Models).load_text_encoders(type, [clip_name1, clip_name2]),)


def load_three_text_encoders(context: Context, clip_name1: str, clip_name2: str, clip_name3: str) -> tuple[object, ...]:
    """CLIP of Stable Diffusion 3's encoders, in any order, in memory. Raises ModelError, OutOfMemoryError."""
    return (context.service(Models).load_text_encoders("sd3", [clip_name1, clip_name2, clip_name3]),)


def add_lora(
    context: Context, model: Handle, clip: Handle, lora_name: str, strength_model: float, strength_clip: float
) -> tuple[object, ...]:
    """MODEL and CLIP with the LoRA. Raises ModelError when there is none of that name."""
    models = context.service(Models)
    return models.add_lora(model, lora_name, strength_model), models.add_lora(clip, lora_name, strength_clip)


def add_lora_to_model(context: Context, model: Handle, lora_name: str, strength_model: float) -> tuple[object, ...]:
    """MODEL with the LoRA. Raises ModelError when there is none of that name."""
    return (context.service(Models).add_lora(model, lora_name, strength_model),)


def _make_strength(tooltip: str) -> Input:
    return Input("FLOAT", {"default": 1.0, "min": -100.0, "max": 100.0, "step": 0.01, "tooltip": tooltip})


_MODEL = Input("MODEL", {"tooltip": "The model to change."})
_LORA = Input(choices=_list_loras, options={"tooltip": "The LoRA to change it by."})
_ENCODER = Input(choices=_list_text_encoders)
_CLIP = (Output("CLIP", tooltip="Encodes texts."),)
_DEVICE = {"device": Input(choices=("default",), options={"advanced": True})}
_STRENGTH_MODEL = _make_strength("How far to change the model; may be negative.")

NODES = (
    Node(
        class_type="CheckpointLoaderSimple",
        function=load_checkpoint,
        category="loaders",
        required={"ckpt_name": Input(choices=_list_checkpoints, options={"tooltip": "The model to draw with."})},
        outputs=(
            Output("MODEL", tooltip="Predicts noise in latents."),
            Output("CLIP", tooltip="Encodes texts."),
            Output("VAE", tooltip="Turns pictures into latents and back."),
        ),
        display_name="Load Checkpoint",
        description="Loads a diffusion model with its text encoder and its autoencoder.",
    ),
    Node(
        class_type="UNETLoader",
        function=load_diffusion_model,
        category="advanced/loaders",
        required={
            "unet_name": Input(choices=_list_diffusion_models),
            "weight_dtype": Input(choices=("default",)),
        },
        outputs=(Output("MODEL", tooltip="Predicts noise in latents."),),
        display_name="Load Diffusion Model",
        description="Loads the transformer of Stable Diffusion 3 or Flux, without text encoders and autoencoder.",
    ),
    Node(
        class_type="CLIPLoader",
        function=load_text_encoder,
        category="advanced/loaders",
        required={"clip_name": _ENCODER, "type": Input(choices=("stable_diffusion",))},
        optional=_DEVICE,
        outputs=_CLIP,
        display_name="Load CLIP",
        description="Loads a text encoder, to be used in place of a checkpoint's own.",
    ),
    Node(
        class_type="DualCLIPLoader",
        function=load_two_text_encoders,
        category="advanced/loaders",
        required={
            "clip_name1": _ENCODER,
            "clip_name2": _ENCODER,
            "type": Input(choices=("sdxl", "sd3", "flux")),
        },
        optional=_DEVICE,
        outputs=_CLIP,
        display_name="DualCLIPLoader",
        description="Loads two text encoders as those of one model.",
    ),
    Node(
        class_type="TripleCLIPLoader",
        function=load_three_text_encoders,
        category="advanced/loaders",
        required={"clip_name1": _ENCODER, "clip_name2": _ENCODER, "clip_name3": _ENCODER},
        outputs=_CLIP,
        description="Loads the three text encoders of Stable Diffusion 3.",
    ),
    Node(
        class_type="VAELoader",
        function=load_autoencoder,
        category="loaders",
        required={"vae_name": Input(choices=_list_autoencoders)},
        outputs=(Output("VAE", tooltip="Turns pictures into latents and back."),),
        display_name="Load VAE",
        description="Loads an autoencoder, to be used in place of a checkpoint's own.",
    ),
    Node(
        class_type="LoraLoader",
        function=add_lora,
        category="loaders",
        required={
            "model": _MODEL,
            "clip": Input("CLIP", {"tooltip": "The text encoder to change."}),
            "lora_name": _LORA,
            "strength_model": _STRENGTH_MODEL,
            "strength_clip": _make_strength("How far to change the text encoder; may be negative."),
        },
        outputs=(
            Output("MODEL", tooltip="The changed model."),
            Output("CLIP", tooltip="The changed text encoder."),
        ),
        display_name="Load LoRA",
        description="Changes a model and its text encoder, to draw in another style for example. LoRAs add up.",
    ),
    Node(
        class_type="LoraLoaderModelOnly",
        function=add_lora_to_model,
        category="loaders",
        required={"model": _MODEL, "lora_name": _LORA, "strength_model": _STRENGTH_MODEL},
        outputs=(Output("MODEL", tooltip="The changed model."),),
        display_name="LoraLoaderModelOnly",
        description="Changes a model and leaves its text encoder.",
    ),
)
