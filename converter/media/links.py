"""Links to this replica, under which an output is had for a while.

Nothing is remembered of them (`core.references`), but that their files are not to be removed yet. Invariant: a link
that is followed leads to the file that it was made for, or to a fault.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from converter.core.order import Selection
from converter.core.outputs import FileRef, Output
from converter.core.references import Reference, read_reference, refer, write_reference
from converter.media.removal import Removal

PATH = "/v1/outputs/"
"""Under which links are; the rest of the path is the reference."""


class Links:
    """Makes links and reads them. `base` is the public address, "" for links relative to the replica's; `seconds` is
    for how long a link is good; `clock` gives seconds since 1970.
    """

    def __init__(
        self,
        secret: bytes,
        tag: str,
        seconds: float,
        base: str,
        removal: Removal,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._removal = removal
        self._secret = secret
        self._tag = tag
        self._seconds = seconds
        self._base = base
        self._clock = clock

    def make(self, output: Output, file: FileRef, selection: Selection) -> Mapping[str, str]:
        """`url` and `expires_at` of an output that is in this file."""
        expires_at = int(self._clock() + self._seconds)
        self._removal.keep(file, self._seconds)
        text = write_reference(refer(output, file, selection, expires_at), self._secret, self._tag)
        return {"url": f"{self._base}{PATH}{text}", "expires_at": show_moment(expires_at)}

    def read(self, text: str) -> Reference:
        """What a link's reference stands for; raises NotFound and Expired."""
        return read_reference(text, self._secret, self._tag, self._clock())

    def seconds_left(self, reference: Reference) -> int:
        """How long the link is still good."""
        return max(int(reference.expires_at - self._clock()), 0)


def show_moment(seconds: float) -> str:
    """A moment, in seconds since 1970, as RFC 3339 writes it."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
