"""LoRAs: small changes to a network's weights, kept in files of their own.

For: reading the files of kohya's trainer, of diffusers and of PEFT, and adding what they say to a network's weights.
Leaves to `checkpoints` which networks there are, and the memory to `models`.
Invariant: all that a file has for a network is added to it, or the file is refused with a reason.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.errors import ModelError
from engine.ldm import list_original_names

# The first factor of a product: as kohya's trainer, PEFT, and two older versions of diffusers call it.
_DOWN = re.compile(r"(\.lora_down|\.lora_A(?:\.default)?|[._]lora\.down|\.lora_linear_layer\.down)\.weight$")
_PREFIXES = {
    "unet": ("lora_unet_", "unet."),
    "transformer": ("transformer.",),
    "text_encoder": ("lora_te_", "lora_te1_", "text_encoder."),
    "text_encoder_2": ("lora_te2_", "text_encoder_2."),
    "text_encoder_3": ("lora_te3_", "text_encoder_3."),
}
# What a file has for a network that a model with the component has not. kohya's trainer calls transformers UNets as
# well, with the original names of layers, some of which are three in diffusers.
_STRANGE = {"unet": _PREFIXES["transformer"], "transformer": _PREFIXES["unet"]}
# What diffusers called the layers of attention before it used the networks' own names.
_OLD_UNET = {"to_out": "to_out.0"}
_OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What is added to a weight: `up` [out, rank, ...] times `down` [rank, in, ...] times `scale`."""

    up: Tensor
    down: Tensor
    scale: float

    def expand(self, shape: Sequence[int]) -> Tensor:
        """The product in a weight's shape. Raises RuntimeError when it does not fit."""
        product = self.up.flatten(1).float() @ self.down.flatten(1).float()
        return (product * self.scale).reshape(tuple(shape))


@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """The changes of a file, by the names that the file has for modules."""

    name: str
    changes: Mapping[str, Change]

    def merge(self, component: str, module: Any, strength: float) -> None:
        """Add the changes for a component of a checkpoint ("unet", "text_encoder_2", ...), `strength` times.

        Raises ModelError when the component has no place for one of them.
        """
        names = _NAMES.get(component, _name_text_model)(module)
        if strange := [key for key in self.changes if key.startswith(_STRANGE.get(component, ()))]:
            other = f"{strange[0]!r} is for another network, or one in other words than diffusers has for it"
            raise ModelError(f"LoRA {self.name!r} is for another model: {other}")
        for key, change in self.changes.items():
            prefix = next((prefix for prefix in _PREFIXES[component] if key.startswith(prefix)), None)
            if prefix is None:
                continue
            path = names.get(_modernize(component, key.removeprefix(prefix)))
            if path is None:
                raise ModelError(f"LoRA {self.name!r} is for another model: there is no {key!r} in this one")
            weight = module.get_submodule(path).weight
            try:
                with torch.no_grad():
                    weight += strength * change.expand(weight.shape)
            except (IndexError, RuntimeError) as error:
                raise ModelError(f"LoRA {self.name!r} is for another model: {key!r} has another shape") from error


def read_lora(path: Path, name: str) -> Lora:
    """The LoRA in a safetensors file. Raises ModelError."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
            configuration = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"LoRA {name!r} cannot be read") from error
    changes: dict[str, Change] = {}
    for key in [key for key in tensors if _DOWN.search(key)]:
        down, up = tensors.pop(key), tensors.pop(_DOWN.sub(_name_up, key), None)
        if up is None:
            raise ModelError(f"LoRA {name!r} has one half only of {key!r}")
        module = _DOWN.sub("", key)
        alpha = tensors.pop(f"{module}.alpha", None)
        scale = _read_scale(name, key, configuration, len(down)) if alpha is None else float(alpha) / len(down)
        changes[module] = Change(up, down, scale)
    known = tuple(prefix for prefixes in _PREFIXES.values() for prefix in prefixes)
    strange = [*tensors, *(module for module in changes if not module.startswith(known))]
    if strange or not changes:
        # LoHa, LoKr, DoRA and their like, a LoRA for another kind of network, or no LoRA at all.
        found = repr(strange[0]) if strange else "nothing"
        raise ModelError(f"LoRA {name!r} is of a kind that this engine does not know: there is {found} in it")
    return Lora(name, changes)


def _name_up(found: "re.Match[str]") -> str:
    return found[0].replace("lora_A", "lora_B").replace("down", "up")


def _read_scale(name: str, key: str, configuration: Mapping[str, Any], rank: int) -> float:
    """The scale that PEFT's configuration, which diffusers puts into its files, has for a product."""
    own = {
        option.removeprefix(f"{component}."): value
        for component in _PREFIXES
        for option, value in configuration.items()
        if key.startswith(f"{component}.") and option.startswith(f"{component}.")
    }
    if own.get("alpha_pattern") or own.get("use_rslora"):
        raise ModelError(f"LoRA {name!r} has scales that this engine does not know")
    return float(own.get("lora_alpha", rank)) / rank


def _modernize(component: str, name: str) -> str:
    old = _OLD_TEXT if component.startswith("text_") else _OLD_UNET
    path, _, last = name.replace(".processor", "").rpartition(".")
    return f"{path}.{old.get(last, last)}" if path else last


def _list_modules(module: Any) -> list[str]:
    return [name for name, part in module.named_modules() if isinstance(getattr(part, "weight", None), Tensor)]


def _name_unet(unet: Any) -> Mapping[str, str]:
    """What files may call the modules of a UNet -> what they are called."""
    modules = _list_modules(unet)
    layers = unet.config.layers_per_block
    original = list_original_names(modules, layers) if isinstance(layers, int) else {}
    names = {name: name for name in modules}
    # kohya's trainer has underscores in place of dots, and for Stable Diffusion XL the original names.
    for name, module in (*names.items(), *original.items()):
        names[name.replace(".", "_")] = module
    return names


def _name_transformer(transformer: Any) -> Mapping[str, str]:
    return {name: name for name in _list_modules(transformer)}


def _name_text_model(model: Any) -> Mapping[str, str]:
    names = {}
    for module in _list_modules(model):
        # transformers has left the outer name out since 5.6.
        full = module if module.startswith("text_") else f"text_model.{module}"
        names[full] = names[full.removeprefix("text_model.")] = names[full.replace(".", "_")] = module
    return names


_NAMES = {"unet": _name_unet, "transformer": _name_transformer}
