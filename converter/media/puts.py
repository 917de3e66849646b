"""Outputs put to URLs that the caller has given, such as presigned ones of object storage.

Connections are those of `vetted`. Invariant: nothing is sent but to an origin that the
operator allows; what a URL says is repeated in no answer and no log line, since it may be a secret.
"""

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack

from aiohttp import ClientError, ClientTimeout
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from converter.core.address import Refused, Target, vet
from converter.core.order import Order, Put
from converter.errors import DeliveryFailed, InvalidInput
from converter.media.fetch import CONNECT, PASSING, explain
from converter.media.outputs import Broken, Item
from converter.media.vetted import Closed, Dialer

log = logging.getLogger(__name__)

STALL = 60.0
"""Seconds for an answer once all is sent, and in which a receiver may take less than `SLOWEST`."""

SLOWEST = 2**18
"""Bytes a second that a receiver takes: else it would hold what jobs need for as long as its caller likes."""

TIMEOUT = ClientTimeout(total=None, sock_connect=CONNECT, sock_read=STALL)

ATTEMPTS = 3
"""Of an output that is held in memory; one that streams through is read once."""


class _Refusal(Exception):
    """The receiver did not take an output. The text goes on from "the URL"."""


class _Passing(_Refusal):
    """Another attempt may help."""


class Puts:
    """`origins` are those that the operator allows, private ones too; `anywhere`: all public ones as well."""

    def __init__(self, dialer: Dialer, origins: Collection[str], *, anywhere: bool) -> None:
        self._dialer = dialer
        self._origins = frozenset(origins)
        self._anywhere = anywhere

    def check(self, put: Put) -> None:
        """Raise InvalidInput, with everything that is wrong with the URLs."""
        problems = []
        for number, url in enumerate(put.urls, 1):
            try:
                self._vet(url)
            except Refused as error:
                problems.append(f"URL {number} {error}")
        if problems:
            raise InvalidInput(f"outputs.delivery.put: {'; '.join(problems)}")

    def _vet(self, url: str) -> Target:
        target = vet(url, self._origins)
        if not target.trusted and not self._anywhere:
            raise Refused("leads to an origin that is not allowed here (the setting put_origins)")
        return target

    async def put(self, item: Item, number: int, put: Put, order: Order) -> Mapping[str, int]:
        """Send one output, the `number`th of its job; the member that tells so. Raises DeliveryFailed, and what
        reading the output raises.
        """
        target = self._vet(put.urls[number - 1])
        retrying = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS if isinstance(item.content, bytes) else 1),
            wait=wait_random_exponential(0.2, max=3.0),
            retry=retry_if_exception_type(_Passing),
            reraise=True,
        )
        try:
            await retrying(self._send, item, target, put.headers)
        except _Refusal as error:
            log.warning("an output was not put: %s", error, extra=order.about | {"origin": target.origin})
            fault = DeliveryFailed(f"outputs.delivery.put: URL {number} {error}")
            raise (fault if isinstance(error, _Passing) else fault.lasting()) from error
        return {"put": number}

    async def _send(self, item: Item, target: Target, headers: Mapping[str, str]) -> None:
        fields = {"Content-Type": item.output.content_type, **{name.title(): value for name, value in headers.items()}}
        fields |= {"Content-Length": str(item.size), "User-Agent": "converter"}  # stores take no other framing
        body = io.BytesIO(item.content) if isinstance(item.content, bytes) else _read(item)
        try:
            async with asyncio.timeout(CONNECT + STALL + item.size / SLOWEST), AsyncExitStack() as stack:
                session, url = await stack.enter_async_context(self._dialer.dial(target, TIMEOUT))
                sending = session.put(url, data=body, headers=fields, allow_redirects=False)
                status = (await stack.enter_async_context(sending)).status
        except Closed as error:
            raise _Refusal(str(error)) from error
        except TimeoutError as error:
            raise _Passing("has a host that does not answer, or stalls") from error
        except (ClientError, OSError) as error:
            if isinstance(error.__cause__, Broken):  # of what was to be sent, in aiohttp's words
                raise error.__cause__ from None
            raise _Passing(explain(error)) from error
        if not 200 <= status < 300:
            raise (_Passing if status >= 500 or status in PASSING else _Refusal)(f"answered with status {status}")


async def _read(item: Item) -> AsyncIterator[bytes]:
    async for chunk in item.chunks():
        yield chunk
