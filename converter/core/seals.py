"""Seals: bytes as text with a signature that nobody else can make, so that what comes back can be believed.

For: naming things to callers without remembering that they were named. Leaves what is said, and for how long it counts,
to others. Invariant: what `unseal` gives was given to `seal` with the same secret and kind, byte by byte.
"""

import base64
import hmac


def seal(secret: bytes, kind: str, tag: str, said: bytes) -> str:
    """The text: a path segment that begins with a replica's tag (letters and digits), by which it can be routed.

    kind: what is said, and in which form, so that no other thing passes for it.
    """
    text = f"{tag}-{_encode(said)}"
    return f"{text}.{_sign(secret, kind, text)}"


def unseal(secret: bytes, kind: str, sealed: str) -> bytes | None:
    """What a text says; None where it was not made with this secret, or is of another kind."""
    text, _, signature = sealed.rpartition(".")
    if not hmac.compare_digest(_sign(secret, kind, text).encode(), signature.encode(errors="replace")):
        return None
    said = text.partition("-")[2]
    return base64.urlsafe_b64decode(said + "=" * (-len(said) % 4))


def _sign(secret: bytes, kind: str, text: str) -> str:
    """HMAC (RFC 2104) with SHA-256."""
    return _encode(hmac.digest(secret, f"{kind}:{text}".encode(errors="replace"), "sha256"))


def _encode(data: bytes) -> str:
    """base64url without padding (RFC 4648 section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
