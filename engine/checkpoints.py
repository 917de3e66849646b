"""Checkpoints: folders in diffusers' format, read part by part.

For: making the parts of `pipelines` from the components that a folder names, on the CPU, and moving them to the device.
Leaves which parts stay in memory to `models`.
Invariant: weights are read from safetensors files of the folder, never fetched and never unpickled; a component of a
class that this engine does not run is refused by name.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError

from engine.device import Place
from engine.errors import ModelError
from engine.pipelines import Autoencoder, Denoiser, TextEncoder
from engine.schedules import NoiseSchedule

Part: TypeAlias = Denoiser | TextEncoder | Autoencoder

# Components are imported one by one: the packages' own front doors import far more, torchvision where it is present.


def _load_unet(folder: Path, **options: Any) -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32, use_safetensors=True, **options)


def _load_autoencoder(folder: Path, **options: Any) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32, use_safetensors=True, **options)


def _load_text_model(folder: Path, **options: Any) -> Any:
    from transformers.models.clip.modeling_clip import CLIPTextModel

    return CLIPTextModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, **options)


def _load_tokenizer(folder: Path, **options: Any) -> Any:
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder, **options)


# Every network is read in float32: another number format would be the default of the whole process while it loads.
_LOADERS: Mapping[str, Callable[..., Any]] = {
    "UNet2DConditionModel": _load_unet,
    "AutoencoderKL": _load_autoencoder,
    "CLIPTextModel": _load_text_model,
    "CLIPTokenizer": _load_tokenizer,
}


def read_part(folder: Path, part: Literal["model", "clip", "vae"]) -> Part:
    """A part of the checkpoint in `folder`, on the CPU in float32. Raises ModelError."""
    if part == "clip":
        return TextEncoder(_load(folder, "tokenizer"), _load(folder, "text_encoder"))
    vae = _read_json(folder, "vae/config.json")
    scale = float(vae.get("scaling_factor", 0.18215))  # older configurations leave Stable Diffusion 1's value out
    if part == "vae":
        return Autoencoder(_load(folder, "vae"), int(vae.get("latent_channels", 4)), scale)
    scheduler = _read_json(folder, "scheduler/scheduler_config.json")
    prediction = scheduler.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise ModelError(f"checkpoint {folder.name!r}: models that predict {prediction!r} are not run")
    unet = _load(folder, "unet")
    return Denoiser(unet, read_schedule(scheduler), prediction, scale, int(unet.config.in_channels))


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
        match self.part:
            case Denoiser(unet=module) | TextEncoder(model=module):
                # Not the module's own `to`, which warns that what was loaded should not be cast.
                torch.nn.Module.to(module, place.device, place.dtype)
            case Autoencoder(vae=module):
                module.to(place.device)
        module.eval().requires_grad_(False)
        return sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))


def _load(folder: Path, component: str) -> Any:
    match _read_json(folder, "model_index.json").get(component):
        case [_, str(name)] if name in _LOADERS:
            load = _LOADERS[name]
        case [str(library), str(name)]:
            message = f"its {component} is {library}.{name}, which this engine does not run"
            raise ModelError(f"checkpoint {folder.name!r}: {message}")
        case _:
            raise ModelError(f"checkpoint {folder.name!r} has no {component}")
    silence_progress()
    path = folder / component
    options: dict[str, Any] = {"local_files_only": True}
    if any(path.glob("*.fp16.safetensors")) and not any(path.glob("*[!6].safetensors")):
        options["variant"] = "fp16"
    try:
        return load(path, **options)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise _explain(folder, component, error) from error


def silence_progress() -> None:
    """Keep the libraries from drawing bars for what takes a moment."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        silence: Any = logging.disable_progress_bar
        silence()


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _explain(folder, name, error) from error
    if not isinstance(content, dict):
        raise ModelError(f"checkpoint {folder.name!r}: its {name} is not an object")
    return content


def _explain(folder: Path, what: str, error: Exception) -> ModelError:
    # Callers read this, whom it does not concern where on the server the folder lies.
    reason = str(error).replace(str(folder), folder.name).strip().partition("\n")[0]
    return ModelError(f"checkpoint {folder.name!r}: its {what} cannot be read: {reason}")
