"""Rows that say what to draw are laid out once for a company that stays together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from engine.conditioning import Conditioning, Cue
from engine.device import Device, Place
from engine.layouts import Layouts
from engine.models import Handle, Models
from engine.networks import Unet
from engine.noise import seed_items
from engine.pipelines import predict_all
from engine.sampling import Guidance, Sampling
from engine.schedules import space_sigmas
from tests.engine.waiting import PATIENCE

PLACE = Place(torch.device("cpu"), torch.float32)
CUES = [Cue(torch.full((1, 2, 3), float(number))) for number in range(4)]


class Layer:
    """Lays out, and counts."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, place: Place, cues: Sequence[Cue], sizes: Sequence[int]) -> list[Tensor]:
        self.asked += 1
        return [torch.cat([cue.embedding.expand(size, -1, -1) for cue, size in zip(cues, sizes, strict=True)])]


@pytest.fixture
def layer() -> Layer:
    return Layer()


def test_the_same_company_is_laid_out_once(layer: Layer) -> None:
    layouts = Layouts()
    rows = [layouts.find(layer, PLACE, CUES[:2], [1, 2])[0] for _ in range(3)]
    assert layer.asked == 1
    assert [tensor[:, 0, 0].tolist() for tensor in rows] == [[0, 1, 1]] * 3


@pytest.mark.parametrize(
    ("place", "cues", "sizes"),
    [
        (PLACE, [CUES[1], CUES[0]], [1, 2]),
        (PLACE, CUES[:2], [2, 1]),
        (PLACE, [Cue(CUES[0].embedding), CUES[1]], [1, 2]),
        (PLACE, CUES[:3], [1, 2, 1]),
        (Place(torch.device("cpu"), torch.float16), CUES[:2], [1, 2]),
    ],
)
def test_another_company_is_laid_out_anew(layer: Layer, place: Place, cues: list[Cue], sizes: list[int]) -> None:
    layouts = Layouts()
    layouts.find(layer, PLACE, CUES[:2], [1, 2])
    layouts.find(layer, place, cues, sizes)
    assert layer.asked == 2


def test_two_are_held_and_what_was_used_longest_ago_goes(layer: Layer) -> None:
    layouts = Layouts()
    for number in (0, 1, 0, 1, 2, 1, 0):  # 0, 1, then 2 in the place of 0, and 0 in that of 2
        layouts.find(layer, PLACE, [CUES[number]], [1])
    assert layer.asked == 4


def test_what_cannot_be_laid_out_is_not_held(layer: Layer) -> None:
    def fail(*_: object) -> list[Tensor]:
        raise ValueError("another kind of model")

    layouts = Layouts()
    for _ in range(2):
        with pytest.raises(ValueError, match="another kind"):
            layouts.find(fail, PLACE, CUES[:1], [1])
    layouts.find(layer, PLACE, CUES[:1], [1])
    assert layer.asked == 1


def test_texts_of_different_lengths_are_laid_out_once_as_well(device: Device, models: Models) -> None:
    """Their cues are made equally long, which each step would do anew."""
    laid: list[int] = []
    denoiser = models.denoiser(Handle("tiny", "model"))

    @dataclass(frozen=True)
    class Counting(Unet):
        def lay_out(self, place: Place, cues: Sequence[Cue], sizes: Sequence[int]) -> list[Tensor]:
            laid.append(len(cues))
            return Unet.lay_out(self, place, cues, sizes)

    counting = replace(denoiser, network=Counting(denoiser.network.module), layouts=Layouts())
    long, short = (Conditioning.of(torch.randn(1, tokens, 32)) for tokens in (154, 77))
    run = Sampling(
        latent=torch.zeros(1, 4, 8, 8),
        generators=seed_items(1, [0]),
        sampler="euler",
        sigmas=space_sigmas(denoiser.schedule, "normal", 5),
        schedule=denoiser.schedule,
        prediction_type=denoiser.prediction_type,
        guidance=Guidance(long, short, 3.0),
    )
    device.follow(predict_all(counting, run), lambda *_: None).result(PATIENCE)
    assert laid == [2]
