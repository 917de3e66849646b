"""How a run is followed by the person who started it: a bar on a terminal, plain lines elsewhere.

Takes the client's events. Everything goes to the stream that is given (standard error): standard output is for paths.
Invariant: no text of the service steers the terminal.
"""

import sys
import typing
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from converter.caller.thumbnails import shrink
from converter.client import Progress, Status
from converter.core.terminals import Protocol, draw

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

ROWS = 12
"""Lines that a picture takes."""


class Display(AbstractContextManager["Display"], typing.Protocol):
    """Shows events while it is entered."""

    def status(self, status: Status) -> None:
        """The job's state, its position in the queue, and an estimate."""

    def progress(self, progress: Progress) -> None:
        """A snapshot: `value` from 0 to 1, and what is running."""

    def picture(self, data: bytes) -> None:
        """A picture's file: a preview, or what was made."""

    def note(self, text: str) -> None:
        """Something else that is worth a line."""


def open_display(stream: TextIO | None = None, protocol: Protocol | None = None) -> Display:
    """The display that suits the stream, standard error if None; `protocol`: pictures that its terminal can show."""
    stream = stream or sys.stderr
    return Bar(stream, protocol) if stream.isatty() else Lines(stream)


class Lines:
    """One line for each change of state, each node, and each tenth of the way."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown: tuple[object, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        return None

    def status(self, status: Status) -> None:
        self._show(("status", status.state, status.position), describe_status(status))

    def progress(self, progress: Progress) -> None:
        text = f"{progress.value:4.0%} {describe_progress(progress)}"
        self._show(("progress", progress.node_id, int(progress.value * 10)), text.rstrip())

    def picture(self, data: bytes) -> None:
        return None

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def _show(self, what: tuple[object, ...], text: str) -> None:
        if what != self._shown:
            self._shown = what
            self.note(text)


class Bar:
    """One line with a bar that moves, the time so far, and what is going on; pictures above it where they can be."""

    def __init__(self, stream: TextIO, protocol: Protocol | None = None) -> None:
        from rich import progress
        from rich.console import Console

        self._progress = progress.Progress(
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.description}", markup=False),
            console=Console(file=stream, highlight=False),
            transient=True,
        )
        self._task = self._progress.add_task("connecting", total=1.0)
        self._protocol = protocol
        self._has_room = False

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def status(self, status: Status) -> None:
        self._progress.update(self._task, description=describe_status(status))

    def progress(self, progress: Progress) -> None:
        self._progress.update(self._task, completed=progress.value, description=describe_progress(progress))

    def picture(self, data: bytes) -> None:
        png = None if self._protocol is None else shrink(data)
        if self._protocol is None or png is None:
            return
        if not self._has_room:
            self._progress.console.print("\n" * (ROWS - 1))
            self._has_room = True
        self._progress.console.print(_Raw(draw(self._protocol, png, ROWS)), end="")

    def note(self, text: str) -> None:
        self._progress.console.print(text, markup=False)
        self._has_room = False  # it came between the picture and the bar


class _Raw:
    """Words to the terminal itself, which take no room on the screen."""

    def __init__(self, words: str) -> None:
        self._words = words

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.segment import ControlType, Segment

        yield Segment(self._words, None, [(ControlType.CARRIAGE_RETURN,)])


def describe_status(status: Status) -> str:
    """For instance "waiting, position 3, about 12 s"."""
    words = [printable(status.state)]
    if status.position is not None:
        words.append(f"position {status.position}")
    if status.estimated_seconds is not None:
        words.append(f"about {status.estimated_seconds:.0f} s")
    return ", ".join(words)


def describe_progress(progress: Progress) -> str:
    """For instance "KSampler, step 3 of 20"."""
    words = [printable(progress.class_type)] if progress.class_type else []
    if progress.steps:
        words.append(f"step {progress.step} of {progress.steps}")
    return ", ".join(words)


def printable(value: object) -> str:
    """As text that can't steer a terminal."""
    return "".join(mark if mark.isprintable() else " " for mark in str(value))
