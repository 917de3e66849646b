"""Export: a trained model as a folder in diffusers' format, in half precision.

For: what the engine loads by name. Leaves training to the others.
Invariant: a folder with an index is whole: it is written beside its place and moved there.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from training.denoiser import SCHEDULER, Painter
from training.vocabulary import write_tokenizer

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


def _save_half(folder: Path, module: Any) -> None:
    """Save a copy in half precision: the module itself trains on."""
    from safetensors.torch import save_file
    from transformers.modeling_utils import PreTrainedModel

    folder.mkdir(parents=True)
    weights = {name: tensor.detach().half().cpu().contiguous() for name, tensor in module.state_dict().items()}
    if isinstance(module, PreTrainedModel):
        module.config.save_pretrained(folder)
        path = folder / "model.safetensors"
    else:
        module.save_config(folder)
        path = folder / "diffusion_pytorch_model.safetensors"
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)  # weights are data for everyone who may read the package


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
