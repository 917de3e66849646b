"""Partners: processes that train one network, each on its share of every batch.

For: two cores, of which one network's small products keep one and a little of the other busy: a process for each, whose
gradients are averaged, sees nearly twice the batches. Leaves what is learned to each run.
Invariant: partners hold equal weights after every step; alone, everything here does nothing.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

import torch
from torch import distributed, nn
from torch.multiprocessing.spawn import spawn

Work = Callable[[], None]
Result = TypeVar("Result")


def run_partners(amount: int, work: Work) -> None:
    """Do `work`, which can be pickled, in `amount` processes; raises what one of them raised."""
    if amount == 1:
        work()
        return
    with TemporaryDirectory() as folder:
        spawn(_join, args=(amount, Path(folder) / "meeting", work), nprocs=amount)  # type: ignore[no-untyped-call]


def _join(rank: int, amount: int, meeting: Path, work: Work) -> None:
    distributed.init_process_group("gloo", init_method=meeting.as_uri(), rank=rank, world_size=amount)
    try:
        work()
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Which of the partners this process is; the first, which keeps files and logs, is 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def own_share() -> slice:
    """The rows of a batch, or the pieces of a set, that are this process's."""
    return slice(rank(), None, distributed.get_world_size() if distributed.is_initialized() else 1)


def do_once(work: Callable[[], Result]) -> Result:
    """Let the first partner do `work`, while the others wait; all of them get its result."""
    if not distributed.is_initialized():
        return work()
    results: list[Any] = [work() if rank() == 0 else None]
    distributed.broadcast_object_list(results)
    return cast("Result", results[0])


def meet() -> None:
    """Wait for all partners."""
    if distributed.is_initialized():
        distributed.barrier()


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Make each gradient the mean of all partners'."""
    if not distributed.is_initialized():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    means = (flat / distributed.get_world_size()).split_with_sizes([gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))
