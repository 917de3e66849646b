"""Transfers: tensors on their way to an accelerator and back.

For: keeping the thread that owns the accelerator from waiting for it, so that the next pass is asked for while one
runs. Leaves what is sent to `networks` and `pipelines`.
Invariant: what is fetched is float32 and on the CPU for good.
"""

from typing import Any

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """The tensor on the device, in its own number format unless another is named."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        # Out of pageable memory, the copy would wait for all that was asked of the device before.
        tensor = tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device, dtype or tensor.dtype)


def keep(tensor: Tensor) -> Tensor:
    """The tensor where it is, if threads may ask for it there while others are at work; else on the CPU.

    Apple's devices end the process that asks them from two threads, and lack some of what samplers compute.
    """
    return tensor if tensor.is_cuda else tensor.cpu()


def fetch(tensor: Tensor) -> Tensor:
    """What was kept, as soon as it is made. Any thread may ask; it sleeps until then, where it would spin."""
    if not tensor.is_cuda:
        return tensor.to("cpu", torch.float32)
    with torch.cuda.device(tensor.device):
        coming = tensor.to(torch.float32).to("cpu", non_blocking=True)
        event: Any = torch.cuda.Event
        arrived = event(blocking=True)
        arrived.record()
        arrived.synchronize()
    return coming.clone()  # out of pinned memory, of which there is little
