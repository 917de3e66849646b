"""Byte ranges of a content whose size is known (RFC 9110 section 14).

Leaves sending to others. Invariant: a range that is given lies within the content and is not empty.
"""

import re

from converter.errors import RangeNotSatisfiable

_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.IGNORECASE | re.ASCII)


def read_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Begin and end (exclusive) of the one range that a `Range` header asks for; None: the whole.

    Other units, several ranges and what can't be read are passed over, as section 14.2 allows. Raises
    RangeNotSatisfiable.
    """
    found = None if header is None else _RANGE.fullmatch(header.strip())
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        begin, end = max(0, size - int(last)), size
    else:
        begin, end = int(first), size if not last else min(int(last) + 1, size)
        if last and int(last) < begin:
            return None
    if begin >= end:
        raise RangeNotSatisfiable(f"none of its {size} bytes lies in this range", content_range=f"bytes */{size}")
    return begin, end
