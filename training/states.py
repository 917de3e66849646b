"""States: what a training run is taken up from after an interruption.

For: weights, their running averages and an optimiser in one file, the pace of the learning rate, and a log of lines.
Leaves what is learned, and from which loss, to each run.
Invariant: a file is there whole or not at all; a run that is taken up sees the batches that it would have seen.
"""

import copy
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from training.partners import average_gradients, rank

Network = TypeVar("Network", bound=nn.Module)
Line: TypeAlias = dict[str, Any]

_WARM_UP = 200  # steps
_MEMORY = 0.998  # of the average, at each step
_DECAY = 1e-3  # of weights, as a share of the learning rate
_SAVE_SECONDS = 120.0


class Average(Generic[Network]):
    """An exponential moving average of a module's weights, which the exported model is made of."""

    def __init__(self, module: Network, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after `step`; the average of few steps forgets faster."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.module.parameters()), list(module.parameters()), 1 - decay)


class Trainee(Generic[Network]):
    """A module that learns, with its average and its optimiser, kept in the file `path` and taken up from there."""

    def __init__(self, module: Network, path: Path, rate: float, device: str) -> None:
        self.module = module
        self.average = Average(module, _MEMORY)
        self.step = 0
        self._optimizer = torch.optim.AdamW(
            module.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=_DECAY, fused=True
        )
        self._path = path
        self._rate = rate
        self._saved = time.monotonic()
        if state := load_state(path):
            module.load_state_dict(state["model"])
            self.average.module.load_state_dict(state["average"])
            if "optimizer" in state:  # a model that was adopted has none
                self._optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
        for part in (module, self.average.module):
            part.to(device)
            if device == "cpu":
                part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def learn(self, loss: Tensor, share: float) -> None:
        """Take a step down `loss` with `share` of the learning rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * share
        self._optimizer.zero_grad()
        torch.autograd.backward([loss])
        average_gradients(self.module.parameters())
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self._optimizer.step()
        self.average.update(self.module, self.step)
        self.step += 1

    def keep(self, at_once: bool) -> None:
        """Save everything, at once or if the last time is minutes ago; the first of partners does it for all."""
        if rank() or (not at_once and time.monotonic() - self._saved < _SAVE_SECONDS):
            return
        save_state(
            self._path,
            {
                "model": self.module.state_dict(),
                "average": self.average.module.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "step": self.step,
            },
        )
        self._saved = time.monotonic()


class Journal:
    """The log of a run: means of what is noted, every so many steps; of partners, what the first one notes."""

    def __init__(self, path: Path, every: int) -> None:
        self._path = path
        self._every = every
        self._values: dict[str, list[float]] = {}
        self._since = time.monotonic()

    def note(self, step: int, last: bool, **values: float) -> None:
        """Take in the values of a step, and write a line where one is due."""
        if rank():
            return
        for name, value in values.items():
            self._values.setdefault(name, []).append(value)
        if step % self._every and not last:
            return
        count = max(map(len, self._values.values()))
        means = {name: round(sum(found) / len(found), 5) for name, found in self._values.items()}
        append_line(self._path, step=step, **means, seconds=round((time.monotonic() - self._since) / count, 3))
        self._values = {}
        self._since = time.monotonic()


def quicken(device: str) -> torch.autocast:
    """A block in which products are of bfloat16, where that is quicker: a CPU that has them gains a quarter and more.

    One block for each step: it keeps what it has cast, and would not see that weights have changed.
    """
    supported = {"cuda": torch.cuda.is_bf16_supported, "cpu": torch.cpu._is_avx512_bf16_supported}
    return torch.autocast(device, torch.bfloat16, enabled=device in supported and bool(supported[device]()))


def pace(step: int, total: int, floor: float = 0.02) -> float:
    """The share of the full learning rate at `step`: a linear start, then a falling cosine."""
    progress = min(1.0, step / total)
    return min(1.0, (step + 1) / _WARM_UP) * (floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2)


def save_state(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial")
    torch.save(dict(content), unfinished)
    unfinished.replace(path)


def load_state(path: Path) -> dict[str, Any] | None:
    """What was saved to `path`, None where nothing was."""
    if not path.exists():
        return None
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def append_line(path: Path, **values: object) -> None:
    """Add a line of JSON with the time of day to a log, and show it."""
    line = json.dumps({"time": time.strftime("%H:%M:%S"), **values})
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log:
        log.write(line + "\n")
    print(line, flush=True)


def read_lines(path: Path) -> list[Line]:
    """The lines of a log, the last one of each step where steps were repeated after an interruption."""
    if not path.exists():
        return []
    lines = [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]
    return list({line.get("step", number): line for number, line in enumerate(lines)}.values())
