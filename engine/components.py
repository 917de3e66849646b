"""Components: the networks and tokenizers that models are made of, read by the libraries that define them.

For: one component of a checkpoint, from its folder or out of a single file. Leaves what they make together to
`checkpoints`.
Invariant: nothing is fetched and nothing is unpickled; weights are float32 on the CPU, each of them from the file; a
class that this engine does not run is refused by name.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from engine.errors import ModelError
from engine.shelves import INDEX, Source

# Components are imported one by one: the packages' own front doors import far more, torchvision where it is present.


def _find_unet() -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel


def _find_autoencoder() -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL


def _find_text_model() -> Any:
    from transformers.models.clip.modeling_clip import CLIPTextModel

    return CLIPTextModel


def _find_projecting_text_model() -> Any:
    from transformers.models.clip.modeling_clip import CLIPTextModelWithProjection

    return CLIPTextModelWithProjection


def _find_tokenizer() -> Any:
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    return CLIPTokenizer


def _find_sd3() -> Any:
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    return SD3Transformer2DModel


def _find_flux() -> Any:
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

    return FluxTransformer2DModel


def _find_t5() -> Any:
    from transformers.models.t5.modeling_t5 import T5EncoderModel

    return T5EncoderModel


def _find_t5_tokenizer() -> Any:
    from transformers.models.t5.tokenization_t5 import T5Tokenizer

    return T5Tokenizer


_CLASSES: Mapping[str, Callable[[], Any]] = {
    "UNet2DConditionModel": _find_unet,
    "AutoencoderKL": _find_autoencoder,
    "CLIPTextModel": _find_text_model,
    "CLIPTextModelWithProjection": _find_projecting_text_model,
    "CLIPTokenizer": _find_tokenizer,
    "SD3Transformer2DModel": _find_sd3,
    "FluxTransformer2DModel": _find_flux,
    "T5EncoderModel": _find_t5,
    "T5TokenizerFast": _find_t5_tokenizer,  # the same since transformers 5
    "T5Tokenizer": _find_t5_tokenizer,
}
_TOKENIZERS = ("CLIPTokenizer", "T5TokenizerFast", "T5Tokenizer")


def read_index(source: Source) -> Mapping[str, str]:
    """Component -> class, of those that a checkpoint has. Raises ModelError."""
    entries = read_json(source, INDEX).items()
    return {key: f"{entry[0]}.{entry[1]}" for key, entry in entries if isinstance(entry, list) and all(entry)}


def load_component(source: Source, component: str) -> Any:
    """A component of a checkpoint. Raises ModelError."""
    found = read_index(source).get(component)
    if found is None:
        raise ModelError(f"checkpoint {source.name!r} has no {component}")
    if (name := found.rpartition(".")[2]) not in _CLASSES:
        message = f"its {component} is {found}, which this engine does not run"
        raise ModelError(f"checkpoint {source.name!r}: {message}")
    return load_network(source, component, name)


def load_network(source: Source, component: str, name: str) -> Any:
    """The component of class `name`, from the subfolder that is called as the component. Raises ModelError."""
    silence_progress()
    try:
        kind = _CLASSES[name]()
        if name in _TOKENIZERS:
            return kind.from_pretrained(source.folder / component, local_files_only=True)
        if source.file is None:
            return _read_folder(kind, source.folder / component)
        network = _read_file(kind, source.file, source.folder, component)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise explain(source, component, error) from error
    lacking = [key for key, weight in network.named_parameters() if weight.is_meta]
    if lacking:
        raise ModelError(f"checkpoint {source.name!r}: its {component} lacks {lacking[0]!r}")
    return network


def _read_folder(kind: Any, path: Path) -> Any:
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
    files = [file.name for file in path.glob("*.safetensors")]
    if files and all(".fp16" in file for file in files):
        options["variant"] = "fp16"
    # Every network is read in float32: another number format would be the default of the whole process while it loads.
    options["dtype" if kind.__module__.startswith("transformers") else "torch_dtype"] = torch.float32
    return kind.from_pretrained(path, **options)


def _read_file(kind: Any, file: Path, folder: Path, component: str) -> Any:
    """A network out of a file in the layout of its first authors. Raises ValueError when it is not in there."""
    from diffusers.loaders import single_file_utils

    options = {"config": str(folder), "subfolder": component, "local_files_only": True}
    if kind.__module__.startswith("transformers"):
        make: Any = single_file_utils.create_diffusers_clip_model_from_ldm
        network = make(kind, load_file(file), **options)
    else:
        try:
            network = kind.from_single_file(str(file), **options)
        except single_file_utils.SingleFileComponentError as error:
            raise ValueError("the file has no weights of it") from error
    # Not the module's own `to`, which warns that what was loaded should not be cast.
    return torch.nn.Module.to(network, torch.float32)


def silence_progress() -> None:
    """Keep the libraries from drawing bars for what takes a moment."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        silence: Any = logging.disable_progress_bar
        silence()


def read_json(source: Source, name: str) -> dict[str, Any]:
    """The object in a file of the source's folder. Raises ModelError."""
    try:
        content = json.loads((source.folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise explain(source, name, error) from error
    if not isinstance(content, dict):
        raise ModelError(f"checkpoint {source.name!r}: its {name} is not an object")
    return content


def explain(source: Source, what: str, error: Exception) -> ModelError:
    """An error in words that callers may read, whom it does not concern where on the server a file lies."""
    reason = str(error).strip().partition("\n")[0]
    for path in (source.folder, source.file):
        reason = reason.replace(str(path), source.name)
    return ModelError(f"checkpoint {source.name!r}: its {what or 'network'} cannot be read: {reason}")
