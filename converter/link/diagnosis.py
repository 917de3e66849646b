"""Diagnosis: why a look at the engine has failed, in words that anyone may read.

Leaves to others: looking (`client`), and what is done about it (`core.absence`). Invariant: of what the other side says
nothing is repeated but a status, and the address is not told.
"""

import errno

from aiohttp import ClientConnectorError, ClientResponseError, ClientSSLError

from converter.causes import tell_cause
from converter.core.absence import Missed
from converter.link.answers import Unreadable
from converter.link.client import LinkError, Unexpected

PASSING = frozenset({401, 403, 407, 408, 429})
"""Statuses below 500 that say nothing of what is behind the one that answers."""


def diagnose(error: LinkError) -> Missed:
    """What the failure of a request shows of what is at the engine's address."""
    if isinstance(error, Unexpected):
        return _judge(error)
    match error.__cause__:
        case ClientSSLError():
            return Missed("no TLS connection to the engine's address can be made")
        case ClientConnectorError(os_error=OSError(errno=errno.ECONNREFUSED)):
            return Missed("nothing listens at the engine's address")
        case ClientConnectorError(os_error=cause):
            return Missed(f"the engine's address can't be reached: {tell_cause(cause) or cause}")
        case Unreadable() | ClientResponseError():
            return Missed("what answers at the engine's address is no ComfyUI (its answer can't be read)", foreign=True)
    return Missed("nothing at the engine's address answers")


def _judge(error: Unexpected) -> Missed:
    asked = f"(status {error.status} to {error.path})"
    if error.by_converter and error.status in (401, 404):  # else it may pass on what ComfyUI says
        return Missed(f"what answers at the engine's address is a converter, and no ComfyUI {asked}", foreign=True)
    if error.status >= 500 or error.status in PASSING:
        return Missed(f"what answers at the engine's address shows no engine {asked}")
    return Missed(f"what answers at the engine's address is no ComfyUI {asked}", foreign=True)
