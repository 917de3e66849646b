"""Outputs put into object storage, at the destinations that the operator has named.

What a destination is and how keys are made is told by `core.destinations`, how a store is opened by `storage`.
Invariant: an upload is whole at its end or leaves nothing behind: one that breaks off, or is given up, is taken back.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

from converter.core.destinations import Destination, render_key
from converter.core.order import Order
from converter.core.workflow import clip
from converter.errors import DeliveryFailed, InvalidInput
from converter.media.deliver import disposition
from converter.media.links import show_moment
from converter.media.outputs import Item
from converter.media.storage import StorageError, open_store, refusals

if TYPE_CHECKING:
    from obstore.store import ObjectStore, S3Store

log = logging.getLogger(__name__)

PART = 5 * 2**20
"""Bytes of a part of an upload: the least that S3 takes."""

PARTS = 2
"""Parts on their way at once: with what the next one gathers, an upload holds three of them."""

ENDING = 10.0
"""Seconds for an upload that was given up to be taken back."""


class _GivenUp(Exception):
    """Nobody waits for the upload any more."""


class Uploads:
    """Puts outputs where the operator lets them go."""

    def __init__(self, destinations: Mapping[str, Destination]) -> None:
        """Opens every store; raises StorageError, which names the destination."""
        self._destinations = destinations
        self._stores: dict[str, ObjectStore] = {}
        for name, destination in destinations.items():
            try:
                self._stores[name] = open_store(destination.url, destination.options)
            except StorageError as error:
                raise StorageError(f"{name}: {error}") from error

    def check(self, name: str) -> None:
        """Raise InvalidInput where there is no such destination."""
        if name not in self._destinations:
            names = ", ".join(sorted(self._destinations))
            known = f"there are {names}" if names else "the operator has named none"
            raise InvalidInput(f'outputs.delivery: there is no destination "{clip(name, 64)}"; {known}')

    async def put(self, item: Item, number: int, name: str, order: Order) -> Mapping[str, str]:
        """Upload one output, the `number`th of its job; the members that tell where it is.

        Raises DeliveryFailed, and what reading the output raises.
        """
        destination, store = self._destinations[name], self._stores[name]
        now = time.time()
        named = {
            "date": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d"),
            "job": order.id,
            "caller": order.scope or "anyone",
            "node": item.output.node_id,
            "number": str(number),
            "random": secrets.token_hex(16),
            "name": item.output.name,
        }
        key = render_key(destination.key, named)
        try:
            with refusals():
                await _upload(store, key, item)
                where = {"destination": name, "key": key}
                if destination.expiry and _signs(store):
                    where["url"] = await _sign(store, key, destination.expiry)
                    where["expires_at"] = show_moment(now + destination.expiry)
                return where
        except StorageError as error:
            log.warning("an output was not uploaded: %s", error, extra=order.about | {"destination": name})
            raise DeliveryFailed(f"the destination {name} did not take an output") from error


async def _upload(store: "ObjectStore", key: str, item: Item) -> None:
    import obstore
    from obstore.store import LocalStore

    given_up = asyncio.Event()

    async def read() -> AsyncIterator[bytes]:
        async for chunk in item.chunks():
            if given_up.is_set():
                raise _GivenUp
            yield chunk

    # Of headers a folder knows nothing.
    headers = {"Content-Type": item.output.content_type, "Content-Disposition": disposition(item.output.name)}
    attributes = None if isinstance(store, LocalStore) else headers
    content = item.content if isinstance(item.content, bytes) else read()
    work = obstore.put_async(store, key, content, attributes=attributes, chunk_size=PART, max_concurrency=PARTS)
    upload = asyncio.ensure_future(work)
    try:
        await asyncio.shield(upload)
    except asyncio.CancelledError:
        given_up.set()  # a failing source makes the store take back what it has; a canceled future would not
        with suppress(Exception):
            async with asyncio.timeout(ENDING):
                await upload
                await obstore.delete_async(store, key)  # it was whole before it could be given up
        raise


def _signs(store: "ObjectStore") -> bool:
    from obstore.store import AzureStore, GCSStore, S3Store

    return isinstance(store, AzureStore | GCSStore | S3Store)


async def _sign(store: "ObjectStore", key: str, seconds: float) -> str:
    import obstore

    return await obstore.sign_async(cast("S3Store", store), "GET", key, timedelta(seconds=seconds))
