"""Latent files: nodes that save latents and load them.

For: SaveLatent and LoadLatent of ComfyUI 0.3.64; the files are safetensors, as ComfyUI writes and reads them. Leaves
names of files to `numbering` and `inputs`.
Invariant: what is loaded is a copy, so that nothing that happens to the file later reaches it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from engine.latents import Latent
from engine.nodes.inputs import hash_file, is_file, list_files
from engine.nodes.numbering import Numbering
from engine.nodes.spec import METADATA, Context, Folders, Input, Node, Output, Result
from engine.paths import find_annotated

_EXTENSION = "latent"
_TENSOR, _VERSION = "latent_tensor", "latent_format_version_0"
_OLD_SCALE = 0.18215  # of Stable Diffusion 1: files without a version hold what its denoiser sees


def save(context: Context, samples: Latent, filename_prefix: str) -> Result:
    """Write latents into output/, with the prompt and the caller's `extra_pnginfo`; the items' indices are not kept."""
    import torch
    from safetensors.torch import save as encode

    metadata = {"prompt": context.prompt_text}
    metadata |= {key: json.dumps(value) for key, value in (context.extra_pnginfo or {}).items()}
    content = encode({_TENSOR: samples.samples.contiguous(), _VERSION: torch.tensor([])}, metadata)
    numbering = context.service(Numbering)
    names = numbering.create(context.folders.output, filename_prefix, 0, 0, 0, _EXTENSION)
    with names as (file, subfolder, name):
        file.write(content)
    return Result(ui={"latents": [{"filename": name, "subfolder": subfolder, "type": "output"}]})


def load(context: Context, latent: str) -> tuple[Latent]:
    """The latents of a file in input/, numbered from 0. Raises OSError; ValueError for what is no file of latents."""
    from safetensors import SafetensorError
    from safetensors.torch import load as decode

    content = find_annotated(context.folders, latent).read_bytes()
    try:
        tensors = decode(content)
    except SafetensorError as error:
        raise ValueError(f"{latent} is no file of latents: {error}") from error
    samples = tensors.get(_TENSOR)
    if samples is None:
        raise ValueError(f"{latent} is no file of latents: it holds no {_TENSOR}")
    if samples.dim() != 4 or samples.numel() == 0:
        shape = list(samples.shape)
        raise ValueError(f"{latent} holds latents of shape {shape}; this engine needs [batch, channels, height, width]")
    samples = samples.float()
    return (Latent.of(samples if _VERSION in tensors else samples / _OLD_SCALE),)


def _list_choices(folders: Folders) -> Sequence[str]:
    return list_files(folders, f".{_EXTENSION}")


def check_name(folders: Folders, value: object) -> str | None:
    """Whether a LoadLatent value names a file."""
    return None if is_file(folders, value) else f"Invalid latent file: {value}"


def _hash(folders: Folders, constants: Mapping[str, object]) -> object:
    return hash_file(folders, constants["latent"])


NODES = (
    Node(
        "SaveLatent",
        save,
        "_for_testing",
        required={
            "samples": Input("LATENT"),
            "filename_prefix": Input("STRING", {"default": "latents/ComfyUI"}),
        },
        hidden=METADATA,
        output_node=True,
        description="Saves latents as a file, with the workflow in it.",
    ),
    Node(
        "LoadLatent",
        load,
        "_for_testing",
        required={"latent": Input(choices=_list_choices, check=check_name)},
        outputs=(Output("LATENT"),),
        description="Loads latents from a file that SaveLatent wrote.",
        is_changed=_hash,
    ),
)
