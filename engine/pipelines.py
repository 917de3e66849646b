"""The networks of a checkpoint, and what may be asked of them.

For: text encoding, noise prediction with guidance, and the way between pictures and latents, each as one request that
the device thread performs. Leaves loading to `models`, and the order of requests to `device`.
Invariant: what goes in and comes out is float32 on the CPU; no item of a batch influences another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.device import Place
from engine.emphasis import read_emphasis
from engine.sampling import Evaluation, PredictionType
from engine.schedules import NoiseSchedule

_MAX_CHUNKS = 32  # 2400 tokens: far above any prompt in use, and a bound on one request's memory
_MAX_CHARACTERS = 100_000  # a bound on the time that one request spends on looking for tokens
_MAX_REPEATS = 4  # of an embedding; beyond it, two passes over what is there cost less than one over all the copies


@dataclass(frozen=True, slots=True, eq=False)
class Denoiser:
    """A UNet with the noise levels that it was trained on. `scale` times an autoencoder's latent is its scale."""

    unet: Any
    schedule: NoiseSchedule
    prediction_type: PredictionType
    scale: float
    channels: int

    def predict(self, place: Place, evaluation: Evaluation) -> Tensor:
        """The answer to one evaluation; the two sides of guidance share a pass where their lengths let them."""
        guidance = evaluation.guidance
        # With cfg 1 the negative side has no weight: ComfyUI leaves it out as well.
        if guidance.cfg == 1.0:
            return self._run(place, evaluation, [guidance.positive])[0]
        sides = [guidance.positive, guidance.negative]
        length = math.lcm(*(side.shape[1] for side in sides))
        if length <= _MAX_REPEATS * min(side.shape[1] for side in sides):
            # Cross-attention over tokens and their copies gives what it gives over the tokens alone.
            level = [side.repeat(1, length // side.shape[1], 1) for side in sides]
            positive, negative = self._run(place, evaluation, level)
        else:
            positive, negative = (self._run(place, evaluation, [side])[0] for side in sides)
        return negative + guidance.cfg * (positive - negative)

    def _run(self, place: Place, evaluation: Evaluation, sides: list[Tensor]) -> Sequence[Tensor]:
        """What is predicted for each side, all of one length."""
        batch = len(evaluation.latent)
        embeddings = torch.cat([side.expand(batch, -1, -1) for side in sides])
        output: Tensor = self.unet(
            evaluation.latent.to(place.device, place.dtype).repeat(len(sides), 1, 1, 1),
            torch.full((batch * len(sides),), evaluation.timestep, device=place.device),
            encoder_hidden_states=embeddings.to(place.device, place.dtype),
            return_dict=False,
        )[0]
        return output.to("cpu", torch.float32).chunk(len(sides))


@dataclass(frozen=True, slots=True, eq=False)
class TextEncoder:
    """A CLIP tokenizer with its text model."""

    tokenizer: Any
    model: Any

    def encode(self, place: Place, text: str) -> Tensor:
        """The last hidden state [1, tokens, width] of a text with emphasis.

        A long text is encoded in chunks that are laid end to end. A weight moves its tokens away from what an empty
        text has in their place, or towards it, as in ComfyUI 0.3.64. Raises ValueError when the text is too long.
        """
        ids, weights = self._tokenize(text)
        hidden = self._run(place, ids)
        if bool((weights != 1).any()):
            empty = self._run(place, self._frame([]))
            hidden = empty + (hidden - empty) * weights[:, :, None]
        return hidden.reshape(1, -1, hidden.shape[-1])

    def _run(self, place: Place, ids: Tensor) -> Tensor:
        hidden: Tensor = self.model(ids.to(place.device))[0]
        return hidden.to("cpu", torch.float32)

    def _tokenize(self, text: str) -> tuple[Tensor, Tensor]:
        """Token ids and their weights, both [chunks, tokens]."""
        if len(text) > _MAX_CHARACTERS:
            raise ValueError(f"the text has {len(text)} characters, and at most {_MAX_CHARACTERS} are read")
        tokens: list[int] = []
        weights: list[float] = []
        for segment in read_emphasis(text):
            found = self.tokenizer(segment.text, add_special_tokens=False, verbose=False)["input_ids"]
            tokens += found
            weights += [segment.weight] * len(found)
        room = self._length - 2
        if len(tokens) > room * _MAX_CHUNKS:
            raise ValueError(f"the text has {len(tokens)} tokens, and at most {room * _MAX_CHUNKS} are encoded")
        starts = range(0, max(1, len(tokens)), room)
        ids = torch.cat([self._frame(tokens[start : start + room]) for start in starts])
        padded = [[1.0, *weights[start : start + room]] for start in starts]
        return ids, torch.tensor([chunk + [1.0] * (self._length - len(chunk)) for chunk in padded])

    @property
    def _length(self) -> int:
        """Tokens that the model takes at once."""
        return int(self.model.config.max_position_embeddings)

    def _frame(self, tokens: list[int]) -> Tensor:
        """A chunk [1, tokens] of full length, with its begin and end."""
        tokenizer = self.tokenizer
        chunk = [tokenizer.bos_token_id, *tokens, tokenizer.eos_token_id]
        return torch.tensor([chunk + [tokenizer.pad_token_id] * (self._length - len(chunk))])


@dataclass(frozen=True, slots=True, eq=False)
class Autoencoder:
    """An AutoencoderKL. It always computes in float32: several of them overflow in float16 and give black pictures.

    Its latents times `scale` have about unit variance.
    """

    vae: Any
    channels: int
    scale: float

    def decode(self, place: Place, latents: Tensor) -> Tensor:
        """Pictures [batch, height, width, 3] in 0..1 of latents [batch, channels, height / 8, width / 8]."""
        pictures = [self.vae.decode(latent[None].to(place.device), return_dict=False)[0].cpu() for latent in latents]
        return (torch.cat(pictures) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)

    def encode(self, place: Place, pictures: Tensor) -> Tensor:
        """Latents of pictures [batch, height, width, 3], whose sides are multiples of 8.

        The mode of what the encoder gives, where ComfyUI draws a sample of it: the same picture has the same latent.
        """
        pixels = pictures.permute(0, 3, 1, 2) * 2 - 1
        return torch.cat(
            [self.vae.encode(picture[None].to(place.device)).latent_dist.mode().cpu() for picture in pixels]
        )


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Ask for the answer to an evaluation."""

    denoiser: Denoiser
    evaluation: Evaluation

    def perform(self, place: Place) -> Tensor:
        return self.denoiser.predict(place, self.evaluation)


@dataclass(frozen=True, slots=True, eq=False)
class TextEncoding:
    """Ask for the embedding of a text."""

    encoder: TextEncoder
    text: str

    def perform(self, place: Place) -> Tensor:
        return self.encoder.encode(place, self.text)


@dataclass(frozen=True, slots=True, eq=False)
class Decoding:
    """Ask for the pictures of latents."""

    autoencoder: Autoencoder
    latents: Tensor

    def perform(self, place: Place) -> Tensor:
        return self.autoencoder.decode(place, self.latents)


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """Ask for the latents of pictures."""

    autoencoder: Autoencoder
    pictures: Tensor

    def perform(self, place: Place) -> Tensor:
        return self.autoencoder.encode(place, self.pictures)
