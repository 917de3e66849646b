"""Renewal: files that are read again when they change, such as keys and certificates.

Files are looked at now and then, since those that a platform mounts are replaced by links, which no notice tells.
Leaves to others what the files say. Invariant: what can't be read leaves everything as it was, and is said once.
"""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

log = logging.getLogger(__name__)

PERIOD = 5.0
"""Seconds between two looks."""


class Source(Protocol):
    """Something that is read from files; `read` raises OSError or ValueError where they can't be used."""

    @property
    def paths(self) -> Sequence[Path]:
        """The files."""

    def read(self) -> None:
        """Read the files again."""


async def renew(sources: Sequence[Source]) -> None:
    """Read each source again whenever one of its files has changed, for as long as this runs."""
    seen = [_look(source) for source in sources]
    while True:
        await asyncio.sleep(PERIOD)
        for number, source in enumerate(sources):
            found = _look(source)
            if found == seen[number]:
                continue
            seen[number] = found
            files = {"files": ", ".join(map(str, source.paths))}
            try:
                source.read()
            except (OSError, ValueError) as error:
                log.error("changed files can't be used, what they said before counts: %s", error, extra=files)
            else:
                log.info("changed files were read again", extra=files)


def _look(source: Source) -> list[tuple[int, int, int] | None]:
    return [identify(path) for path in source.paths]


def identify(path: Path) -> tuple[int, int, int] | None:
    """What differs once a file has been written or replaced; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
