"""Seals: bytes as text with a signature that nobody else can make, so that what comes back can be believed.

For: naming things to callers without remembering that they were named. Leaves what is said, and for how long it counts,
to others. Invariant: what `unseal` gives was given to `seal` with the same secret, byte by byte.
"""

import base64
import binascii
import hashlib
import hmac

SIGNATURE = 16
"""Bytes of HMAC-SHA256 (RFC 2104 section 5 allows half of them) that are kept."""


def seal(secret: bytes, said: bytes) -> str:
    """The text: characters that a URL's path takes as they are (RFC 4648 section 5), with one dot."""
    return f"{_encode(said)}.{_encode(_mark(secret, said))}"


def unseal(secret: bytes, text: str) -> bytes | None:
    """What a text says; None where it was not made with this secret."""
    said, _, mark = text.partition(".")
    try:
        decoded, given = _decode(said), _decode(mark)
    except (ValueError, binascii.Error):
        return None
    genuine = hmac.compare_digest(given, _mark(secret, decoded)) and seal(secret, decoded) == text
    return decoded if genuine else None


def _mark(secret: bytes, said: bytes) -> bytes:
    return hmac.new(secret, said, hashlib.sha256).digest()[:SIGNATURE]


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
