"""Inputs that came with a request, or that it names elsewhere, put where the engine can read them.

What an input's text stands for is `core.media`'s part, downloads are `media.fetch`'s, uploading is the link's.
Invariant: a staged input is removed after the last job that needs it where the engine's input folder is shared;
elsewhere a file is named by its content, so that the same bytes are there once however often they are sent.
"""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from converter.core.address import NotPublic, Refused, vet
from converter.core.media import MediaInput, decode, fill_parts, identify, media_inputs, refuse
from converter.core.order import Content, Order
from converter.core.shelf import Shelf
from converter.core.signatures import MediaType
from converter.core.workflow import replace_inputs
from converter.errors import EngineFailed, Fault, Internal, InvalidInput
from converter.media.fetch import Allowance, Fetcher, Unfetched
from converter.media.pixels import count_pixels
from converter.media.spool import NoRoom, Spool, hold
from converter.media.stored import Stores

log = logging.getLogger(__name__)

SUBFOLDER = "converter"
"""The folder within the engine's input folder that takes what is staged."""

ATTEMPTS = 5
"""Uploads of one input before the engine counts as unable to take it."""

TRANSFERS = 8
"""Inputs of one job that are fetched or uploaded at once."""

FORM = 2**10
"""Bytes of an upload beside the file's own, at most."""

ENDING = 60.0
"""Seconds for an upload to end that was given up: the engine may have it, and write it late."""

LASTING = 600.0
"""Seconds for which a file that is never removed counts as still there, so that it need not be uploaded again."""


class NotTaken(Exception):
    """The engine did not take an upload."""


class Upload(Protocol):
    """Puts bytes into the engine's input folder; gives the name by which a node finds them. Raises NotTaken."""

    def __call__(self, name: str, subfolder: str, content: Content, content_type: str) -> Awaitable[str]:
        """Upload one file."""


class Engine(Protocol):
    """What has to be known of the engine: which start of it it is (None: not known), its inputs that take uploads, by
    class and name, and how large an upload may be, in bytes (None: it does not tell).
    """

    @property
    def instance(self) -> str | None: ...

    @property
    def uploads(self) -> Collection[tuple[str, str]]: ...

    @property
    def max_upload_size(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of one input and of all that one request has, and pixels of one picture, all its frames together."""

    each: int = 100 * 2**20
    together: int = 400 * 2**20
    pixels: int = 100_000_000


DEFAULT_LIMITS = Limits()


class Inputs:
    """Stages the inputs of orders. `folder` is the engine's input folder, where it is shared."""

    def __init__(
        self,
        upload: Upload,
        engine: Engine,
        folder: Path | None,
        fetcher: Fetcher,
        stores: Stores,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.upload = upload
        self.engine = engine
        self.folder = folder
        self.fetcher = fetcher
        self.stores = stores
        self.limits = limits
        self.shelf = Shelf(LASTING if folder is None else 0.0)
        self._turns: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    def stage(self, order: Order) -> "Staging":
        """What has to be staged for the order; raises InvalidInput, naming everything that can't be."""
        return Staging(self, order)

    def turn(self, digest: bytes) -> asyncio.Lock:
        """Held by who uploads this content: another one waits, and finds it there."""
        return self._turns.setdefault(digest, asyncio.Lock())


class Staging:
    """The staged inputs of one order. `needed` tells whether there are any."""

    def __init__(self, inputs: Inputs, order: Order) -> None:
        self._inputs = inputs
        self._workflow = order.workflow
        self._allowance = Allowance(inputs.limits.each, inputs.limits.together)
        self._pending = _find_all(order, inputs, self._allowance)
        self._staged: set[str] = set()
        self._shelved: list[str] = []
        self._folders: dict[tuple[str, str], str] = {}
        self._nested: dict[tuple[str, str], dict[str, str]] = {}
        self._underway: list[asyncio.Future[str]] = []
        self._slots = asyncio.Semaphore(TRANSFERS)
        self._instance: str | None = None
        self.needed = bool(self._pending)

    def emptied(self) -> "Staging":
        """The staging of nothing."""
        return Staging(self._inputs, Order("", {}, 0.0))

    async def carry_out(self) -> Mapping[str, Any]:
        """Fetch and upload everything; the workflow with the names in place.

        Raises InvalidInput, naming everything that can't be fetched or used, EngineFailed and Internal.
        """
        names: dict[tuple[str, str], object] = {}
        faults: list[Fault] = []
        self._instance = self._inputs.engine.instance
        async with asyncio.TaskGroup() as group:
            for media, content in self._pending:
                group.create_task(self._carry_out(media, content, names, faults))
        self._pending = []
        _raise(faults)
        for (node_id, name), files in self._nested.items():
            names[node_id, name] = fill_parts(self._workflow[node_id]["inputs"][name], files)
        return replace_inputs(self._workflow, names | self._folders)

    async def _carry_out(
        self, media: MediaInput, content: Content | None, names: dict[tuple[str, str], object], faults: list[Fault]
    ) -> None:
        try:
            async with self._slots:
                name = await (self._fetch(media) if content is None else self._place(media, content))
        except NoRoom as error:
            log.error("an input was not kept for its upload: %s", error)
            faults.append(Internal("the service has no room on its disk for the inputs of the workflow"))
        except Fault as fault:
            faults.append(fault)
        else:
            if media.nested:
                self._nested.setdefault((media.node_id, media.input_name), {})[media.value] = name
            elif media.position is None:
                names[media.node_id, media.input_name] = name

    @property
    def endangered(self) -> bool:
        """Whether the engine has restarted since, and may have lost what was staged: its disk may be gone with it."""
        return self.needed and self._inputs.folder is None and self._instance != self._inputs.engine.instance

    async def remove(self) -> None:
        """Let go of what was staged: where the folder is shared, what nobody else needs is removed."""
        await self._end_uploads()
        removable = self._staged | {name for name in self._shelved if self._inputs.shelf.release(name)}
        self._staged, self._shelved = set(), []
        if self._inputs.folder is not None:
            await asyncio.to_thread(_remove, self._inputs.folder, removable, set(self._folders.values()))

    async def _end_uploads(self) -> None:
        """Wait for what was given up on its way: what is written after the removal would stay."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ENDING):
                await asyncio.gather(*self._underway, return_exceptions=True)

    async def _fetch(self, media: MediaInput) -> str:
        with Spool() as spool:
            source = self._inputs.fetcher if media.kind == "url" else self._inputs.stores
            try:
                content = await source.fetch(media.value, spool, self._allowance)
            except (Unfetched, Refused) as error:
                raise _explain(media, error) from error
            return await self._place(media, content)

    async def _place(self, media: MediaInput, content: Content) -> str:
        """Upload a content unless it is there; the name by which the node finds it."""
        inputs = self._inputs
        kind = identify(media, content.head)
        most = inputs.engine.max_upload_size
        if most is not None and content.size + FORM > most:
            raise refuse(media, f"has {content.size} bytes, and the engine takes uploads of up to {most}")
        await self._check_pixels(media, content, kind)
        if media.position is not None:
            folder = self._folders.setdefault((media.node_id, media.input_name), f"{SUBFOLDER}/{uuid.uuid4().hex}")
            return await self._upload(f"{media.position:05}{kind.extension}", folder, content, kind)
        loop = asyncio.get_running_loop()
        async with inputs.turn(content.digest):
            instance = inputs.engine.instance
            name = inputs.shelf.take(content.digest, instance, loop.time())
            if name is None:
                stem = content.digest.hex()[:32] if inputs.folder is None else uuid.uuid4().hex
                name = await self._upload(f"{stem}{kind.extension}", SUBFOLDER, content, kind)
                inputs.shelf.put(name, content.digest, instance, loop.time())
                self._staged.discard(name)
            self._shelved.append(name)
        return name

    async def _check_pixels(self, media: MediaInput, content: Content, kind: MediaType) -> None:
        most = self._inputs.limits.pixels
        pixels = await count_pixels(content) if kind.content_type.startswith("image/") else None
        if pixels is not None and pixels > most:
            raise refuse(media, f"has more than the {most} pixels that a picture may have, all its frames together")

    async def _upload(self, file: str, subfolder: str, content: Content, kind: MediaType) -> str:
        self._staged.add(f"{subfolder}/{file}")  # before it is there: an upload that is given up may take effect
        retrying = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(0.2, max=3.0),
            retry=retry_if_exception_type(NotTaken),
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    name = await self._put(file, subfolder, content, kind.content_type)
        except NotTaken as error:
            raise EngineFailed("the engine did not take an input of the workflow") from error
        self._staged.add(name)
        return name

    async def _put(self, file: str, subfolder: str, content: Content, content_type: str) -> str:
        """Upload once. Where it has to be removed later, it goes on when the job is given up."""
        upload = asyncio.ensure_future(self._inputs.upload(file, subfolder, content, content_type))
        if self._inputs.folder is None:
            return await upload
        self._underway.append(upload)
        return await asyncio.shield(upload)


def _remove(folder: Path, names: Collection[str], folders: Collection[str]) -> None:
    for name in names:
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:  # the answer is none the worse for it
            log.warning("a staged input was not removed: %s", error.strerror, extra={"file": name})
    for name in folders:
        with suppress(OSError):  # it may never have been made
            (folder / name).rmdir()


def _find_all(order: Order, inputs: Inputs, allowance: Allowance) -> list[tuple[MediaInput, Content | None]]:
    """What has to be staged, with its bytes as far as they are here: None stands for what has to be fetched."""
    found: list[tuple[MediaInput, Content | None]] = []
    faults: list[Fault] = []
    for media in media_inputs(order.workflow, order.media, inputs.engine.uploads, order.parts):
        try:
            found.append((media, _find(media, order, inputs, allowance)))
        except InvalidInput as fault:
            faults.append(fault)
        except (Unfetched, Refused) as error:
            faults.append(_explain(media, error))
    _raise(faults)
    return found


def _find(media: MediaInput, order: Order, inputs: Inputs, allowance: Allowance) -> Content | None:
    if media.kind == "url":
        vet(media.value, inputs.fetcher.trusted)
        return None
    if media.kind == "object":
        inputs.stores.vet(media.value)
        return None
    part = order.parts.get(media.value) if media.kind == "part" else None
    content = hold(decode(media)) if part is None else part.content
    identify(media, content.head)
    allowance.take(content.size, content.size)
    return content


def _explain(media: MediaInput, error: Unfetched | Refused) -> InvalidInput:
    if media.kind not in ("url", "object"):
        return refuse(media, str(error))
    hint = " (CONVERTER_FETCH_ORIGINS names those that may be private)" if isinstance(error, NotPublic) else ""
    fault = refuse(media, f"is a URL that is not fetched: it {error}{hint}")
    return fault.passing() if isinstance(error, Unfetched) and error.passing else fault


def _raise(faults: list[Fault]) -> None:
    """Raise what is wrong: the inputs, all at once, before what is wrong with others."""
    wrong = [fault for fault in faults if isinstance(fault, InvalidInput)]
    if len(wrong) > 1:
        together = InvalidInput(" ".join(fault.detail for fault in wrong), inputs=[fault.extensions for fault in wrong])
        raise together if any(fault.retry == "never" for fault in wrong) else together.passing()
    for fault in wrong or faults:
        raise fault
