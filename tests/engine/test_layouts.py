"""Rows that say what to draw are laid out once for a company that stays together."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from engine.conditioning import Cue
from engine.device import Place
from engine.layouts import Layouts

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
