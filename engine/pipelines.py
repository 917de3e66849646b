"""The parts of a checkpoint, and what may be asked of them.

For: noise prediction with guidance, and the way between pictures and latents, and text encoding, each as a request that
the device thread performs, for one caller or for many in one pass. Leaves what a network takes to `networks`, texts to
`texts`, loading to `models`, and the order of requests and their company to `device`.
Invariant: what goes in and comes out is float32, and comes out where `transfer.keep` has it; no row of a pass
influences another.
"""

import math
from collections.abc import Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from engine.conditioning import Conditioning, Cue
from engine.device import Place
from engine.latents import FACTOR, Scale
from engine.networks import Network
from engine.passes import run_split
from engine.sampling import Evaluation, Guidance, PredictionType, Sampling, sample
from engine.schedules import FlowSchedule, Schedule
from engine.surroundings import fit, surround
from engine.texts import TextEncoder
from engine.tokens import Tokens
from engine.transfer import keep, send

_SLICE = 4  # items of a batch that are asked for at once
# Latent pixels of a row that weighs 1. An autoencoder works at full size and in float32: a picture of 512 x 512, which
# counts once to a UNet, counts eight times to it.
_USUAL = 64 * 64
_USUAL_PICTURE = _USUAL // 8
_MAX_REPEATS = 4  # of an embedding; beyond it, two passes over what is there cost less than one over all the copies


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Denoiser:
    """A network with the noise levels that it was trained on, and the scale of the latents that it knows.

    `origin` is what this is a variant of, so that it counts as used while this is. `sent` is what the network takes of
    each cue of the runs that go on, on the device.
    """

    network: Network
    schedule: Schedule
    prediction_type: PredictionType
    scale: Scale
    origin: "Denoiser | None" = None
    sent: WeakKeyDictionary[Cue, Sequence[Tensor]] = field(default_factory=WeakKeyDictionary)

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return self.network.channels

    def shift_noise(self, shift: float) -> "Denoiser":
        """The same for runs of another shift. Raises ValueError for a model that knows none."""
        if not isinstance(self.schedule, FlowSchedule):
            raise ValueError("the model's noise cannot be shifted: that is for models of flow matching")
        return replace(self, schedule=replace(self.schedule, shift=shift), origin=self)

    def predict(self, place: Place, evaluations: Sequence[Evaluation], limit: int) -> list[Tensor]:
        """The answers to evaluations of one latent shape and the same shapes of cues, `limit` rows at a time.

        Each row has its own time and its own cue. Raises ValueError for cues of another kind of model.
        """
        cues = [self.level(evaluation.guidance) for evaluation in evaluations]
        predicted: list[dict[int, Tensor]] = [{} for _ in evaluations]
        for shape in {cue.shapes: None for cue in cues[0]}:
            asked = [
                (number, index, cue)
                for number, own in enumerate(cues)
                for index, cue in enumerate(own)
                if cue.shapes == shape
            ]
            sizes = [len(evaluations[number].latent) for number, _, _ in asked]
            times: list[float] = []
            for (number, _, _), size in zip(asked, sizes, strict=True):
                times += [evaluations[number].timestep] * size
            rows = run_split(
                partial(self.network.run, place),
                limit,
                torch.cat([send(evaluations[number].latent, place.device) for number, _, _ in asked]),
                torch.tensor(times),
                *self._lay_out(place, [cue for _, _, cue in asked], sizes),
                work=math.prod(evaluations[0].latent.shape[2:]) * self._count_weights(place),
            )
            for (number, index, _), part in zip(asked, torch.split(keep(rows), sizes), strict=True):
                predicted[number][index] = part
        return [_guide(evaluation.guidance, found) for evaluation, found in zip(evaluations, predicted, strict=True)]

    def _lay_out(self, place: Place, cues: Sequence[Cue], sizes: Sequence[int]) -> list[Tensor]:
        """What the network takes of the cues, for as many rows as each has. Each cue is sent once."""
        for cue in cues:
            if cue not in self.sent:
                self.sent[cue] = self.network.send_cue(place, cue)
        parts = zip(*(self.sent[cue] for cue in cues), strict=True)
        return [
            torch.cat([row.expand(size, *row.shape[1:]) for row, size in zip(part, sizes, strict=True)])
            for part in parts
        ]

    def _count_weights(self, place: Place) -> float:
        """How many a row meets; without end where no processor's threads share them."""
        if place.device.type != "cpu":
            return math.inf
        return float(sum(weights.numel() for weights in self.network.module.parameters()))

    def even_out(self, guidance: Guidance) -> Guidance:
        """The same with cues of one length where that is cheap, so that each step finds them as they are.

        They are a run's own: what is sent of them is let go of with the run.
        """
        cues = [replace(cue) for cue in self.level(guidance)]
        count = len(guidance.positive.cues)
        negative = Conditioning(tuple(cues[count:])) if len(cues) > count else guidance.negative
        return replace(guidance, positive=Conditioning(tuple(cues[:count])), negative=negative)

    def level(self, guidance: Guidance) -> list[Cue]:
        """The cues that must be predicted, of one length where that is cheap."""
        cues = _list_cues(guidance)
        lengths = [cue.embedding.shape[1] for cue in cues]
        length = math.lcm(*lengths)
        apart = length > _MAX_REPEATS * min(lengths) or not self.network.repeatable
        if apart or length == min(lengths):
            return cues
        return [replace(cue, embedding=cue.embedding.repeat(1, length // cue.embedding.shape[1], 1)) for cue in cues]


def _list_cues(guidance: Guidance) -> list[Cue]:
    """The positive cues, and the negative ones unless cfg is 1, where they have no weight: as ComfyUI does it."""
    return [*guidance.positive.cues, *(guidance.negative.cues if guidance.cfg != 1.0 else ())]


def _guide(guidance: Guidance, predicted: Mapping[int, Tensor]) -> Tensor:
    """What is predicted for the cues of each side averaged, and the way from the negative to the positive gone."""
    count = len(guidance.positive.cues)
    sides = [predicted[index] for index in range(count)], [predicted[index] for index in range(count, len(predicted))]
    positive, *negative = (torch.stack(side).mean(0) if len(side) > 1 else side[0] for side in sides if side)
    return torch.lerp(negative[0], positive, guidance.cfg) if negative else positive


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Autoencoder:
    """An AutoencoderKL. It always computes in float32: several of them overflow in float16 and give black pictures.

    `scale` leads to the latents of the model that it belongs to.
    """

    vae: Any
    channels: int
    scale: Scale

    def decode(self, place: Place, latents: Tensor, limit: int) -> Tensor:
        """Pictures [batch, height, width, 3] in 0..1 of latents [batch, channels, height / 8, width / 8]."""
        pictures = run_split(
            lambda part: keep(self.vae.decode(send(part, place.device), return_dict=False)[0]), limit, latents
        )
        return (pictures / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)

    def encode(self, place: Place, pictures: Tensor, limit: int) -> Tensor:
        """Latents of pictures [batch, height, width, 3], whose sides are multiples of 8.

        The mode of what the encoder gives, where ComfyUI draws a sample of it: the same picture has the same latent.
        """
        pixels = pictures.permute(0, 3, 1, 2) * 2 - 1
        return run_split(lambda part: keep(self.vae.encode(send(part, place.device)).latent_dist.mode()), limit, pixels)


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Ask for the answer to an evaluation."""

    denoiser: Denoiser
    evaluation: Evaluation

    @property
    def key(self) -> Hashable:
        """The network, the shape of latents, and the shapes of the cues that guide them."""
        shapes = frozenset(cue.shapes for cue in self.denoiser.level(self.evaluation.guidance))
        return "prediction", id(self.denoiser.network.module), self.evaluation.latent.shape[1:], shapes

    @property
    def rows(self) -> int:
        """Each item of the batch once for each cue that must be predicted."""
        return len(self.evaluation.latent) * len(_list_cues(self.evaluation.guidance))

    @property
    def weight(self) -> float:
        """As the area of a latent."""
        height, width = self.evaluation.latent.shape[2:]
        return _weigh(height * width, _USUAL)

    def perform_all(self, place: Place, works: Sequence["Prediction"], limit: int) -> list[Tensor]:
        return self.denoiser.predict(place, [work.evaluation for work in works], limit)


def predict_all(denoiser: Denoiser, run: Sampling) -> Generator[Prediction, Tensor, Tensor]:
    """A course for the device: a run of `sampling`, whose evaluations the denoiser answers.

    A large batch is asked for in slices, so that others get their turn between them; the first of the batch comes last,
    since it is the one that is shown when the step is complete.
    """
    guidances = _slice_guidance(denoiser, run)
    evaluations = sample(run)
    try:
        evaluation = next(evaluations)
        while True:
            slices = torch.split(evaluation.latent, _SLICE)
            predicted = []
            for number, latent in reversed(list(enumerate(slices))):
                completes = evaluation.completes and number == 0
                asked = replace(evaluation, latent=latent, guidance=guidances[number], completes=completes)
                predicted.append((yield Prediction(denoiser, asked)))
            evaluation = evaluations.send(torch.cat(predicted[::-1]))
    except StopIteration as end:
        finished: Tensor = end.value
        return finished


def _slice_guidance(denoiser: Denoiser, run: Sampling) -> list[Guidance]:
    """What guides each slice of the batch; a network that is shown something is shown its own for each item."""
    guidance = denoiser.even_out(run.guidance)
    if not denoiser.network.shown:
        return [guidance] * -(-len(run.latent) // _SLICE)
    own = fit(surround(run.latent, run.mask), run.latent)
    sides = (_slice_shown(side, own) for side in (guidance.positive, guidance.negative))
    return [replace(guidance, positive=positive, negative=negative) for positive, negative in zip(*sides, strict=True)]


def _slice_shown(side: Conditioning, own: Tensor) -> list[Conditioning]:
    """The cues for each slice, which show what they have for it, or else the run's own."""
    shown = [own if cue.shown is None else fit(cue.shown, own) for cue in side.cues]
    return [
        Conditioning(tuple(replace(cue, shown=part) for cue, part in zip(side.cues, parts, strict=True)))
        for parts in zip(*(torch.split(each, _SLICE) for each in shown), strict=True)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class TextEncoding:
    """Ask for what a text says. Its tokens are found before, so that the device does nothing but compute."""

    encoder: TextEncoder
    tokens: tuple[Tokens, ...]

    @classmethod
    def of(cls, encoder: TextEncoder, text: str) -> Self:
        """The same from the text itself. Raises ValueError when it is too long."""
        return cls(encoder, encoder.tokenize(text))

    @property
    def key(self) -> Hashable:
        """The networks, and where they stop."""
        encoder = self.encoder
        return "text encoding", tuple(id(tower.model) for tower in encoder.towers), encoder.layer, encoder.normed

    @property
    def rows(self) -> int:
        """One for each chunk."""
        return max(len(tokens.ids) for tokens in self.tokens)

    @property
    def weight(self) -> float:
        """Little, whatever the text."""
        return 1.0

    def perform_all(self, place: Place, works: Sequence["TextEncoding"], limit: int) -> list[Cue]:
        return self.encoder.encode(place, [work.tokens for work in works], limit)


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
        """One for each picture."""
        return len(self.latents)

    @property
    def weight(self) -> float:
        """As the area of a picture."""
        height, width = self.latents.shape[2:]
        return _weigh(height * width, _USUAL_PICTURE)

    def perform_all(self, place: Place, works: Sequence["Decoding"], limit: int) -> Sequence[Tensor]:
        pictures = self.autoencoder.decode(place, torch.cat([work.latents for work in works]), limit)
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
        """One for each picture."""
        return len(self.pictures)

    @property
    def weight(self) -> float:
        """As the area of a picture."""
        height, width = self.pictures.shape[1:3]
        return _weigh(height * width / FACTOR**2, _USUAL_PICTURE)

    def perform_all(self, place: Place, works: Sequence["Encoding"], limit: int) -> Sequence[Tensor]:
        latents = self.autoencoder.encode(place, torch.cat([work.pictures for work in works]), limit)
        return torch.split(latents, [len(work.pictures) for work in works])


def _weigh(latent_pixels: float, usual: int) -> float:
    """What a row of this area weighs: memory grows with the area, and passes of small rows are bounded by number."""
    return max(1.0, latent_pixels / usual)
