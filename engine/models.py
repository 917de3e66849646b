"""Models: the parts of checkpoints that are in memory.

For: handles, which travel between nodes in place of weights, and keeping the parts that were used last within a bound
of bytes. Leaves finding files to `shelves`, reading them to `checkpoints`, and what the parts do to `pipelines` and
`texts`. A part that was evicted while a handle lives is read again. A part with LoRAs is one of its own, so that its
weights are nobody else's.
Invariant: parts in memory take at most `max_bytes` together, unless a single one is larger.
"""

import gc
import logging
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from engine.device import Device, DeviceEnded, Place
from engine.errors import ModelError
from engine.imports import close, hidden
from engine.memory import OutOfMemoryError, Release
from engine.shelves import (
    SHIPPED,
    find_autoencoder,
    find_checkpoint,
    find_diffusion_model,
    find_lora,
    find_text_encoder,
)

if TYPE_CHECKING:
    from engine.checkpoints import Part, Strength
    from engine.pipelines import Autoencoder, Denoiser
    from engine.previews import Projection
    from engine.texts import TextEncoder

_log = logging.getLogger(__name__)

PartName: TypeAlias = Literal["model", "clip", "vae", "projection"]

_MODULES = (
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.schedulers.scheduling_euler_discrete",
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.tokenization_clip",
    "engine.checkpoints",
    "engine.previews",
)
# Packages whose front doors import everything that lies in them, or read hundreds of folders to list it.
_CLOSED = (
    "transformers.models",
    "diffusers.models.autoencoders",
    "diffusers.models.transformers",
    "diffusers.models.unets",
)
# What the libraries import for work that is none of this engine's, if it is installed: losses, candidates of language
# models, video. The engine's own use of scipy comes later.
_HIDDEN = ("scipy", "sklearn", "torchvision", "torchaudio")


@dataclass(frozen=True, slots=True)
class Handle:
    """A part of a checkpoint, by name: what nodes pass to each other as MODEL, CLIP and VAE.

    `loras` are names with strengths, in the order in which they are merged; `layer` is where a CLIP stops, and `shift`
    how a MODEL's noise is shifted, None where it is as its kind has it. With `alone`, the name is that of a part that
    is in no checkpoint; a CLIP that is put together has the names of its `encoders`, and its kind for a name.
    """

    checkpoint: str
    part: PartName
    loras: tuple[tuple[str, float], ...] = ()
    layer: int | None = None
    shift: float | None = None
    alone: bool = False
    encoders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    value: Any
    size: int  # bytes


class Preload:
    """Ask for the import of what every checkpoint needs, without what is only installed beside it."""

    def perform(self, place: Place) -> None:
        # Libraries that were here before may have seen what is to be hidden, and rely on it.
        with nullcontext() if {"transformers", "diffusers"} & sys.modules.keys() else hidden(*_HIDDEN):
            for package in _CLOSED:
                close(package)
            for module in _MODULES:
                import_module(module)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Look for no garbage meanwhile, which takes a fifth off the time of imports: nearly all that they make stays."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # Together, the two make what there is old, without looking at it: else the next collection would.
        gc.freeze()
        gc.unfreeze()
        if enabled:
            gc.enable()


class Models:
    """The models in `folder`, run on `device`. Any thread may ask; one part is read at a time."""

    def __init__(self, device: Device, folder: Path, *, max_bytes: int = 16 << 30) -> None:
        self._device = device
        self._folder = folder
        self._max_bytes = max_bytes
        self._held: OrderedDict[Handle, _Held] = OrderedDict()
        self._changing = threading.Lock()
        # While diffusers and transformers make a module they patch torch for the whole process: two loads at once would
        # disturb each other. So would two first imports: each package puts another module in its place as it ends, and
        # whoever waited for it gets the empty one.
        self._reading = threading.RLock()

    @property
    def size(self) -> int:
        """The bytes of all parts in memory."""
        with self._changing:
            return sum(held.size for held in self._held.values())

    def warm_up(self) -> None:
        """Have at hand what the first prompt is likely to need, the model that ships among it. Takes seconds."""
        try:
            with self._reading, _without_collector():
                self._device.submit(Preload()).result()
            self.projection(self.load(SHIPPED.name)[0])
        except DeviceEnded:
            _log.debug("the device was closed before the models were warm")
        except (ModelError, OutOfMemoryError) as error:
            _log.warning("%s is not at hand: %s", SHIPPED.name, error)

    def load(self, checkpoint: str) -> tuple[Handle, Handle, Handle]:
        """MODEL, CLIP and VAE of a checkpoint, all of them read. Raises ModelError, OutOfMemoryError."""
        handles = Handle(checkpoint, "model"), Handle(checkpoint, "clip"), Handle(checkpoint, "vae")
        for handle in handles:
            self._obtain(handle)
        return handles

    def load_autoencoder(self, name: str) -> Handle:
        """VAE of an autoencoder that is no part of a checkpoint, read. Raises ModelError, OutOfMemoryError."""
        handle = Handle(name, "vae", alone=True)
        self._obtain(handle)
        return handle

    def load_diffusion_model(self, name: str) -> Handle:
        """MODEL of a transformer that is no part of a checkpoint, read. Raises ModelError, OutOfMemoryError."""
        handle = Handle(name, "model", alone=True)
        self._obtain(handle)
        return handle

    def load_text_encoders(self, kind: str, names: Sequence[str]) -> Handle:
        """CLIP of a kind, put together of encoders in any order, read. Raises ModelError, OutOfMemoryError."""
        handle = Handle(kind, "clip", alone=True, encoders=tuple(names))
        self._obtain(handle)
        return handle

    def add_lora(self, handle: Handle, name: str, strength: float) -> Handle:
        """MODEL or CLIP with a LoRA, which is read when the part is first needed. Raises ModelError if it is not there.

        A strength of 0 changes nothing.
        """
        find_lora(self._folder, name)
        return replace(handle, loras=(*handle.loras, (name, strength))) if strength else handle

    def denoiser(self, handle: Handle) -> "Denoiser":
        """What a MODEL stands for. Raises ModelError, OutOfMemoryError, as do the following.

        Raises ValueError for a shift where the model knows none.
        """
        denoiser: Denoiser = self._obtain(replace(handle, shift=None))
        return denoiser if handle.shift is None else denoiser.shift_noise(handle.shift)

    def text_encoder(self, handle: Handle) -> "TextEncoder":
        """What a CLIP stands for."""
        encoder: TextEncoder = self._obtain(replace(handle, layer=None))
        return encoder if handle.layer is None else encoder.stop(handle.layer)

    def autoencoder(self, handle: Handle) -> "Autoencoder":
        """What a VAE stands for."""
        autoencoder: Autoencoder = self._obtain(handle)
        return autoencoder

    def projection(self, handle: Handle) -> "Projection | None":
        """How to preview latents of the checkpoint that `handle` belongs to; None where it belongs to none."""
        if handle.alone:
            return None
        projection: Projection = self._obtain(Handle(handle.checkpoint, "projection"))
        return projection

    def unload(self) -> None:
        """Forget every part. Runs in progress keep theirs until they end."""
        with self._changing:
            held = len(self._held)
            self._held.clear()
        if held:
            self._device.submit(Release())

    def make_room(self) -> bool:
        """Evict the part that was used longest ago of those that nobody uses. Returns whether there was one."""
        with self._changing:
            for handle in [handle for handle, held in self._held.items() if held.size]:
                part = weakref.ref(self._held[handle].value)
                size = self._held.pop(handle).size
                if (used := part()) is None:
                    return True
                self._held[handle] = _Held(used, size)
        return False

    def _obtain(self, handle: Handle) -> Any:
        if (held := self._find(handle)) is None:
            with self._reading:
                if (held := self._find(handle)) is None:
                    held = self._read(handle)
                    self._keep(handle, held)
        return held.value

    def _find(self, handle: Handle) -> _Held | None:
        with self._changing:
            if handle in self._held:
                self._held.move_to_end(handle)
            return self._held.get(handle)

    def _keep(self, handle: Handle, held: _Held) -> None:
        with self._changing:
            self._held[handle] = held
            total = sum(each.size for each in self._held.values())
            while total > self._max_bytes and len(self._held) > 1:
                _, evicted = self._held.popitem(last=False)
                total -= evicted.size

    def _read(self, handle: Handle) -> _Held:
        from engine.checkpoints import read_part
        from engine.loras import read_lora
        from engine.previews import ProjectionFit

        if handle.part == "projection":
            autoencoder = self.autoencoder(Handle(handle.checkpoint, "vae"))
            return _Held(self._device.submit(ProjectionFit(autoencoder)).result(), 0)
        loras = [(read_lora(find_lora(self._folder, name), name), strength) for name, strength in handle.loras]
        if handle.alone:
            return self._place(self._read_alone(handle, loras))
        return self._place(read_part(find_checkpoint(self._folder, handle.checkpoint), handle.part, loras))

    def _read_alone(self, handle: Handle, loras: "Sequence[Strength]") -> "Part":
        from engine.checkpoints import read_autoencoder
        from engine.loose import read_diffusion_model, read_text_encoders

        match handle.part:
            case "model":
                return read_diffusion_model(find_diffusion_model(self._folder, handle.checkpoint), loras)
            case "clip":
                sources = [find_text_encoder(self._folder, name) for name in handle.encoders]
                return read_text_encoders(sources, handle.checkpoint, loras)
        return read_autoencoder(find_autoencoder(self._folder, handle.checkpoint))

    def _place(self, part: "Part") -> _Held:
        from engine.checkpoints import Placement

        return _Held(part, self._device.submit(Placement(part)).result())
