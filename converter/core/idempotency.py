"""Idempotency keys: which request a key was given to, and whether another one is the same.

After draft-ietf-httpapi-idempotency-key-header-07. Leaves to others: which jobs are known (`jobs`), and for how long
they are remembered (`archive`). Invariant: requests of one key are the same only if method, route, document and parts
are; how JSON is laid out, and how parts are ordered, is nothing of theirs.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from converter.core.deeds import Outcome
from converter.core.order import Part
from converter.errors import Fault, IdempotencyMismatch, InvalidRequest

LONGEST = 255
"""Characters of a key."""

KEPT_STATUS = 422
"""Of faults, those that the same request would meet again, unless they say otherwise."""

_STRING = rf"""(?:[ !#-\[\]-~]|\\["\\]){{1,{LONGEST}}}"""
"""A string of structured fields (RFC 8941 section 3.3.3), of which an escaped character is one."""

_BARE = rf"[!#$%&'*+./0-9:=@A-Z^_`a-z|~-]{{1,{LONGEST}}}"
"""Without quotes: token characters, those of base64 and of URLs."""

PATTERN = f'^(?:"{_STRING}"|{_BARE})$'
"""The header's value, as JSON Schema has patterns (ECMA 262)."""

_KEY = re.compile(f'[ \\t]*(?:"(?P<string>{_STRING})"|(?P<bare>{_BARE}))[ \\t]*')


@dataclass(frozen=True, slots=True)
class Claim:
    """A key as one request gave it. `scope` is whose key it is; `fingerprint` is of the request."""

    scope: str
    key: str
    fingerprint: bytes

    @property
    def name(self) -> tuple[str, str]:
        """What two requests of one caller and key have in common."""
        return self.scope, self.key


def read_key(headers: Sequence[str]) -> str | None:
    """The key of a request's `Idempotency-Key` headers, None where there is none; raises InvalidRequest."""
    if not headers:
        return None
    found = _KEY.fullmatch(headers[0])
    if len(headers) > 1 or found is None:
        detail = f"Idempotency-Key must be one quoted string, or one token, of 1 to {LONGEST} characters"
        raise InvalidRequest([{"pointer": "", "detail": detail}])
    return found["bare"] or re.sub(r"\\(.)", r"\1", found["string"])


def fingerprint(method: str, path: str, document: object, parts: Mapping[str, Part]) -> bytes:
    """What tells two requests apart: 32 bytes. Raises InvalidRequest where the document is too deep to be written."""
    listed = [[name, part.content_type, part.content.digest.hex()] for name, part in sorted(parts.items())]
    try:
        text = json.dumps([method, path, document, listed], sort_keys=True, separators=(",", ":"))
    except RecursionError:
        raise InvalidRequest([{"pointer": "", "detail": "the JSON is nested too deeply"}]) from None
    return hashlib.sha256(text.encode()).digest()


def check(claim: Claim, known: Claim | None) -> None:
    """Raise IdempotencyMismatch if the key is known from another request."""
    if known is not None and known.fingerprint != claim.fingerprint:
        raise IdempotencyMismatch("the Idempotency-Key was used with another request, whose answer is still known")


def is_kept(outcome: Outcome) -> bool:
    """Whether a job that ended so goes on to stand for its key; after any other end the key is free."""
    return not isinstance(outcome, Fault) or (outcome.status == KEPT_STATUS and outcome.retry == "never")
