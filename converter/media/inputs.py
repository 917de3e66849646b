"""Inputs that came with a request, put where the engine can read them.

What an input's text stands for is `core.media`'s part, uploading the link's. Invariant: a staged input is removed
after its job where the engine's input folder is shared; elsewhere it is named by its content, so that the same bytes
are there once however often they are sent.
"""

import asyncio
import hashlib
import logging
import uuid
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from converter.core.media import MediaInput, decode, identify, media_inputs
from converter.core.order import Order
from converter.core.workflow import replace_inputs
from converter.errors import EngineFailed, InvalidInput

log = logging.getLogger(__name__)

SUBFOLDER = "converter"
"""The folder within the engine's input folder that takes what is staged."""

ATTEMPTS = 5
"""Uploads of one input before the engine counts as unable to take it."""


ENDING = 60.0
"""Seconds for an upload to end that was given up: the engine may have it, and write it late."""


class NotTaken(Exception):
    """The engine did not take an upload."""


class Upload(Protocol):
    """Puts bytes into the engine's input folder; gives the name by which a node finds them. Raises NotTaken."""

    def __call__(self, name: str, subfolder: str, data: bytes, content_type: str) -> Awaitable[str]:
        """Upload one file."""


class Inputs:
    """Stages the inputs of orders. `folder` is the engine's input folder, where it is shared."""

    def __init__(self, upload: Upload, folder: Path | None) -> None:
        self.upload = upload
        self.folder = folder

    def stage(self, order: Order) -> "Staging":
        """What has to be staged for the order; raises InvalidInput, naming everything that can't be."""
        return Staging(self, order)


class Staging:
    """The staged inputs of one order. `needed` tells whether there are any."""

    def __init__(self, inputs: Inputs, order: Order) -> None:
        self._inputs = inputs
        self._workflow = order.workflow
        self._pending = _decode_all(order)
        self._staged: set[str] = set()
        self._underway: list[asyncio.Future[str]] = []
        self.needed = bool(self._pending)

    def emptied(self) -> "Staging":
        """The staging of nothing."""
        return Staging(self._inputs, Order("", {}, 0.0))

    async def carry_out(self) -> Mapping[str, Any]:
        """Upload everything; the workflow with the names in place. Raises EngineFailed."""
        names: dict[tuple[str, str], object] = {}
        uploaded: dict[bytes, str] = {}
        for media, data in self._pending:
            digest = hashlib.sha256(data).digest()
            if digest not in uploaded:
                uploaded[digest] = await self._upload(media, data, digest)
            names[media.node_id, media.input_name] = uploaded[digest]
        self._pending = []
        return replace_inputs(self._workflow, names)

    async def remove(self) -> None:
        """Remove what was staged, where the folder is shared; elsewhere ComfyUI knows no way."""
        folder = self._inputs.folder
        if folder is not None:
            await self._end_uploads()
            for name in self._staged:
                try:
                    await asyncio.to_thread((folder / name).unlink, missing_ok=True)
                except OSError as error:  # the answer is none the worse for it
                    log.warning("a staged input was not removed: %s", error.strerror, extra={"file": name})

    async def _end_uploads(self) -> None:
        """Wait for what was given up on its way: what is written after the removal would stay."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ENDING):
                await asyncio.gather(*self._underway, return_exceptions=True)

    async def _upload(self, media: MediaInput, data: bytes, digest: bytes) -> str:
        kind = identify(media, data)
        stem = digest.hex()[:32] if self._inputs.folder is None else uuid.uuid4().hex
        file = f"{stem}{kind.extension}"
        self._staged.add(f"{SUBFOLDER}/{file}")  # before it is there: an upload that is given up may take effect
        retrying = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(0.2, max=3.0),
            retry=retry_if_exception_type(NotTaken),
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    name = await self._put(file, data, kind.content_type)
        except NotTaken as error:
            raise EngineFailed("the engine did not take an input of the workflow") from error
        self._staged.add(name)
        return name

    async def _put(self, file: str, data: bytes, content_type: str) -> str:
        """Upload once. Where it has to be removed later, it goes on when the job is given up."""
        upload = asyncio.ensure_future(self._inputs.upload(file, SUBFOLDER, data, content_type))
        if self._inputs.folder is None:
            return await upload
        self._underway.append(upload)
        return await asyncio.shield(upload)


def _decode_all(order: Order) -> list[tuple[MediaInput, bytes]]:
    decoded, faults = [], []
    for media in media_inputs(order.workflow, order.media):
        try:
            decoded.append((media, _bytes_of(media, order)))
        except InvalidInput as fault:
            faults.append(fault)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise InvalidInput(" ".join(f.detail for f in faults), inputs=[f.extensions for f in faults])
    return decoded


def _bytes_of(media: MediaInput, order: Order) -> bytes:
    part = order.parts.get(media.value) if media.kind == "part" else None
    if part is None:
        return decode(media)
    identify(media, part.data)
    return part.data
