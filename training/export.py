"""Export: a trained model as a folder in diffusers' format, in half precision; and the way back.

For: what the engine loads by name, and a later run that goes on from it. Leaves training to the others.
Invariant: a folder with an index is whole: it is written beside its place and moved there.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from training.denoiser import SCHEDULER, Painter
from training.reading import Reader
from training.states import save_state
from training.vocabulary import write_tokenizer

_TEXT_WEIGHTS, _WEIGHTS = "model.safetensors", "diffusion_pytorch_model.safetensors"

_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "safety_checker": [None, None],
    "requires_safety_checker": False,
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def export_model(folder: Path, painter: Painter, autoencoder: Any, scale: float) -> int:
    """Write the model to `folder`; the answer is its size in bytes."""
    unfinished = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    write_tokenizer(unfinished / "tokenizer")
    autoencoder.register_to_config(scaling_factor=scale)
    parts = {"text_encoder": painter.text_encoder, "unet": painter.unet, "vae": autoencoder}
    for name, module in parts.items():
        _save_half(unfinished / name, module)
    _write_json(unfinished / "scheduler" / "scheduler_config.json", SCHEDULER)
    _write_json(unfinished / "model_index.json", _INDEX)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.replace(folder)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def adopt_model(folder: Path, state: Path, reader_steps: int, autoencoder_steps: int) -> None:
    """Write to `state` what training goes on from: the model in `folder`, as if its first stages were done."""
    config = _read_json(folder / "vae" / "config.json")
    reader = Reader(write_tokenizer(state / "tokenizer"))
    reader.text_encoder.load_state_dict(_load_whole(folder / "text_encoder" / _TEXT_WEIGHTS))
    painter = {f"text_encoder.{name}": value for name, value in reader.text_encoder.state_dict().items()}
    painter |= {f"unet.{name}": value for name, value in _load_whole(folder / "unet" / _WEIGHTS).items()}
    stages = {
        "reader": (reader.state_dict(), reader_steps),
        "autoencoder": (_load_whole(folder / "vae" / _WEIGHTS), autoencoder_steps),
        "denoiser": (painter, 0),
    }
    for name, (weights, step) in stages.items():
        save_state(state / f"{name}.pt", {"model": weights, "average": weights, "step": step})
    _write_json(state / "scale.json", config["scaling_factor"])


def _load_whole(path: Path) -> dict[str, Tensor]:
    """Weights in single precision: training needs small steps."""
    from safetensors.torch import load_file

    return {name: tensor.float() for name, tensor in load_file(path).items()}


def _save_half(folder: Path, module: Any) -> None:
    """Save a copy in half precision: the module itself trains on."""
    from safetensors.torch import save_file
    from transformers.modeling_utils import PreTrainedModel

    folder.mkdir(parents=True)
    weights = {name: tensor.detach().half().cpu().contiguous() for name, tensor in module.state_dict().items()}
    if isinstance(module, PreTrainedModel):
        module.config.save_pretrained(folder)
        path = folder / _TEXT_WEIGHTS
    else:
        module.save_config(folder)
        path = folder / _WEIGHTS
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)  # weights are data for everyone who may read the package


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
