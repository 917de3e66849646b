"""Loose parts: models whose parts are not in one checkpoint.

For: a transformer alone, and text encoders that are put together, with the numbers that a checkpoint's configuration
would have for them. Leaves whole checkpoints to `checkpoints` and `flow`, and reading components to `components`.
Invariant: a part that does not go with the others, or whose numbers are not known, is refused by name.
"""

import math
from collections.abc import Sequence
from typing import Any

from engine.components import load_network, read_json
from engine.errors import ModelError
from engine.flow import FLUX, SD3, make_denoiser, make_text_encoder
from engine.latents import Scale
from engine.loras import Lora
from engine.pipelines import Denoiser
from engine.shelves import Source
from engine.texts import TextEncoder, Tower

# Of the autoencoders and schedulers that the published models come with; a VAE is loaded by itself.
_SCALES = {SD3: Scale(1.5305, 0.0609), FLUX: Scale(0.3611, 0.1159)}
_SD3_SHIFT = 3.0
_FLUX_SHIFT = math.exp(1.15), 1.0  # told its guidance, and not
_CLIP, _SUMMING, _T5 = "CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"
# What each kind is made of, CLIP's encoders from the narrower to the wider.
_MADE_OF = {
    "stable_diffusion": ((_CLIP,),),
    "sdxl": ((_CLIP, _SUMMING),),
    "sd3": ((_SUMMING, _SUMMING), (_SUMMING, _SUMMING, _T5)),
    "flux": ((_CLIP, _T5),),
}
_WIDE = 4096  # of embeddings, where no T5 tells


def read_diffusion_model(source: Source, loras: Sequence[tuple[Lora, float]]) -> Denoiser:
    """A transformer that is no part of a checkpoint, with LoRAs merged into it. Raises ModelError."""
    kind = str(read_json(source, "config.json").get("_class_name"))
    if kind not in _SCALES:
        raise ModelError(f"diffusion model {source.name!r} is {kind}, which is not run without a checkpoint around it")
    transformer = load_network(source, "", kind)
    shift = _SD3_SHIFT if kind == SD3 else _FLUX_SHIFT[not transformer.config.guidance_embeds]
    return make_denoiser(source, kind, transformer, shift, _SCALES[kind], loras)


def read_text_encoders(sources: Sequence[Source], kind: str, loras: Sequence[tuple[Lora, float]]) -> TextEncoder:
    """Text encoders in any order, as the one of a model of this kind. Raises ModelError."""
    described = [(_find_class(source), _measure(source), source) for source in sources]
    described.sort(key=lambda own: (own[0] == _T5, own[1]))
    classes = tuple(name for name, _, _ in described)
    if classes not in _MADE_OF[kind]:
        expected = " or ".join(" and ".join(each) for each in _MADE_OF[kind])
        found = " and ".join(f"{source.name!r} is {name}" for name, _, source in described)
        raise ModelError(f"text encoders of {kind} are {expected}, but {found}")
    parts: list[tuple[str, Any, Any]] = []
    for place, (name, _, source) in enumerate(described):
        model = load_network(source, "", name)
        tokenizer = load_network(source, "", "T5Tokenizer" if name == _T5 else "CLIPTokenizer")
        for lora, strength in loras:
            lora.merge(f"text_encoder{f'_{place + 1}' if place else ''}", model, strength)
        parts.append((name, tokenizer, model))
    if kind in ("sd3", "flux"):
        wide = described[-1][1] if classes[-1] == _T5 else _WIDE
        return make_text_encoder(SD3 if kind == "sd3" else FLUX, [part[1:] for part in parts], wide)
    towers = tuple(Tower(tokenizer, model) for _, tokenizer, model in parts)
    return TextEncoder(towers, layer=-2, normed=False) if kind == "sdxl" else TextEncoder(towers)


def _find_class(source: Source) -> str:
    names = read_json(source, "config.json").get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else "of no architecture"
    if name not in (_CLIP, _SUMMING, _T5):
        raise ModelError(f"text encoder {source.name!r} is {name}, which this engine does not run")
    return name


def _measure(source: Source) -> int:
    config = read_json(source, "config.json")
    return int(config.get("hidden_size") or config.get("d_model") or 0)
