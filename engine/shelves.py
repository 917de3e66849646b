"""Shelves: where models lie, by the names that callers know them by.

For: listing checkpoints, autoencoders and LoRAs, and finding one. Leaves reading them to `checkpoints` and `loras`.
Invariant: looks, and changes nothing; a name that is not listed is not found, whatever path it spells.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ModelError

SHIPPED = Path(__file__).parent / "demo"  # a checkpoint that is part of this package, by its name
INDEX = "model_index.json"  # what makes a folder a pipeline in diffusers' format
_WEIGHTS = ".safetensors"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model called `name` is read from.

    `folder` has its configuration, in diffusers' format, and its weights as well unless they are in `file`.
    """

    name: str
    folder: Path
    file: Path | None = None


def list_checkpoints(folder: Path) -> list[str]:
    """The checkpoints in `folder`: subfolders that hold a pipeline in diffusers' format, and safetensors files."""
    return sorted([index.parent.name for index in folder.glob(f"*/{INDEX}")] + _list_files(folder))


def offer_checkpoints(models: Path) -> list[str]:
    """The checkpoints among `models`, and the one that ships."""
    return sorted({*list_checkpoints(models / "checkpoints"), SHIPPED.name})


def list_autoencoders(folder: Path) -> list[str]:
    """The autoencoders in `folder`: subfolders that hold one in diffusers' format, and safetensors files."""
    return sorted([config.parent.name for config in folder.glob("*/config.json")] + _list_files(folder))


def list_diffusion_models(folder: Path) -> list[str]:
    """The transformers in `folder`: subfolders that hold one in diffusers' format."""
    return _list_networks(folder)


def list_text_encoders(folder: Path) -> list[str]:
    """The text encoders in `folder`: subfolders that hold one with its tokenizer, as transformers saves them."""
    return _list_networks(folder)


def _list_networks(folder: Path) -> list[str]:
    return sorted(config.parent.name for config in folder.glob("*/config.json"))


def list_loras(folder: Path) -> list[str]:
    """The LoRAs in `folder`: safetensors files."""
    return _list_files(folder)


def find_checkpoint(models: Path, name: str) -> Source:
    """The checkpoint `name` among `models`, or the one that ships. Raises ModelError when there is none to be read."""
    if name == SHIPPED.name and name not in list_checkpoints(models / "checkpoints"):
        return Source(name, SHIPPED)
    return _find(models, "checkpoints", "checkpoint", name, list_checkpoints)


def find_autoencoder(models: Path, name: str) -> Source:
    """The autoencoder `name` among `models`. Raises ModelError when there is none, or none that can be read."""
    return _find(models, "vae", "autoencoder", name, list_autoencoders)


def find_diffusion_model(models: Path, name: str) -> Source:
    """The transformer `name` among `models`. Raises ModelError when there is none."""
    return _find(models, "diffusion_models", "diffusion model", name, list_diffusion_models)


def find_text_encoder(models: Path, name: str) -> Source:
    """The text encoder `name` among `models`. Raises ModelError when there is none."""
    return _find(models, "text_encoders", "text encoder", name, list_text_encoders)


def find_lora(models: Path, name: str) -> Path:
    """The file of the LoRA `name` among `models`. Raises ModelError."""
    if name not in list_loras(models / "loras"):
        raise ModelError(f"there is no LoRA {name!r}")
    return models / "loras" / name


def _find(models: Path, shelf: str, kind: str, name: str, list_names: Callable[[Path], list[str]]) -> Source:
    if name not in list_names(models / shelf):
        raise ModelError(f"there is no {kind} {name!r}")
    path = models / shelf / name
    if path.is_dir():
        return Source(name, path)
    stem = name.removesuffix(_WEIGHTS)
    for folder in (models / "configs" / stem, path.with_suffix("")):
        if folder.is_dir():
            return Source(name, folder, path)
    raise ModelError(
        f"{kind} {name!r} is a file of weights alone: its configuration, a folder in diffusers' format that needs no "
        f"weights, belongs to models/configs/{stem}"
    )


def _list_files(folder: Path) -> list[str]:
    """Files of weights that are no parts of something in diffusers' format, by their paths in `folder`."""
    whole = {path.parent for pattern in (f"*/{INDEX}", "*/config.json") for path in folder.glob(pattern)}
    files = (path for path in folder.rglob(f"*{_WEIGHTS}") if path.is_file() and whole.isdisjoint(path.parents))
    return sorted(path.relative_to(folder).as_posix() for path in files)
