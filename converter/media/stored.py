"""Inputs read from object storage, at the places that the operator has named.

What a place is is told by `core.sources`, how a store is opened by `storage`. Invariant: nothing is asked of a store
but the object that a caller names under one of these places; what went wrong is in the log, and the caller is told no
more than that it did.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from converter.core.sources import Source, find_source
from converter.media.fetch import Allowance, Unfetched
from converter.media.spool import Content, Spool
from converter.media.storage import StorageError, open_store, refusals

if TYPE_CHECKING:
    from obstore.store import ObjectStore

log = logging.getLogger(__name__)

PIECE = 2**18
"""Bytes that are taken at a time."""


class Stores:
    """Reads objects. `timeout` is in seconds, for one of them."""

    def __init__(self, sources: Mapping[str, Source], timeout: float) -> None:
        """Opens every store; raises StorageError, which names the source."""
        self._timeout = timeout
        self._sources = list(sources.values())
        self._stores: list[ObjectStore] = []
        for name, source in sources.items():
            try:
                self._stores.append(open_store(source.url, source.options))
            except StorageError as error:
                raise StorageError(f"{name}: {error}") from error

    def vet(self, url: str) -> None:
        """Raise Refused where the URL names nothing that may be read."""
        find_source(url, self._sources)

    async def fetch(self, url: str, spool: Spool, allowance: Allowance) -> Content:
        """The object at the URL; raises Refused and Unfetched."""
        number, key = find_source(url, self._sources)
        try:
            async with asyncio.timeout(self._timeout):
                with refusals():
                    return await _read(self._stores[number], key, spool, allowance)
        except TimeoutError:
            raise Unfetched(f"was not fetched within {self._timeout:g} s", passing=True) from None
        except StorageError as error:
            log.warning("an input was not read from object storage: %s", error)
            raise _explain(error) from error


async def _read(store: "ObjectStore", key: str, spool: Spool, allowance: Allowance) -> Content:
    import obstore

    found = await obstore.get_async(store, key)
    size = found.meta["size"]
    allowance.take(size, 0)
    async for chunk in found.stream(min_chunk_size=PIECE):
        allowance.take(spool.size + len(chunk), len(chunk))
        await spool.write(memoryview(chunk))
    if spool.size != size:
        raise Unfetched("has an object that broke off", passing=True)
    return await spool.end()


def _explain(error: StorageError) -> Unfetched:
    if isinstance(error.__cause__, FileNotFoundError):
        return Unfetched("has an object that is not there")
    return Unfetched("has an object that can't be read", passing=not isinstance(error.__cause__, PermissionError))
