"""The postbox: tells whoever asked for it how a job has ended, as Standard Webhooks has it.

For: signing, sending and sending again. Leaves to others: what a notice says (the doors), whether it is sent again and
when (`core.webhooks`), and keeping it until then (`backlog`). Invariant: a notice that was expected ends in the log as
delivered or as given up, once, unless it is kept for the next start; nothing is sent to a private address
that the operator has not named; secrets are in signatures alone.
"""

import asyncio
import io
import logging
import random
import time
import uuid
from collections.abc import Collection, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, cast
from weakref import WeakValueDictionary

from aiohttp import ClientError, ClientTimeout
from standardwebhooks import Webhook

from converter import __version__
from converter.backlog import Letter, open_backlog
from converter.core import webhooks
from converter.core.address import NotPublic, Refused, vet
from converter.core.problems import read_retry_after
from converter.media.vetted import Closed, Dialer
from converter.telemetry import Metrics

log = logging.getLogger(__name__)

ANSWER = 20.0
"""Seconds that a receiver has for its answer."""

AT_ONCE = 16
"""Notices that are being sent at the same time."""

TO_ONE = 4
"""Of them, to one origin: a receiver that does not answer holds up its own alone."""

LAST = 5.0
"""Seconds at the end for what the last jobs left to tell."""


_HEADERS = {"Content-Type": "application/json", "User-Agent": f"converter/{__version__}"}


class Notice(Protocol):
    """What will be told of a job. `about` is for log lines."""

    url: str
    about: Mapping[str, str]

    def lost(self) -> bytes:
        """What is told if this process ends before the job does."""

    async def ended(self) -> None:
        """Wait until the job has ended."""

    async def write(self, room: int) -> bytes:
        """What there is to tell, in `room` bytes if that can be."""

    def told(self) -> None:
        """The receiver has it."""


class Unwanted(Exception):
    """No notice can be sent there; the text says why, and goes on from the name of the field."""


@dataclass(frozen=True, slots=True)
class Terms:
    """`secrets` to sign with, none where there are no webhooks; private `origins` that may be told, too; seconds of
    `patience`; `places` for notices, those of jobs that go on included, and bytes of `room` for their bodies; `folder`
    keeps them.
    """

    secrets: Sequence[str]
    origins: Collection[str]
    patience: float
    places: int
    room: int
    folder: Path | None


class Postbox:
    """The notices of one replica, as an async context manager that owns their tasks. Entering raises CannotStart."""

    def __init__(self, terms: Terms, metrics: Metrics) -> None:
        self._terms = terms
        self._metrics = metrics
        self._signers = [Webhook(secret) for secret in terms.secrets]
        self._room = terms.room
        self._dialer = Dialer()
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._untried: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()
        self._writing = asyncio.Lock()
        self._sending = asyncio.Semaphore(AT_ONCE)
        self._lanes: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        metrics.webhook_backlog.set_function(lambda: self.pending)

    async def __aenter__(self) -> Self:
        if self._signers:
            async with AsyncExitStack() as stack:
                self._backlog = await stack.enter_async_context(open_backlog(self._terms.folder))
                await stack.enter_async_context(self._dialer)
                self._stack = stack.pop_all()
            for letter in await self._backlog.letters():
                self._room -= letter.size
                self._begin(self._deliver(letter))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST):
                await self.settle()
        kept = self._terms.folder is not None
        if self._tasks:
            log.warning("webhooks are not delivered", extra={"count": len(self._tasks), "kept": kept})
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    @property
    def pending(self) -> int:
        """Notices that are neither delivered nor given up, those of jobs that go on included."""
        return len(self._tasks)

    @property
    def full(self) -> bool:
        """Whether there is no place for another notice."""
        return self.pending >= self._terms.places

    def check(self, url: str) -> None:
        """Raise Unwanted if no notice can be sent there."""
        if not self._signers:
            raise Unwanted("can't be sent: this service has no secret to sign it with (the setting webhook_secret)")
        try:
            vet(url, self._terms.origins)
        except NotPublic as error:
            raise Unwanted(f"{error} (CONVERTER_WEBHOOK_ORIGINS names those that may be private)") from None
        except Refused as error:
            raise Unwanted(str(error)) from None

    async def expect(self, notice: Notice) -> None:
        """Send a notice once its job has ended. When this returns, it will be sent even if the process ends before,
        where notices are kept.
        """
        kept = asyncio.get_running_loop().create_future()
        self._begin(self._follow(notice, kept))
        await asyncio.shield(kept)

    async def settle(self) -> None:
        """Wait until every notice is delivered or given up; where they are kept, until each has been tried."""
        awaited = self._tasks if self._terms.folder is None else self._untried
        while awaited:
            self._moved.clear()
            await self._moved.wait()

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(self._guard(work))
        for tasks in (self._tasks, self._untried):
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        task.add_done_callback(lambda _: self._moved.set())
        task.add_done_callback(lambda _: work.close())  # which a task that is canceled at once has never begun

    async def _guard(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except Exception:  # a boundary: a mistake of ours, or a full disk, loses one notice and never the replica
            log.exception("a webhook failed")
            self._metrics.webhooks.labels(outcome="given_up").inc()

    async def _follow(self, notice: Notice, kept: asyncio.Future[None]) -> None:
        body = notice.lost()
        about = {**notice.about, "to": vet(notice.url, self._terms.origins).origin}
        letter = Letter(f"msg_{uuid.uuid4().hex}", notice.url, about, time.time(), len(body))
        try:
            await self._backlog.put(letter, body)
        finally:
            kept.set_result(None)
        await notice.ended()
        async with self._writing:  # one at a time: what the one takes, the next has not
            body = await notice.write(self._room)
            letter = replace(letter, due=time.time(), size=len(body))
            self._room -= letter.size
        await self._backlog.put(letter, body)
        if await self._deliver(letter):
            notice.told()

    async def _deliver(self, letter: Letter) -> bool:
        """Send a letter until its fate is decided; whether it was taken."""
        while True:
            await asyncio.sleep(letter.due - time.time())
            status, retry_after = await self._send(letter)
            now, chance = time.time(), random.random()
            verdict = webhooks.judge(
                letter.tries, status, retry_after, now, patience=self._terms.patience, chance=chance
            )
            match verdict:
                case webhooks.Again():
                    letter = replace(letter, tries=verdict.tries, due=verdict.due)
                    await self._backlog.postpone(letter)
                case webhooks.Delivered():
                    return await self._end(letter, "delivered")
                case webhooks.GivenUp(reason):
                    return await self._end(letter, "given_up", reason=reason, status=status)
            self._untried.discard(cast("asyncio.Task[Any]", asyncio.current_task()))
            self._moved.set()

    async def _end(self, letter: Letter, outcome: str, **why: object) -> bool:
        await self._backlog.remove(letter)
        self._room += letter.size
        self._metrics.webhooks.labels(outcome=outcome).inc()
        delivered = outcome == "delivered"
        about = {**letter.about, "webhook": letter.id, "retries": letter.tries.failures}
        event = "webhook delivered" if delivered else "webhook given up"
        log.log(logging.INFO if delivered else logging.WARNING, event, extra=about | why)
        return delivered

    async def _send(self, letter: Letter) -> tuple[int | None, float | None]:
        """Status and `Retry-After` of the answer; None where there is none."""
        lane = self._lanes.setdefault(letter.about["to"], asyncio.Semaphore(TO_ONE))
        async with lane, self._sending:
            body = await self._backlog.body(letter)
            at = datetime.now(UTC)
            headers = {"webhook-id": letter.id, "webhook-timestamp": str(int(at.timestamp())), **_HEADERS}
            headers["webhook-signature"] = await asyncio.to_thread(self._sign, letter, at, body)
            try:
                target = vet(letter.url, self._terms.origins)
                async with (
                    asyncio.timeout(ANSWER),
                    self._dialer.dial(target, ClientTimeout(total=ANSWER)) as (session, url),
                    session.post(url, data=io.BytesIO(body), headers=headers, allow_redirects=False) as response,
                ):
                    given = response.headers.get("Retry-After", "")
                    return response.status, read_retry_after(given, response.headers.get("Date", ""))
            except (ClientError, OSError, ValueError, Closed, Refused) as error:  # ValueError: what yarl says of a URL
                log.info("a webhook got no answer: %s", type(error).__name__, extra=dict(letter.about))
                return None, None

    def _sign(self, letter: Letter, at: datetime, body: bytes) -> str:
        """One signature for each secret (Standard Webhooks, rotation of secrets)."""
        return " ".join(signer.sign(letter.id, at, body.decode()) for signer in self._signers)
