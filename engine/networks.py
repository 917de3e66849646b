"""Networks that predict what is noise in a latent, one kind for each family of models.

For: what each takes besides latents and times, and how it is called. Leaves guidance and the company of requests to
`pipelines`, and loading to `checkpoints`.
Invariant: what goes in and comes out is float32, and what comes out is on the device; no row of a pass influences
another.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.conditioning import Cue
from engine.device import Place
from engine.latents import FACTOR
from engine.schedules import FULL_TIME
from engine.transfer import send

_PATCH = 2  # latent pixels a side that transformers take as one token
_USUAL_GUIDANCE = 3.5  # of Flux, where a conditioning says nothing about it; ComfyUI's


class Network(Protocol):
    """A network on its way to rows. `module` is what holds the weights."""

    @property
    def module(self) -> Any: ...

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        ...

    @property
    def repeatable(self) -> bool:
        """Whether tokens and their copies give what the tokens alone give."""
        ...

    @property
    def shown(self) -> int:
        """Channels of what it is shown beside the noisy latents."""
        ...

    def send_cue(self, place: Place, cue: Cue) -> list[Tensor]:
        """What `run` takes besides latents and times, on the device; what is shown for each item. Raises ValueError."""
        ...

    def run(self, place: Place, latents: Tensor, times: Tensor, *rows: Tensor) -> Tensor:
        """The predictions for latents [rows, channels, height, width] at times [rows]. Raises ValueError."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Unet:
    """A UNet2DConditionModel: Stable Diffusion 1, 2 and XL, and what was made of them for inpainting.

    `pooled` is the width of what sums a text up, which it takes besides the embedding; None where it takes nothing.
    """

    module: Any
    pooled: int | None = None

    @property
    def channels(self) -> int:
        return int(self.module.config.out_channels)

    @property
    def shown(self) -> int:
        return int(self.module.config.in_channels) - self.channels

    @property
    def repeatable(self) -> bool:
        """Cross-attention is; what sums the tokens up within the network is not."""
        return bool(self.module.config.addition_embed_type != "text")

    def send_cue(self, place: Place, cue: Cue) -> list[Tensor]:
        config = self.module.config
        rows = _send_cue(place, cue, config.encoder_hid_dim or config.cross_attention_dim, self.pooled)
        if not self.shown:
            return rows
        if cue.shown is None or cue.shown.shape[1] != self.shown:
            raise ValueError("what the conditioning shows is of another kind of model than the one that draws")
        return [*rows, _send(place, cue.shown)]

    def run(self, place: Place, latents: Tensor, times: Tensor, *rows: Tensor) -> Tensor:
        added = None
        if self.pooled is not None:
            # Stable Diffusion XL is told to draw a whole picture of the size that it has, as ComfyUI does.
            height, width = (FACTOR * side for side in latents.shape[2:])
            sizes = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32)
            added = {"text_embeds": rows[1], "time_ids": send(sizes, place.device).repeat(len(latents), 1)}
        given = _send(place, latents)
        output: Tensor = self.module(
            torch.cat([given, rows[-1]], 1) if self.shown else given,
            send(times, place.device),
            encoder_hidden_states=rows[0],
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return output.float()


@dataclass(frozen=True, slots=True, eq=False)
class StableDiffusion3:
    """An SD3Transformer2DModel, in which pictures and texts attend to each other."""

    module: Any
    shown: int = 0
    repeatable: bool = False  # tokens that are there twice are attended to twice as much

    @property
    def channels(self) -> int:
        return int(self.module.config.in_channels)

    def send_cue(self, place: Place, cue: Cue) -> list[Tensor]:
        config = self.module.config
        return _send_cue(place, cue, config.joint_attention_dim, config.pooled_projection_dim)

    def run(self, place: Place, latents: Tensor, times: Tensor, *rows: Tensor) -> Tensor:
        embeddings, summaries = rows
        height, width = latents.shape[2:]
        if max(height, width) > (most := _PATCH * int(self.module.config.pos_embed_max_size)):
            raise ValueError(f"pictures of this model have at most {most * FACTOR} pixels a side")
        output: Tensor = self.module(
            _send(place, _pad(latents)),
            encoder_hidden_states=embeddings,
            pooled_projections=summaries,
            timestep=send(times, place.device),
            return_dict=False,
        )[0]
        return output[:, :, :height, :width].float()


@dataclass(frozen=True, slots=True, eq=False)
class Flux:
    """A FluxTransformer2DModel, which takes patches with their places. Many of them are told how far to be guided."""

    module: Any
    shown: int = 0
    repeatable: bool = False  # as above

    @property
    def channels(self) -> int:
        return int(self.module.config.in_channels) // _PATCH**2

    def send_cue(self, place: Place, cue: Cue) -> list[Tensor]:
        config = self.module.config
        strength = torch.tensor([_USUAL_GUIDANCE if cue.guidance is None else cue.guidance])
        rows = _send_cue(place, cue, config.joint_attention_dim, config.pooled_projection_dim)
        return [*rows, send(strength, place.device)]

    def run(self, place: Place, latents: Tensor, times: Tensor, *rows: Tensor) -> Tensor:
        embeddings, summaries, strengths = rows
        height, width = latents.shape[2:]
        padded = _pad(latents)
        down, across = (side // _PATCH for side in padded.shape[2:])
        # A row's channels are those of its patch, pixel by pixel within each channel.
        patches = torch.nn.functional.unfold(padded, _PATCH, stride=_PATCH).transpose(1, 2)
        places = torch.cartesian_prod(torch.zeros(1), torch.arange(down) + 0.0, torch.arange(across) + 0.0)
        output: Tensor = self.module(
            hidden_states=_send(place, patches),
            encoder_hidden_states=embeddings,
            pooled_projections=summaries,
            timestep=_send(place, times / FULL_TIME),
            guidance=strengths if self.module.config.guidance_embeds else None,
            # Places are exact whole numbers, which short number formats have few of.
            txt_ids=torch.zeros(embeddings.shape[1], places.shape[1], device=place.device),
            img_ids=send(places, place.device),
            return_dict=False,
        )[0]
        flat = output.float().transpose(1, 2)
        whole = torch.nn.functional.fold(flat, padded.shape[2:], _PATCH, stride=_PATCH)
        return whole[:, :, :height, :width]


def _send_cue(place: Place, cue: Cue, width: int, pooled: int | None) -> list[Tensor]:
    """The embedding, and where it is taken also what sums the text up."""
    (_, own), summed = cue.shapes
    if own != width or (pooled is not None and summed != pooled):
        raise ValueError("the conditioning is of another kind of model than the one that draws")
    summary = [] if pooled is None or cue.pooled is None else [cue.pooled]
    return [_send(place, tensor) for tensor in (cue.embedding, *summary)]


def _pad(latents: Tensor) -> Tensor:
    """Latents whose sides are whole patches; what is added goes on at the other side, as ComfyUI has it."""
    below, right = (-side % _PATCH for side in latents.shape[2:])
    return torch.nn.functional.pad(latents, (0, right, 0, below), mode="circular") if below or right else latents


def _send(place: Place, rows: Tensor) -> Tensor:
    return send(rows, place.device, place.dtype)
