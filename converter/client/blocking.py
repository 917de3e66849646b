"""The client for code that is not asynchronous: the same calls, which block the thread that makes them.

A loop of its own, in a thread of its own, carries the calls, so that any threads may share one client. Invariant: who
is interrupted in a call leaves it, and so cancels its job.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from anyio.from_thread import BlockingPortal, start_blocking_portal

from converter.client.answers import Event, Result
from converter.client.client import LIMIT, TIMEOUT, URL, Client
from converter.client.requests import Options, Template

T = TypeVar("T")


class SyncClient:
    """See `Client`, whose arguments it takes; to be entered outside of event loops, else RuntimeError is raised."""

    def __init__(
        self,
        url: str = URL,
        *,
        api_key: str | None = None,
        timeout: float | None = TIMEOUT,
        patience: float | None = None,
        limit: int = LIMIT,
        on_retry: Callable[[Exception, float], None] | None = None,
    ) -> None:
        self._client = Client(url, api_key=api_key, timeout=timeout, patience=patience, limit=limit, on_retry=on_retry)
        self._portal: BlockingPortal | None = None

    def __enter__(self) -> Self:
        _refuse_inside_a_loop()
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            stack.enter_context(portal.wrap_async_context_manager(self._client))
            self._stack = stack.pop_all()
        self._portal = portal
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        self._portal = None

    def describe(self, name: str) -> Mapping[str, Any]:
        """See `Client.describe`."""
        return self._wait(partial(self._client.describe, name))

    def run(self, work: Mapping[str, Any] | Template, **options: Unpack[Options]) -> Result:
        """See `Client.run`."""
        return self._wait(partial(self._client.run, work, **options))

    @contextmanager
    def stream(self, work: Mapping[str, Any] | Template, **options: Unpack[Options]) -> Iterator[Iterator[Event]]:
        """See `Client.stream`; gives an iterator of the events."""
        self._require()
        events = self._client.stream(work, **options)
        self._wait(events.__aenter__)
        try:
            yield iter(partial(self._wait, partial(anext, events, None)), None)
        finally:
            self._wait(partial(events.__aexit__, None, None, None))

    def _wait(self, call: Callable[[], Awaitable[T]]) -> T:
        """What the call gives. Who is interrupted meanwhile cancels it."""
        future = self._require().start_task_soon(call)
        try:
            return future.result()
        finally:
            future.cancel()

    def _require(self) -> BlockingPortal:
        _refuse_inside_a_loop()
        if self._portal is None:
            raise RuntimeError("a client calls while it is entered: use it in `with SyncClient(...) as client:`")
        return self._portal


def _refuse_inside_a_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("SyncClient would block the event loop that runs here: use `async with Client(...)` instead")
