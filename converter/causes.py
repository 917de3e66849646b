"""Causes: what the system says of something that it can't do.

For: whoever tells people why there is no connection; the client, which stands alone, has its own. Leaves to others what
was tried. Invariant: an error that has no words is told as None, and never as those of another.
"""

import os


def tell_cause(error: OSError) -> str | None:
    """The words of the system for an error; its own where it has a number of another kind, as the name service does."""
    number = error.errno or 0
    return os.strerror(number) if number > 0 else error.strerror
