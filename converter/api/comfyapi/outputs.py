"""Outputs: named by references that say where they are, and opened by them.

For: ids of outputs that count on every start with the same secret, though nothing is remembered. Leaves the signature
to `core.seals`. Invariant: a reference that was not made here, that has expired, or that is another key's, names
nothing.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urljoin

from converter.core.comfyapi import MOUNT, Named, Record, show_output, show_time
from converter.core.seals import seal, unseal
from converter.errors import Expired, Fault, NotFound
from converter.jobs import Jobs
from converter.ledger import Ledger
from converter.media.outputs import Item, OpenFile

KIND = "comfyapi-output-1"
"""Name and number of what is sealed."""


class Held:
    """Content that is in memory."""

    def __init__(self, data: bytes) -> None:
        self.size: int | None = len(data)
        self._data = data

    async def chunks(self) -> AsyncIterator[bytes]:
        """The content in one piece."""
        yield self._data


class Outputs:
    """The outputs of all jobs."""

    def __init__(self, jobs: Jobs, ledger: Ledger, secret: bytes) -> None:
        self._jobs = jobs
        self._ledger = ledger
        self._secret = secret

    def describe(self, items: Sequence[Item], record: Record) -> list[dict[str, Any]]:
        """The outputs of a job, each with its id; texts with what they say."""
        tag, described = record.id.partition("-")[0], []  # a load balancer routes by the tag
        for index, item in enumerate(items):
            output = item.output
            what = (index, output.name, output.content_type, item.size)
            named = Named(record.id, record.scope, *what, record.created, record.expires, output.kind, output.file)
            document = {
                "node_id": output.node_id,
                "name": output.name,
                "type": output.kind,
                "content_type": output.content_type,
                "size_bytes": item.size,
                "id": seal(self._secret, KIND, tag, named.encode()),
            }
            described.append(document if output.text is None else document | {"text": output.text})
        return described

    def show(self, record: Record, origin: str) -> list[dict[str, Any]]:
        """The outputs of a job as the API has them; `origin` begins addresses."""
        shown = []
        for output in record.outputs:
            address = self.address(self._read(output["id"]), output["id"], origin)
            shown.append(show_output(output, record.id, *address))
        return shown

    def address(self, named: Named | None, id: str, origin: str) -> tuple[str, str | None]:
        """Where an output is had, and until when: by a link that needs no key, where it is in a file."""
        link = None if named is None else self._jobs.link(named.output)
        if named is None or link is None:
            return f"{origin}{MOUNT}/assets/{id}/content", show_time(None if named is None else named.expires)
        return urljoin(origin, link["url"]), link["expires_at"]

    def read(self, reference: str, scope: str) -> Named:
        """What a reference names; raises NotFound."""
        named = self._read(reference)
        if named is None or named.scope != scope or named.expires <= time.time():
            raise NotFound("there is no such asset here")
        return named

    def _read(self, reference: str) -> Named | None:
        said = unseal(self._secret, KIND, reference)
        return None if said is None else Named.decode(said)

    async def open(self, named: Named, stack: AsyncExitStack) -> OpenFile:
        """The content of an output; raises NotFound where it is gone, and EngineFailed."""
        held = self._find_held(named)
        if held is not None:
            return held
        if named.file is not None:
            try:
                return await self._jobs.fetch(named.file, stack)
            except Expired:
                raise NotFound("the engine no longer has this output") from None
        record = await self._ledger.find(named.scope, named.job_id, time.time())
        outputs = () if record is None else record.outputs
        text = outputs[named.index].get("text") if named.index < len(outputs) else None
        if text is None:
            raise NotFound("this output is no longer kept")
        return Held(text.encode())

    def _find_held(self, named: Named) -> Held | None:
        """The content, where the job still has it in memory."""
        try:
            items = self._jobs.find(named.job_id, named.scope).items
        except Fault:
            return None
        content = items[named.index].content if named.index < len(items) else None
        return Held(content) if isinstance(content, bytes) else None
