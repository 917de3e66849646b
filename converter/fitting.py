"""What runs work with, made of the settings.

For: the composition root. Leaves starting and ending to it. Invariant: nothing here opens a connection.
"""

import asyncio
import os
import secrets
import tomllib
from typing import TYPE_CHECKING

from converter.core.destinations import parse_destinations
from converter.core.sources import parse_sources
from converter.errors import CannotStart
from converter.link.engine import EngineLink
from converter.means import Means
from converter.media.dispatch import Dispatch
from converter.media.fetch import Fetcher
from converter.media.inputs import Inputs, Limits
from converter.media.links import Links
from converter.media.puts import Puts
from converter.media.removal import Removal
from converter.media.storage import StorageError
from converter.media.stored import Stores
from converter.media.uploads import Uploads
from converter.media.vetted import Dialer
from converter.settings import Settings
from converter.stores import EngineFiles, EngineInputs, SharedFolder
from converter.telemetry import Metrics
from converter.warden import Warden
from converter.watch import Watch

if TYPE_CHECKING:
    from converter.spans import Tracing


def open_dispatch(settings: Settings, tag: str, dialer: Dialer, removal: Removal) -> Dispatch:
    """Where outputs can go; `tag` is the replica's. Raises CannotStart."""
    puts = Puts(dialer, settings.put_origins, anywhere=settings.put_anywhere)
    secret = secrets.token_bytes(32) if settings.url_secret is None else settings.url_secret.encode()
    links = Links(secret, tag, settings.url_expiry, settings.public_url or "", removal)
    if settings.destinations_file is None:
        return Dispatch(links, Uploads({}), puts)
    try:
        uploads = Uploads(parse_destinations(tomllib.loads(settings.destinations_file.read_text("utf-8"))))
    except (OSError, ValueError, StorageError) as error:
        raise CannotStart(f"the destinations of {settings.destinations_file} can't be used: {error}") from None
    return Dispatch(links, uploads, puts)


def open_removal(settings: Settings) -> Removal:
    """What removes outputs. Raises CannotStart."""
    folder = None if settings.keep_outputs else settings.output_dir
    if folder is not None and not os.access(folder, os.W_OK | os.X_OK):
        raise CannotStart(
            f"outputs can't be removed from {folder}, which is not writable: make it so, or set keep_outputs"
        )
    return Removal(folder)


def open_stores(settings: Settings) -> Stores:
    """Where inputs may come from, beside the web. Raises CannotStart."""
    if settings.sources_file is None:
        return Stores({}, settings.fetch_timeout)
    try:
        sources = parse_sources(tomllib.loads(settings.sources_file.read_text("utf-8")))
        return Stores(sources, settings.fetch_timeout)
    except (OSError, ValueError, StorageError) as error:
        raise CannotStart(f"the sources of {settings.sources_file} can't be used: {error}") from None


def fit(
    settings: Settings,
    link: EngineLink,
    watch: Watch,
    metrics: Metrics,
    tracing: "Tracing | None",
    fetcher: Fetcher,
    stores: Stores,
    dispatch: Dispatch,
    removal: Removal,
) -> Means:
    """Everything together."""
    files = EngineFiles(link.client)
    return Means(
        link=link,
        watch=watch,
        inputs=Inputs(
            EngineInputs(link.client, watch.check_instance),
            watch,
            settings.input_dir,
            fetcher,
            stores,
            Limits(settings.max_input, settings.max_input_total, settings.max_pixels),
        ),
        files=files if settings.output_dir is None else SharedFolder(settings.output_dir, files),
        dispatch=dispatch,
        removal=removal,
        deliveries=asyncio.Semaphore(settings.deliveries),
        warden=Warden(),
        metrics=metrics,
        max_attempts=settings.max_attempts,
        keep_bytes=settings.keep_bytes,
        tracing=tracing,
    )
