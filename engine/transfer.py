"""Transfers: tensors on their way to an accelerator and back.

For: keeping the thread that owns the accelerator from waiting for it, so that the next pass is asked for while one
runs. Leaves what is sent to `networks` and `pipelines`.
Invariant: what is fetched is float32 and on the CPU for good. All of it rests on one stream, CUDA's own: what is asked
for there is done in turn, whichever thread asks.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_PINNED = 2**24  # bytes of what comes by pinned memory: there is little, and what torch has once had, it keeps


def send(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """The tensor on the device, in its own number format unless another is named."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        # Out of pageable memory, the copy would wait for all that was asked of the device before.
        tensor = tensor.contiguous().pin_memory().to(device, non_blocking=True)
    return tensor.to(device, dtype or tensor.dtype)


def keep(tensor: Tensor) -> Tensor:
    """The tensor where it is, if threads may ask for it there while others are at work; else on the CPU.

    Apple's devices end the process that asks them from two threads, and lack some of what samplers compute.
    """
    return tensor if tensor.is_cuda else tensor.cpu()


def fetch(tensor: Tensor) -> Tensor:
    """What was kept, as soon as it is made. Any thread may ask; it sleeps until then, where it would spin."""
    return fetch_all([tensor])[0]


def fetch_all(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same of several, which are waited for once."""
    device = next((tensor.device for tensor in tensors if tensor.is_cuda), None)
    if device is None:
        return [tensor.to("cpu", torch.float32) for tensor in tensors]
    with torch.cuda.device(device):
        made = [tensor.to(torch.float32) for tensor in tensors]
        coming = [tensor if tensor.nbytes > _PINNED else tensor.to("cpu", non_blocking=True) for tensor in made]
        event: Any = torch.cuda.Event
        arrived = event(blocking=True)
        arrived.record()
        arrived.synchronize()
        return [tensor.cpu() if tensor.is_cuda else tensor.clone() for tensor in coming]
