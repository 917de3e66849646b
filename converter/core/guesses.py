"""Guesses: what was meant by a name that nothing has.

For: whoever refuses a name. Leaves where names come from to others. Invariant: however long a name or a list is, the
work and the answer are bounded by the number of names that are known.
"""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from itertools import islice

MOST = 20
"""Names that are listed."""

_MANY = 2000
"""Names that are compared: no more than take some tens of milliseconds, however alike they are."""

_LONGEST = 64
"""Characters of a name that are looked at."""


def guess(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known name that is most like it, by more than `cutoff` of 1; None where none is."""
    return next(iter(get_close_matches(name[:_LONGEST], list(islice(known, _MANY)), 1, cutoff)), None)


def suggest(name: str, known: Collection[str]) -> str:
    """The end of a sentence that refuses a name: what may have been meant, or what there is; "" where nothing is."""
    found = guess(name, known)
    if found is not None:
        return f"; did you mean {found}?"
    listed = ", ".join(list(known)[:MOST]) + (" and more" if len(known) > MOST else "")
    return f"; there are {listed}" if known else ""
