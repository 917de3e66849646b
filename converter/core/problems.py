"""Problem documents (RFC 9457) read back as the faults that they tell of, and what an answer says of when to come back.

For: whoever calls a converter. Leaves sending to the doors. Invariant: any JSON object makes a fault, of the class of
its code where there is one; what `Fault.problem` writes is read to the same fault.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeGuard

from converter import errors
from converter.errors import Fault, Retry

_OWN = frozenset({"type", "title", "status", "code", "detail", "retry", "retry_after"})
"""Members that a fault has as attributes."""

_LONGEST = 1_000_000_000
"""Seconds beyond which a time to wait is nonsense."""

_RETRIES: Mapping[object, Retry] = {"never": "never", "same": "same", "later": "later"}


def read_problem(document: Mapping[str, Any]) -> Fault:
    """The fault; its attributes are the document's, where they are of the right type, and `extensions` all else.

    A code that is not known makes a plain `Fault` with that code, whose `retry` is what the document says.
    """
    code = document.get("code")
    kind = _KINDS.get(code, Fault) if isinstance(code, str) else Fault
    fault = kind.__new__(kind)
    Fault.__init__(fault, _text(document, "detail") or _text(document, "title") or "no reason was given")
    fault.status = _whole(document.get("status"), kind.status)
    fault.code = _text(document, "code") or kind.code
    fault.title = _text(document, "title") or kind.title
    after = document.get("retry_after")
    fault.retry_after = math.ceil(after) if _is_time(after) else None
    fault.retry = _RETRIES.get(_text(document, "retry"), kind.retry if fault.retry_after is None else "later")
    fault.extensions = {name: value for name, value in document.items() if name not in _OWN and value is not None}
    return fault


def read_retry_after(value: str, date: str) -> int | None:
    """Seconds of a `Retry-After` header (RFC 9110 section 10.2.3); where it is a date, from that of the answer on."""
    if value.isascii() and value.isdigit():
        return int(value[:9])
    moment, now = _read_date(value), _read_date(date)
    return None if moment is None or now is None else max(math.ceil((moment - now).total_seconds()), 0)


def _read_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else None


def _text(document: Mapping[str, Any], member: str) -> str:
    value = document.get(member)
    return value if isinstance(value, str) else ""


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LONGEST


def _descend(kind: type[Fault]) -> Iterator[type[Fault]]:
    for below in kind.__subclasses__():
        yield below
        yield from _descend(below)


_KINDS: Mapping[str, type[Fault]] = {
    kind.code: kind for kind in _descend(Fault) if "code" in vars(kind) or kind is errors.Internal
}
