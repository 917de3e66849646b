"""A terminal for tests: what a child process believes to be the screen, read back as text."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Terminal:
    """`screen` is the file descriptor for the child; `_view` is where its output comes out."""

    screen: int
    _view: int

    def read_all(self) -> str:
        """Everything shown up to the end of the last process that has the screen."""
        os.close(self.screen)
        shown = b""
        with suppress(OSError):  # EIO: how Linux reports that nobody has the screen any more
            while piece := os.read(self._view, 65536):
                shown += piece
        return shown.decode()


@contextmanager
def open_terminal() -> Iterator[Terminal]:
    """A terminal that is gone at the end; `read_all` must have been called."""
    view, screen = os.openpty()
    try:
        yield Terminal(screen, view)
    finally:
        os.close(view)
