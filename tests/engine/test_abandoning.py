"""A large pass that nobody waits for is given up on its way, so that the device is there for others."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from engine.device import Device, Place
from tests.engine.test_device import DEADLINE, Note, hold_back


class Layer(torch.nn.Module):
    """Notes that it was reached, and goes on when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.release = threading.Event(), threading.Event()

    def forward(self, rows: Tensor) -> Tensor:
        self.reached.set()
        assert self.release.wait(DEADLINE)
        return rows


@dataclass
class Pass:
    """Goes through two layers, in company with others."""

    weight: float
    layers: torch.nn.Sequential
    key: str = "pass"
    rows: int = 1
    tried: list[int] = field(default_factory=list)

    def perform_all(self, place: Place, works: Sequence["Pass"], limit: int) -> list[Tensor]:
        self.tried.append(len(works))
        return list(torch.split(self.layers(torch.zeros(len(works), 1)), 1))


@pytest.mark.parametrize(
    ("weight", "leaving", "reaches"), [(4.0, 2, False), (4.0, 1, True), (4.0, 0, True), (1.0, 2, True)]
)
def test_a_pass_ends_at_its_next_layer_once_nobody_waits(weight: float, leaving: int, reaches: bool) -> None:
    first, second = Layer(), Layer()
    work = Pass(weight, torch.nn.Sequential(first, second))
    second.release.set()
    with Device() as device:
        hold = hold_back(device)
        futures = [device.submit(work) for _ in range(2)]
        hold.release.set()
        assert first.reached.wait(DEADLINE)
        for future in futures[:leaving]:
            assert future.cancel()
        first.release.set()
        assert device.submit(Note([], 7)).result(DEADLINE) == 7
        assert [len(future.result(DEADLINE)) for future in futures[leaving:]] == [1] * (2 - leaving)
    assert second.reached.is_set() == reaches
    assert work.tried == [2], "what is given up is not tried again"


def test_layers_are_nobody_elses_business_afterwards() -> None:
    layer = Layer()
    layer.release.set()
    with Device() as device:
        device.submit(Pass(4.0, torch.nn.Sequential(layer))).result(DEADLINE)
    assert not torch.nn.modules.module._global_forward_pre_hooks
