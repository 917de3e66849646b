"""Passes: rows put through a network, as many at a time as it bears.

For: splitting what is asked into parts, how many of the processor's threads a part is worth, and giving a pass up of
which nobody waits for the end. Leaves how many rows a part has, and who waits, to `device`.
Invariant: the order of rows is kept; the thread that asked has all of torch's threads again afterwards. Another that
computes for the first time meanwhile may keep as few for itself, since torch reads their number once for each thread.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# Waking another thread for each of a network's many small steps takes longer than it helps, below about this much work
# for each: weights times latent pixels. `benchmarks.networks` measures where that is.
_WORTH_A_THREAD = 4e9


class AbandonedError(Exception):
    """A pass was given up on its way."""


@contextmanager
def abandoned_if(unwanted: Callable[[], bool]) -> Iterator[None]:
    """Give up what networks compute in the block, AbandonedError, at the first of their modules that is `unwanted`."""

    def check(module: torch.nn.Module, given: object) -> None:
        if unwanted():
            raise AbandonedError

    hook = torch.nn.modules.module.register_module_forward_pre_hook(check)
    try:
        yield
    finally:
        hook.remove()


def run_split(run: Callable[..., Tensor], limit: int, *rows: Tensor, work: float = math.inf) -> Tensor:
    """What `run` makes of rows, at most `limit` of them at a time. A row is `work`, in weights times latent pixels."""
    parts = list(zip(*(torch.split(tensor, limit) for tensor in rows), strict=True))
    answers = []
    for part in parts:
        with _as_many_threads(work * len(part[0])):
            answers.append(run(*part))
    return answers[0] if len(answers) == 1 else torch.cat(answers)


@contextmanager
def _as_many_threads(work: float) -> Iterator[None]:
    """Run what is in the block on no more threads than its work is worth."""
    there = torch.get_num_threads()
    worth = there if work >= there * _WORTH_A_THREAD else max(1, int(work / _WORTH_A_THREAD))
    if worth == there:
        yield
        return
    torch.set_num_threads(worth)
    try:
        yield
    finally:
        torch.set_num_threads(there)
