"""Diagnosis: why a look at the engine has failed, in words that anyone may read.

Leaves to others: looking (`client`), and what is done about it (`core.absence`). Invariant: of what the other side says
nothing is repeated but a status; the address is the operator's own, which has no secret in it (`core.address`).
"""

import errno
import os

from aiohttp import ClientConnectorError, ClientResponseError, ClientSSLError

from converter.core.absence import Missed
from converter.link.answers import Unreadable
from converter.link.client import LinkError, Unexpected

PASSING = frozenset({401, 403, 407, 408, 429})
"""Statuses below 500 that say nothing of what is behind the one that answers."""


def diagnose(error: LinkError, url: str) -> Missed:
    """What the failure of a request shows of what is at `url`."""
    if isinstance(error, Unexpected):
        return _judge(error, url)
    match error.__cause__:
        case ClientSSLError():
            return Missed(f"no TLS connection to {url} can be made")
        case ClientConnectorError(os_error=OSError(errno=errno.ECONNREFUSED)):
            return Missed(f"nothing listens at {url}")
        case ClientConnectorError(os_error=cause):
            number = cause.errno or 0
            known = os.strerror(number) if number > 0 else cause.strerror  # the name service has numbers of its own
            return Missed(f"{url} can't be reached: {known or cause}")
        case Unreadable() | ClientResponseError():
            return Missed(f"what answers at {url} is no ComfyUI (its answer can't be read)", foreign=True)
    return Missed(f"{url} does not answer")


def _judge(error: Unexpected, url: str) -> Missed:
    asked = f"(status {error.status} to {error.path})"
    if error.by_converter and error.status in (401, 404):  # else it may pass on what ComfyUI says
        return Missed(f"what answers at {url} is a converter, and no ComfyUI {asked}", foreign=True)
    if error.status >= 500 or error.status in PASSING:
        return Missed(f"what answers at {url} shows no engine {asked}")
    return Missed(f"what answers at {url} is no ComfyUI {asked}", foreign=True)
