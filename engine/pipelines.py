"""The networks of a checkpoint, and what may be asked of them.

For: text encoding, noise prediction with guidance, and the way between pictures and latents, each as a request that
the device thread performs, for one caller or for many in one pass. Leaves loading to `models`, and the order of
requests and their company to `device`.
Invariant: what goes in and comes out is float32 on the CPU; no row of a pass influences another.
"""

import math
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.device import Place
from engine.emphasis import read_emphasis
from engine.sampling import Evaluation, Guidance, PredictionType, Sampling, sample
from engine.schedules import NoiseSchedule

_MAX_CHUNKS = 32  # 2400 tokens: far above any prompt in use, and a bound on one request's memory
_MAX_CHARACTERS = 100_000  # a bound on the time that one request spends on looking for tokens
_LATENT_PIXELS_A_ROW = 512  # a picture of 512 x 512 then counts as eight rows
_MAX_REPEATS = 4  # of an embedding; beyond it, two passes over what is there cost less than one over all the copies


@dataclass(frozen=True, slots=True, eq=False)
class Denoiser:
    """A UNet with the noise levels that it was trained on. `scale` times an autoencoder's latent is its scale."""

    unet: Any
    schedule: NoiseSchedule
    prediction_type: PredictionType
    scale: float
    channels: int

    def predict(self, place: Place, evaluations: Sequence[Evaluation], limit: int) -> list[Tensor]:
        """The answers to evaluations of one latent shape and the same lengths of sides, `limit` rows at a time.

        Each row has its own time and its own embedding.
        """
        sides = [_level(evaluation.guidance) for evaluation in evaluations]
        predicted: list[list[Tensor]] = [[] for _ in evaluations]
        for length in {side.shape[1]: None for side in sides[0]}:
            asked = [(number, side) for number, own in enumerate(sides) for side in own if side.shape[1] == length]
            latents = torch.cat([evaluations[number].latent for number, _ in asked])
            sizes = [len(evaluations[number].latent) for number, _ in asked]
            times = [evaluations[number].timestep for number, _ in asked]
            rows = _run_split(
                lambda *part: self._run(place, *part),
                limit,
                latents,
                torch.tensor(times).repeat_interleave(torch.tensor(sizes)),
                torch.cat([side.expand(size, -1, -1) for (_, side), size in zip(asked, sizes, strict=True)]),
            )
            for (number, _), part in zip(asked, torch.split(rows, sizes), strict=True):
                predicted[number].append(part)
        return [_guide(evaluation.guidance, found) for evaluation, found in zip(evaluations, predicted, strict=True)]

    def _run(self, place: Place, latents: Tensor, times: Tensor, embeddings: Tensor) -> Tensor:
        output: Tensor = self.unet(
            latents.to(place.device, place.dtype),
            times.to(place.device),
            encoder_hidden_states=embeddings.to(place.device, place.dtype),
            return_dict=False,
        )[0]
        return output.to("cpu", torch.float32)


def _level(guidance: Guidance) -> list[Tensor]:
    """What must be predicted: the positive side, and the negative one unless it has no weight, in one length if cheap.

    With cfg 1 the negative side has no weight: ComfyUI leaves it out as well.
    """
    if guidance.cfg == 1.0:
        return [guidance.positive]
    sides = [guidance.positive, guidance.negative]
    length = math.lcm(*(side.shape[1] for side in sides))
    if length > _MAX_REPEATS * min(side.shape[1] for side in sides):
        return sides
    # Cross-attention over tokens and their copies gives what it gives over the tokens alone.
    return [side.repeat(1, length // side.shape[1], 1) for side in sides]


def _guide(guidance: Guidance, predicted: Sequence[Tensor]) -> Tensor:
    positive, *rest = predicted
    return rest[0] + guidance.cfg * (positive - rest[0]) if rest else positive


def _run_split(run: Callable[..., Tensor], limit: int, *rows: Tensor) -> Tensor:
    """What `run` makes of rows, at most `limit` of them at a time."""
    if len(rows[0]) <= limit:
        return run(*rows)
    return torch.cat([run(*part) for part in zip(*(torch.split(tensor, limit) for tensor in rows), strict=True)])


@dataclass(frozen=True, slots=True, eq=False)
class TextEncoder:
    """A CLIP tokenizer with its text model."""

    tokenizer: Any
    model: Any

    def encode(self, place: Place, texts: Sequence[str], limit: int) -> list[Tensor]:
        """The last hidden state [1, tokens, width] of each text with its emphasis, `limit` chunks at a time.

        A long text is encoded in chunks that are laid end to end. A weight moves its tokens away from what an empty
        text has in their place, or towards it, as in ComfyUI 0.3.64. Raises ValueError when a text is too long.
        """
        found = [self._tokenize(text) for text in texts]
        weighted = [bool((weights != 1).any()) for _, weights in found]
        ids = torch.cat([*(ids for ids, _ in found), *([self._frame([])] if any(weighted) else [])])
        hidden = _run_split(lambda part: self._run(place, part), limit, ids)
        empty, encoded, start = hidden[-1:], [], 0
        for (own, weights), changed in zip(found, weighted, strict=True):
            told = hidden[start : start + len(own)]
            start += len(own)
            if changed:
                told = empty + (told - empty) * weights[:, :, None]
            encoded.append(told.reshape(1, -1, told.shape[-1]))
        return encoded

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

    def decode(self, place: Place, latents: Tensor, limit: int) -> Tensor:
        """Pictures [batch, height, width, 3] in 0..1 of latents [batch, channels, height / 8, width / 8]."""
        pictures = _run_split(
            lambda part: self.vae.decode(part.to(place.device), return_dict=False)[0].cpu(), limit, latents
        )
        return (pictures / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)

    def encode(self, place: Place, pictures: Tensor, limit: int) -> Tensor:
        """Latents of pictures [batch, height, width, 3], whose sides are multiples of 8.

        The mode of what the encoder gives, where ComfyUI draws a sample of it: the same picture has the same latent.
        """
        pixels = pictures.permute(0, 3, 1, 2) * 2 - 1
        return _run_split(lambda part: self.vae.encode(part.to(place.device)).latent_dist.mode().cpu(), limit, pixels)


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Ask for the answer to an evaluation."""

    denoiser: Denoiser
    evaluation: Evaluation

    @property
    def key(self) -> Hashable:
        """The network, the shape of latents, and the lengths of what guides them."""
        lengths = tuple(side.shape[1:] for side in _level(self.evaluation.guidance))
        return "prediction", id(self.denoiser.unet), self.evaluation.latent.shape[1:], lengths

    @property
    def rows(self) -> int:
        """Each item of the batch once for each side of guidance."""
        return len(self.evaluation.latent) * (1 if self.evaluation.guidance.cfg == 1.0 else 2)

    def perform_all(self, place: Place, works: Sequence["Prediction"], limit: int) -> list[Tensor]:
        return self.denoiser.predict(place, [work.evaluation for work in works], limit)


def predict_all(denoiser: Denoiser, run: Sampling) -> Generator[Prediction, Tensor, Tensor]:
    """A course for the device: a run of `sampling`, whose evaluations the denoiser answers."""
    evaluations = sample(run)
    try:
        evaluation = next(evaluations)
        while True:
            prediction = yield Prediction(denoiser, evaluation)
            evaluation = evaluations.send(prediction)
    except StopIteration as end:
        finished: Tensor = end.value
        return finished


@dataclass(frozen=True, slots=True, eq=False)
class TextEncoding:
    """Ask for the embedding of a text."""

    encoder: TextEncoder
    text: str

    @property
    def key(self) -> Hashable:
        """The network."""
        return "text encoding", id(self.encoder.model)

    @property
    def rows(self) -> int:
        """One, as far as can be told before it is read."""
        return 1

    def perform_all(self, place: Place, works: Sequence["TextEncoding"], limit: int) -> list[Tensor]:
        return self.encoder.encode(place, [work.text for work in works], limit)


@dataclass(frozen=True, slots=True, eq=False)
class Decoding:
    """Ask for the pictures of latents."""

    autoencoder: Autoencoder
    latents: Tensor

    @property
    def key(self) -> Hashable:
        """The network and the shape of a latent."""
        return "decoding", id(self.autoencoder.vae), self.latents.shape[1:]

    @property
    def rows(self) -> int:
        """What the pictures weigh in a pass."""
        return len(self.latents) * _weigh_picture(self.latents.shape[2] * self.latents.shape[3])

    def perform_all(self, place: Place, works: Sequence["Decoding"], limit: int) -> Sequence[Tensor]:
        each = _weigh_picture(self.latents.shape[2] * self.latents.shape[3])
        pictures = self.autoencoder.decode(place, torch.cat([work.latents for work in works]), max(1, limit // each))
        return torch.split(pictures, [len(work.latents) for work in works])


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """Ask for the latents of pictures."""

    autoencoder: Autoencoder
    pictures: Tensor

    @property
    def key(self) -> Hashable:
        """The network and the size of a picture."""
        return "encoding", id(self.autoencoder.vae), self.pictures.shape[1:]

    @property
    def rows(self) -> int:
        """What the pictures weigh in a pass."""
        return len(self.pictures) * _weigh_picture(self.pictures.shape[1] * self.pictures.shape[2] // 64)

    def perform_all(self, place: Place, works: Sequence["Encoding"], limit: int) -> Sequence[Tensor]:
        each = _weigh_picture(self.pictures.shape[1] * self.pictures.shape[2] // 64)
        latents = self.autoencoder.encode(place, torch.cat([work.pictures for work in works]), max(1, limit // each))
        return torch.split(latents, [len(work.pictures) for work in works])


def _weigh_picture(latent_pixels: int) -> int:
    """Rows that a picture counts as: an autoencoder works at full size, in memory that grows with the area."""
    return max(1, latent_pixels // _LATENT_PIXELS_A_ROW)
