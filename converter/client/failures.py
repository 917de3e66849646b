"""What can go wrong with a call beside the faults of the service: it was not reached, or something else answered.

For: the exceptions, and what aiohttp raises and other answers say, told by them. Leaves it to `core.retries` whether
there is another try. Invariant: no message has a key or a password in it.
"""

import json
import os
from http import HTTPStatus

import aiohttp

from converter.core.problems import read_problem, read_retry_after
from converter.core.retries import IN_VAIN, LOST, Failure, from_status
from converter.core.sse import TooLong
from converter.errors import Fault

MAX_PROBLEM = 1 << 20
"""Bytes of a problem document."""


class CallError(Exception):
    """A call that ended without an answer of a converter. `failure` is what that means for another try."""

    def __init__(self, detail: str, failure: Failure) -> None:
        super().__init__(detail)
        self.failure = failure


class Unreachable(CallError):
    """Nobody was there, or the connection was lost."""


class UnexpectedAnswer(CallError):
    """What answered is no converter, or something between answered in its place. `status` is the answer's."""

    def __init__(self, detail: str, failure: Failure, status: int) -> None:
        super().__init__(detail, failure)
        self.status = status


def explain_loss(error: aiohttp.ClientError | TimeoutError | TooLong, url: str) -> CallError:
    """What became of the connection to `url`."""
    match error:
        case aiohttp.ClientConnectorError():
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror  # the name service has numbers of its own
            trusted = not isinstance(error, aiohttp.ClientSSLError)
            return Unreachable(f"can't reach {url}: {reason or error}", LOST if trusted else IN_VAIN)
        case aiohttp.ClientResponseError() | TooLong():
            return UnexpectedAnswer(f"{url} does not answer as a converter does: {error}", IN_VAIN, HTTPStatus.OK)
    return Unreachable(f"the connection to {url} was lost: {str(error) or type(error).__name__}", LOST)


async def explain_refusal(response: aiohttp.ClientResponse) -> Fault | CallError:
    """What an answer says that is no stream of events: a problem document, or something that is no converter's."""
    after = read_retry_after(response.headers.get("Retry-After", ""), response.headers.get("Date", ""))
    status, origin = response.status, response.url.origin()
    if response.content_type == "application/problem+json":
        document = _parse(await _read(response))
        if document is not None and isinstance(document.get("code"), str):  # others have problems too
            given = {"status": status} if after is None else {"status": status, "retry_after": after}
            return read_problem(given | document)
    if status < HTTPStatus.BAD_REQUEST:
        return UnexpectedAnswer(f"{origin} does not answer as a converter does, but with {status}", IN_VAIN, status)
    return UnexpectedAnswer(f"{origin} answered {status} {response.reason}", from_status(status, after), status)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_PROBLEM:
            break
    return bytes(body)


def _parse(body: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
