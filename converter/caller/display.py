"""How a run is followed by the person who started it: a bar on a terminal, plain lines elsewhere.

Takes the data of the events `status` and `progress` as the service sends them, and never trusts their shape.
Everything goes to the stream that is given (standard error): standard output is for paths.
"""

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, Self, TextIO


class Display(AbstractContextManager["Display"], Protocol):
    """Shows events while it is entered."""

    def status(self, data: Mapping[str, Any]) -> None:
        """The job's state, its position in the queue, and an estimate."""

    def progress(self, data: Mapping[str, Any]) -> None:
        """A snapshot: `value` from 0 to 1, and what is running."""

    def note(self, text: str) -> None:
        """Something else that is worth a line."""


def open_display(stream: TextIO | None = None) -> Display:
    """The display that suits the stream, standard error if None."""
    stream = stream or sys.stderr
    return Bar(stream) if stream.isatty() else Lines(stream)


class Lines:
    """One line for each change of state, each node, and each tenth of the way."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown: tuple[object, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        return None

    def status(self, data: Mapping[str, Any]) -> None:
        self._show(("status", data.get("state"), data.get("position")), describe_status(data))

    def progress(self, data: Mapping[str, Any]) -> None:
        value = _fraction(data)
        self._show(
            ("progress", data.get("node_id"), int(value * 10)), f"{value:4.0%} {describe_progress(data)}".rstrip()
        )

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def _show(self, what: tuple[object, ...], text: str) -> None:
        if what != self._shown:
            self._shown = what
            self.note(text)


class Bar:
    """One line with a bar that moves, the time so far, and what is going on."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=Console(file=stream, highlight=False),
            transient=True,
        )
        self._task = self._progress.add_task("connecting", total=1.0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def status(self, data: Mapping[str, Any]) -> None:
        self._progress.update(self._task, description=describe_status(data))

    def progress(self, data: Mapping[str, Any]) -> None:
        self._progress.update(self._task, completed=_fraction(data), description=describe_progress(data))

    def note(self, text: str) -> None:
        self._progress.console.print(text, markup=False)


def describe_status(data: Mapping[str, Any]) -> str:
    """For instance "waiting, position 3, about 12 s"."""
    words = [printable(data.get("state", "working"))]
    if (position := data.get("position")) is not None:
        words.append(f"position {printable(position)}")
    if isinstance(seconds := data.get("estimated_seconds"), int | float):
        words.append(f"about {seconds:.0f} s")
    return ", ".join(words)


def describe_progress(data: Mapping[str, Any]) -> str:
    """For instance "KSampler, step 3 of 20"."""
    words = [printable(data["class_type"])] if data.get("class_type") else []
    if data.get("steps"):
        words.append(f"step {printable(data.get('step'))} of {printable(data['steps'])}")
    return ", ".join(words)


def printable(value: object) -> str:
    """As text that can't steer a terminal."""
    return "".join(mark if mark.isprintable() else " " for mark in str(value))


def _fraction(data: Mapping[str, Any]) -> float:
    value = data.get("value")
    return min(max(float(value), 0.0), 1.0) if isinstance(value, int | float) else 0.0
