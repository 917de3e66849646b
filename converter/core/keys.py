"""API keys: what a text of them says, and whose the key of a request is.

For: `CONVERTER_API_KEYS`, files of keys, and the header `Authorization` (RFC 6750 section 2.1). Leaves to others: where
the texts come from (`settings`, `renewal`), and what is done with strangers (`api.door`). Invariant: no secret is kept,
only its digest; how long a comparison takes says nothing of a secret or of whose it is.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

SHORT = 16
"""Characters below which a secret can be guessed."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SECRET = re.compile(r"[!-+\--~]+")
_BEARER = re.compile(r"bearer +([!-~]+) *", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Key:
    """A key that may call. `digest`: SHA-256 of its secret. `short`: it has few characters."""

    name: str
    digest: bytes = field(repr=False)
    short: bool


def parse_keys(text: str) -> tuple[Key, ...]:
    """The keys of a text: `name:secret`, separated by commas or line ends; lines that begin with `#` say nothing.

    A name may come again with another secret, so that secrets can be replaced without a gap. Raises ValueError, whose
    text has no secret in it.
    """
    lines = (line.strip() for line in text.splitlines())
    entries = (entry.strip() for line in lines if not line.startswith("#") for entry in line.split(","))
    keys: list[Key] = []
    for number, entry in enumerate(filter(None, entries), 1):
        name, colon, secret = entry.partition(":")
        if not colon or not _NAME.fullmatch(name):  # what stands there alone may be a secret
            raise ValueError(
                f"must be name:secret, with names of up to 64 letters, digits and ._-, which entry {number} is not"
            )
        if not _SECRET.fullmatch(secret):
            raise ValueError(
                f"must have secrets of printable ASCII without spaces and commas, which that of {name} is not"
            )
        key = Key(name, _digest(secret), short=len(secret) < SHORT)
        twin = next((known for known in keys if known.digest == key.digest and known.name != name), None)
        if twin is not None:
            raise ValueError(f"must have a secret for each name, but {twin.name} and {name} have the same")
        keys.append(key)
    if not keys:
        raise ValueError("must have a key, such as name:secret")
    return tuple(keys)


def read_token(headers: Sequence[str]) -> str | None:
    """What the `Authorization` headers of a request give as a key: None where they give none, "" what can't be one."""
    if len(headers) > 1:
        return ""
    if not headers or headers[0].split(" ")[0].lower() != "bearer":
        return None
    found = _BEARER.fullmatch(headers[0])
    return "" if found is None else found[1]


def find_name(keys: Iterable[Key], token: str) -> str | None:
    """The name of the key whose secret the token is; every key is compared, whether one has been found or not."""
    given, found = _digest(token), None
    for key in keys:
        if hmac.compare_digest(key.digest, given):
            found = key.name
    return found


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
