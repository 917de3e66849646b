"""Object storage: a store opened by its URL, with obstore, which speaks S3, GCS, Azure and a local folder's protocol.

Leaves to others: what is read and written there. Credentials and endpoints that `options` do not name are those of the
provider's own variables (`AWS_...`, `GOOGLE_...`, `AZURE_...`), which obstore reads. Invariant: the library is imported
only when a store is opened; whatever it refuses is a StorageError, whose text is for the operator and not for callers.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the extra `storage`, which a converter without object storage does not need
    from obstore.store import ObjectStore

CONNECT = timedelta(seconds=5)
"""For a connection to the store."""

SILENCE = timedelta(seconds=30)
"""For a store to go on with an answer."""

RETRIES = 3
"""Further attempts of one request that fails on the way or in the store itself."""

RETRYING = timedelta(seconds=30)
"""From a request's first attempt to the last moment at which another begins."""


class StorageError(Exception):
    """The store can't be opened, or refuses."""


def open_store(url: str, options: Mapping[str, str]) -> "ObjectStore":
    """The store at `url`: `s3://BUCKET/PREFIX`, `gs://...`, `az://CONTAINER/...` or `file:///FOLDER`.

    `options` are obstore's for this kind of store (`region`, `endpoint`, `access_key_id`, ...). No packet is sent.
    Raises StorageError.
    """
    try:
        from obstore.store import LocalStore, from_url
    except ImportError:
        raise StorageError('object storage needs the extra "storage"') from None
    with refusals():
        if url.startswith("file:"):
            return LocalStore.from_url(url, mkdir=True)
        client: dict[str, Any] = {"connect_timeout": CONNECT, "read_timeout": SILENCE, "timeout": timedelta(hours=1)}
        if options.get("endpoint", "").startswith("http://"):
            client["allow_http"] = True
        config: Any = dict(options)
        retries: Any = {"max_retries": RETRIES, "retry_timeout": RETRYING}
        return from_url(url, config=config, client_options=client, retry_config=retries)  # type: ignore[call-overload, no-any-return]


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what obstore raises, which are several classes of Python's own as well, into StorageError."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError, ValueError, NotImplementedError) as error:
        raise StorageError(str(error).partition("\n")[0][:500]) from error
