"""Memory: of the accelerator, or of the machine where there is none.

For: how much there is, giving it back, and knowing an error that says there is none left. Leaves what to do then to
`device`.
Invariant: importing this imports no torch.
"""

import gc
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


_NO_MEMORY = (
    "DefaultCPUAllocator",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "unable to find an engine",  # cuDNN, where none of its ways to convolve has the memory that it works in
)


class OutOfMemoryError(RuntimeError):
    """The accelerator (or, on CPU, the machine) has not enough memory for one request. Named as torch names it."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory is what was missing."""
    # torch has a type of its own for CUDA's allocator; others raise plain RuntimeErrors.
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY))


def may_be_lost(error: Exception) -> bool:
    """Whether the accelerator may answer nothing any more until the process is started anew. `answers` knows."""
    known = type(error).__name__ == "AcceleratorError" or str(error).startswith("CUDA error")
    return isinstance(error, RuntimeError) and known and not is_out_of_memory(error)


def answers(device: "torch.device") -> bool:
    """Whether the accelerator still does what it is asked: of CUDA's errors, those that last are raised again.

    Others can't be asked, and are taken not to.
    """
    import torch

    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True


def release_memory() -> None:
    """Give memory that nothing refers to any more back to the system."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


class Release:
    """Ask the device for it: a request that goes alone."""

    def perform(self, place: object) -> None:
        release_memory()


def read_host_memory() -> dict[str, Any]:
    """The machine's memory in bytes, in the words of ComfyUI's /system_stats."""
    page, total_pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    free_pages = os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else total_pages  # not on macOS
    total, free = page * total_pages, page * free_pages
    return {"index": None, "vram_total": total, "vram_free": free, "torch_vram_total": total, "torch_vram_free": free}


def read_memory(device: "torch.device") -> dict[str, Any]:
    """The same of an accelerator; the machine's where it has none of its own."""
    if device.type != "cuda":
        return read_host_memory()
    import torch

    free, total = torch.cuda.mem_get_info(device)
    reserved, allocated = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    return {
        "index": device.index or 0,
        "vram_total": total,
        "vram_free": free + reserved - allocated,
        "torch_vram_total": reserved,
        "torch_vram_free": reserved - allocated,
    }
