"""References to outputs: where a file of the engine is, signed, with an end, so that nothing has to be remembered.

For: links to this replica. Leaves the clock and the secret to whoever signs. Invariant: what `read_reference` takes was
signed with the same secret under the same tag, and has not expired; of anything else nothing is told.
"""

import json
from dataclasses import astuple, dataclass

from converter.core.order import Format, Metadata, Selection
from converter.core.outputs import FileRef, Folder, Kind, Output
from converter.core.seals import seal, unseal
from converter.errors import Expired, NotFound

KIND = "output-1"
"""Name and number of what is sealed."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One output as it will be sent: its file, and what is done to it. `expires_at` is in seconds since 1970."""

    expires_at: int
    filename: str
    subfolder: str
    folder: Folder
    kind: Kind
    content_type: str
    format: Format | None
    quality: int | None
    metadata: Metadata

    @property
    def output(self) -> Output:
        """The output, without its node."""
        file = FileRef(self.filename, self.subfolder, self.folder)
        return Output("", None, self.filename, self.kind, self.content_type, file=file)

    @property
    def selection(self) -> Selection:
        """What is done to it."""
        return Selection(format=self.format, quality=self.quality, metadata=self.metadata)


def refer(output: Output, file: FileRef, selection: Selection, expires_at: int) -> Reference:
    """The reference to an output in this file."""
    done = (selection.format, selection.quality, selection.metadata)
    return Reference(expires_at, file.filename, file.subfolder, file.type, output.kind, output.content_type, *done)


def write_reference(reference: Reference, secret: bytes, tag: str) -> str:
    """A path segment; it begins with the replica's tag, by which a load balancer can route it."""
    return seal(secret, KIND, tag, json.dumps(astuple(reference), separators=(",", ":")).encode())


def read_reference(text: str, secret: bytes, tag: str, now: float) -> Reference:
    """What was written; raises NotFound for what this replica has not signed, Expired for what is past its end."""
    said = unseal(secret, KIND, text) if text.startswith(f"{tag}-") else None
    if said is None:
        raise NotFound("there is no such output here")
    reference = Reference(*json.loads(said))
    if now >= reference.expires_at:
        raise Expired("the link to this output has expired")
    return reference
