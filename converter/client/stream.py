"""One call, from its place to its end: sent, followed, and sent again where that can help.

Asks `core.retries` whether to try again. Invariants: every try has the key and the bytes of the first; a `Result` comes
once and last, else the call raises; `value` never goes back, also from try to try; whoever leaves closes the
connection, which cancels the job.
"""

import asyncio
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from converter.client.answers import Event, Output, Progress, Result, read
from converter.client.failures import CallError, Unreachable, explain_loss, explain_refusal
from converter.client.places import Places
from converter.client.requests import Options, Template, compose
from converter.core import retries, sse
from converter.core.retries import LOST, Tries
from converter.errors import DeadlineExceeded, Fault

MAX_EVENT = 1 << 30
"""Bytes of an event: the last one carries all outputs as base64."""

LATENESS = 0.05
"""Part of its timeout by which a call may be late: the service's own answer says which part took the time."""

LINGER = 1.0
"""Seconds for which an answer's end is awaited after its last event, so that the connection can be used again."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How long calls take and how they are repeated; see `Client`."""

    timeout: float | None
    patience: float | None
    on_retry: Callable[[Exception, float], None] | None
    sleep: Callable[[float], Awaitable[None]]

    def __post_init__(self) -> None:
        if self.timeout is None and self.patience is None:
            raise ValueError("a call without a timeout needs a patience, or it would be repeated for ever")
        for name, seconds, least in (("timeout", self.timeout, 1e-9), ("patience", self.patience, 0.0)):
            if seconds is not None and not least <= seconds < math.inf:
                raise ValueError(f"the {name} must be a number of seconds, not {seconds}")


class Stream:
    """The events of one call, while it is entered: an asynchronous iterator.

    Entering waits for a place, and the order is sent when the first event is wanted. Both raise the faults of
    `converter.errors` and CallError. After that, or after the result, the iterator is at its end.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        places: Places,
        terms: Terms,
        work: Mapping[str, Any] | Template,
        options: Options,
    ) -> None:
        self._session = session
        self._url = url
        self._places = places
        self._terms = terms
        self._work = work
        self._options = options
        self._response: aiohttp.ClientResponse | None = None
        self._events = deque[sse.Event]()
        self._value = 0.0
        self._announced: list[Output] = []
        self._result: Result | None = None
        self._failure: BaseException | None = None
        self._epoch = 0
        self._tries = Tries()
        self._met: BaseException | None = None  # what the last try ended with
        self._delay: float | None = None
        self._retrying = AsyncRetrying(
            sleep=terms.sleep,
            retry=retry_if_exception(self._may_repeat),
            wait=lambda state: self._delay or 0.0,
            before_sleep=self._announce,
            reraise=True,
        )

    async def __aenter__(self) -> Self:
        timeout = self._terms.timeout
        self._loop = asyncio.get_running_loop()
        begun = self._loop.time()
        self._deadline = math.inf if timeout is None else begun + timeout
        self._limit = None if timeout is None else begun + timeout * (1 + LATENESS)
        self._request = await compose(self._work, self._options, timeout)
        try:
            async with asyncio.timeout_at(self._limit):
                await self._places.take(self)
        except TimeoutError:
            raise DeadlineExceeded(
                f"{timeout:g} s have passed while other calls of this client were in flight"
            ) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._result is not None and self._response is not None:
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with asyncio.timeout(LINGER):
                        while await self._response.content.readany():
                            pass
        finally:
            self._drop()
            self._places.give_back(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self._result is not None or self._failure is not None:
            raise StopAsyncIteration
        return await self._step()

    async def result(self) -> Result:
        """The last event, when it is there; those before it that were not taken are passed over."""
        while self._result is None:
            await self._step()
        return self._result

    async def _step(self) -> Event:
        """The next event to the user; whatever this raises, it raises from then on."""
        if self._failure is not None:
            raise self._failure
        try:
            async with asyncio.timeout_at(self._limit):
                return await self._retrying(self._advance)
        except TimeoutError:
            self._failure = DeadlineExceeded(f"no answer within {self._terms.timeout:g} s")
            raise self._failure from self._met
        except BaseException as error:
            self._failure = error
            raise

    async def _advance(self) -> Event:
        """The next event of this try, or of a new one. Raises Fault and CallError, with the connection closed."""
        try:
            if self._response is None:
                self._response = await self._send()
                self._parser = sse.Parser(MAX_EVENT)
            while True:
                while self._events:
                    if (event := self._take(self._events.popleft())) is not None:
                        return event
                self._events.extend(await self._hear(self._response))
        except (aiohttp.ClientError, TimeoutError, sse.TooLong) as error:
            self._drop()
            raise explain_loss(error, self._url) from None
        except BaseException:
            self._drop()
            raise

    async def _hear(self, response: aiohttp.ClientResponse) -> list[sse.Event]:
        chunk = await response.content.readany()
        if not chunk:
            raise Unreachable("the connection ended before the job did", LOST)
        return self._parser.feed(chunk)

    async def _send(self) -> aiohttp.ClientResponse:
        """The answer, if it is a stream of events; else raises what it says."""
        self._epoch = self._places.epoch
        response = await self._session.post(
            f"{self._url}{self._request.path}",
            data=self._request.body(),
            headers=self._request.headers,
            allow_redirects=False,
        )
        if response.status == HTTPStatus.OK and response.content_type == "text/event-stream":
            return response
        async with response:
            raise await explain_refusal(response)

    def _take(self, event: sse.Event) -> Event | None:
        """What the user gets of an event; None for one that it has, or that this client does not know."""
        match taken := read(event, self._url):
            case Progress():
                self._value = max(self._value, taken.value)
                return taken.model_copy(update={"value": self._value})
            case Output() if taken.without_place() in self._announced:
                return None
            case Output():
                self._announced.append(taken.without_place())
            case Result():
                self._result = taken
                self._places.note_success()
        return taken

    def _may_repeat(self, error: BaseException) -> bool:
        self._met = error
        if isinstance(error, Fault):
            failure = retries.from_fault(error)
        elif isinstance(error, CallError):
            failure = error.failure
        else:
            return False
        if failure.retry == "later":
            self._places.note_refusal(self._epoch)
        self._tries, self._delay = retries.judge(
            self._tries,
            failure,
            self._loop.time(),
            patience=math.inf if self._terms.patience is None else self._terms.patience,
            deadline=self._deadline,
            chance=random.random(),
        )
        return self._delay is not None

    def _announce(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if self._terms.on_retry and isinstance(error, Exception):
            self._terms.on_retry(error, state.upcoming_sleep)

    def _drop(self) -> None:
        """Close the connection, which cancels the job unless it is done."""
        if self._response is not None:
            self._response.close()
            self._response = None
            self._events.clear()
