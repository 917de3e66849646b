"""Notices: what receivers of webhooks are told of jobs, in the words of each dialect.

Leaves to others: sending them (`postbox`). Invariant: a job that was begun with a webhook gives one notice, however it
ended; a notice whose outputs find no room goes without them.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

from converter.core.webhooks import wrap
from converter.errors import Canceled, Draining, EngineFailed, Fault, InvalidInput
from converter.gate import Gate
from converter.jobs import Jobs
from converter.media.deliver import JsonBody, describe
from converter.media.outputs import Broken, Item
from converter.postbox import Postbox, Unwanted
from converter.runner import Run

COME_BACK = 30
"""Seconds after which there may be a place for another notice."""


class Words(Protocol):
    """How one dialect tells how a job ended; each gives a whole notice, as JSON."""

    def result(self, run: Run, items: Sequence[Item]) -> JsonBody:
        """It succeeded."""

    def brief(self, run: Run, items: Sequence[Item]) -> Mapping[str, Any]:
        """It succeeded, and there is no room for its outputs."""

    def failure(self, run: Run, fault: Fault) -> Mapping[str, Any]:
        """It failed; also said of a job that has not ended, for the case that it never will."""


class Notices:
    """The webhooks of orders, as all doors have them."""

    def __init__(self, postbox: Postbox, gate: Gate, jobs: Jobs) -> None:
        self._postbox = postbox
        self._gate = gate
        self._jobs = jobs

    def check(self, url: str, field: str) -> None:
        """Raise InvalidInput where no notice can be sent to the URL in this field, QueueFull where none can be kept."""
        try:
            self._postbox.check(url)
        except Unwanted as error:
            raise InvalidInput(f"{field} {error}", input_name=field) from None
        if self._postbox.full:
            raise self._gate.turn_away("too many webhooks wait to be delivered", seconds=COME_BACK)

    async def expect(self, url: str, run: Run, words: Words) -> None:
        """Tell the receiver when the job has ended."""
        await self._postbox.expect(_Notice(url, run, self._jobs, words))


class _Notice:
    """See `postbox.Notice`."""

    def __init__(self, url: str, run: Run, jobs: Jobs, words: Words) -> None:
        self.url = url
        self.about: Mapping[str, str] = run.order.about
        self._run = run
        self._jobs = jobs
        self._words = words

    def lost(self) -> bytes:
        return self._fail(Draining("the replica ended before the job did", retry_after=1))

    async def ended(self) -> None:
        await asyncio.wait([self._run.outcome])

    async def write(self, room: int) -> bytes:
        outcome = self._run.outcome.result()
        if isinstance(outcome, Fault):
            return self._fail(outcome)
        async with AsyncExitStack() as stack:
            try:
                items = await self._jobs.reopen(self._run, stack)
                body = self._words.result(self._run, items)
                if len(body) <= room:
                    return b"".join([piece async for piece in body])
                return _encode(self._words.brief(self._run, items))
            except Fault as fault:
                return self._fail(fault)
            except Broken:
                return self._fail(EngineFailed("an output could not be read from the engine"))

    def _fail(self, fault: Fault) -> bytes:
        return _encode(self._words.failure(self._run, fault))

    def told(self) -> None:
        self._run.told.set()


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


class _Native:
    """A notice of the native dialect: the job's document as `data`."""

    def result(self, run: Run, items: Sequence[Item]) -> JsonBody:
        document, now = run.document(), time.time()
        return JsonBody(lambda place: wrap("job.succeeded", now, {**document, "outputs": place}), items)

    def brief(self, run: Run, items: Sequence[Item]) -> Mapping[str, Any]:
        return wrap("job.succeeded", time.time(), run.document() | {"outputs": [describe(item) for item in items]})

    def failure(self, run: Run, fault: Fault) -> Mapping[str, Any]:
        status = "canceled" if isinstance(fault, Canceled) else "failed"
        error = fault.problem() | {"request_id": run.order.request}
        document = run.document() | {"status": status, "error": error}
        del document["outputs"]
        return wrap(f"job.{status}", time.time(), document)


NATIVE = _Native()
