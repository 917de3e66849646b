"""The accelerator, owned by one thread.

For: running every piece of work that touches the accelerator (text encoding, denoising, decoding) in the order in which
it was asked for, and answering each with a future. Leaves what the work is to `pipelines`, when to ask to the nodes.
Invariant: no other thread touches the accelerator; if the thread ends without having been told to, the process ends.
"""

import gc
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h: the program itself failed, so that whoever supervises it starts it again


class OutOfMemoryError(RuntimeError):
    """The accelerator (or, on CPU, the machine) has not enough memory for one request. Named as torch names it."""


class DeviceEnded(RuntimeError):
    """The device thread has ended, or the device is closed: nothing that was asked of it will be answered."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where work runs: the torch device, and the number format of the networks that tolerate a short one."""

    device: "torch.device"
    dtype: "torch.dtype"


Answer = TypeVar("Answer", covariant=True)


class Work(Protocol[Answer]):
    """One request. `perform` runs on the device thread; tensors that it takes and gives are on the CPU."""

    def perform(self, place: Place) -> Answer: ...


def end_process() -> None:
    """End the whole process at once: a server whose device thread is gone answers HTTP and never finishes anything."""
    os._exit(EXIT_CODE)


class Device:
    """A thread that owns the accelerator `kind` ("cpu", "cuda", "cuda:1", "mps"); a context manager.

    At most `backlog` requests wait; further callers are held in `submit`. `on_end` is called on the device thread when
    it ends without having been closed. The first request imports torch, so that a server starts without it.
    """

    def __init__(self, kind: str = "cpu", *, backlog: int = 64, on_end: Callable[[], None] = end_process) -> None:
        self.kind = kind
        self._backlog = backlog
        self._on_end = on_end
        self._waiting: deque[tuple[Work[Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._memory: Mapping[str, Any] = _read_host_memory()
        self._thread = threading.Thread(target=self._serve, name="device", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def submit(self, work: Work[Answer]) -> "Future[Answer]":
        """Queue `work`; the future holds its answer, or OutOfMemoryError, or whatever `perform` raised.

        A future that is cancelled before its turn costs nothing. Raises DeviceEnded.
        """
        future: Future[Answer] = Future()
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._waiting) < self._backlog)
            if self._closed:
                raise DeviceEnded("the device thread has ended")
            self._waiting.append((work, future))
            self._changed.notify_all()
        return future

    def describe(self) -> dict[str, Any]:
        """The entry of this device in ComfyUI's /system_stats; memory in bytes, as last seen by the device thread."""
        return {"name": self.kind, "type": self.kind.partition(":")[0], **self._memory}

    def _serve(self) -> None:
        try:
            while (turn := self._take()) is not None:
                self._perform(*turn)
        finally:
            with self._changed:
                asked, self._closed = self._closed, True
                abandoned = list(self._waiting)
                self._waiting.clear()
                self._changed.notify_all()
            for _, future in abandoned:
                if future.set_running_or_notify_cancel():
                    future.set_exception(DeviceEnded("the device thread has ended"))
            if not asked:
                _log.critical("the device thread has ended", exc_info=True)
                self._on_end()

    def _take(self) -> tuple[Work[Any], "Future[Any]"] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._waiting))
            if self._closed:
                return None
            turn = self._waiting.popleft()
            self._changed.notify_all()
            return turn

    def _perform(self, work: Work[Any], future: "Future[Any]") -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            place, answer = _perform_in_place(self.kind, work)
        # The boundary between one caller's request and the thread that serves all: whatever the request raises is its
        # caller's. What is no Exception (SystemExit, say) is answered too, but ends the thread.
        except Exception as error:
            future.set_exception(self._explain(error))
        except BaseException as error:
            future.set_exception(error)
            raise
        else:
            future.set_result(answer)
            self._memory = _read_memory(place)

    def _explain(self, error: Exception) -> Exception:
        if not _is_out_of_memory(error):
            return error
        # A new error without the old one's traceback, whose frames hold the tensors that filled the memory.
        explained = OutOfMemoryError(
            f"{self.kind} ran out of memory: {str(error).splitlines()[0] if str(error) else ''}"
        )
        error.__traceback__ = None
        _release_memory()
        return explained


def _perform_in_place(kind: str, work: Work[Answer]) -> tuple[Place, Answer]:
    import torch

    device = torch.device(kind)
    # CPUs compute float16 slowly or not at all; accelerators have half of the memory to move with it.
    place = Place(device, torch.float32 if device.type == "cpu" else torch.float16)
    with torch.no_grad():
        return place, work.perform(place)


def _is_out_of_memory(error: Exception) -> bool:
    # torch has a type of its own for accelerators; its allocator for CPU memory raises a plain RuntimeError.
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))


def _release_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _read_host_memory() -> dict[str, Any]:
    page, total_pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    free_pages = os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else total_pages  # not on macOS
    total, free = page * total_pages, page * free_pages
    return {"index": None, "vram_total": total, "vram_free": free, "torch_vram_total": total, "torch_vram_free": free}


def _read_memory(place: Place) -> dict[str, Any]:
    if place.device.type != "cuda":
        return _read_host_memory()
    import torch

    free, total = torch.cuda.mem_get_info(place.device)
    reserved, allocated = torch.cuda.memory_reserved(place.device), torch.cuda.memory_allocated(place.device)
    return {
        "index": place.device.index or 0,
        "vram_total": total,
        "vram_free": free + reserved - allocated,
        "torch_vram_total": reserved,
        "torch_vram_free": reserved - allocated,
    }


class Release:
    """Give memory that nothing refers to any more back to the system."""

    def perform(self, place: Place) -> None:
        _release_memory()
