"""Webhooks: how a notice is written, and what an attempt to deliver it means for the next one.

After the Standard Webhooks specification. For: the secrets that notices are signed with, the envelope, and whether and
when a notice is sent again (`core.retries` has the delays). Leaves to others: signing and sending (`postbox`), and
keeping notices (`backlog`). Invariant: a notice is sent until it is taken, its receiver wants no more, or its patience
is over; never before the time that its receiver gave, so attempts end.
"""

import base64
import binascii
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from converter.core import retries
from converter.core.retries import Failure, Tries

PREFIX = "whsec_"
"""What secrets begin with."""

LEAST, MOST = 24, 64
"""Bytes of a secret."""

LONGEST = 300.0
"""Seconds of the longest delay between two attempts, where the receiver gives none."""

GONE = 410
"""The status by which a receiver says that it wants no more."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has the notice."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """The notice is not sent again; `reason` is for the log."""

    reason: str


@dataclass(frozen=True, slots=True)
class Again:
    """The notice is sent again at the moment `due`; `tries` is what is remembered until then."""

    tries: Tries
    due: float


Verdict = Delivered | GivenUp | Again


def judge(
    tries: Tries, status: int | None, retry_after: float | None, now: float, *, patience: float, chance: float
) -> Verdict:
    """What an attempt's answer means. `status` None: there was none. Times in seconds; `chance`: 0 to 1."""
    if status is not None and 200 <= status < 300:
        return Delivered()
    if status == GONE:
        return GivenUp("the receiver wants no more")
    failure = Failure("same", retry_after)
    bounds = {"patience": patience, "deadline": math.inf, "longest": LONGEST}
    tries, delay = retries.judge(tries, failure, now, **bounds, chance=chance)
    return GivenUp("the receiver did not take it in time") if delay is None else Again(tries, now + delay)


def parse_secrets(text: str) -> tuple[str, ...]:
    """Secrets separated by commas: `whsec_` and base64 of 24 to 64 bytes each. Raises ValueError.

    Every notice is signed with each of them, so that receivers can be moved from one to the next.
    """
    secrets = tuple(each.strip() for each in text.split(",") if each.strip())
    if not secrets or not all(map(_is_secret, secrets)):
        raise ValueError(f"must be {PREFIX} and base64 of {LEAST} to {MOST} bytes")
    return secrets


def _is_secret(text: str) -> bool:
    encoded = text.removeprefix(PREFIX)
    try:
        return encoded != text and LEAST <= len(base64.b64decode(encoded, validate=True)) <= MOST
    except (binascii.Error, ValueError):
        return False


def wrap(kind: str, at: float, data: object) -> dict[str, Any]:
    """A notice; `at` is in seconds since the epoch."""
    return {"type": kind, "timestamp": format_time(at), "data": data}


def format_time(at: float) -> str:
    """A moment, in seconds since the epoch, as RFC 3339 has it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
