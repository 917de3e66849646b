"""What those who watch a job are told: its status, progress, previews and outputs, and how it ended.

Keeps the journal and rings when it grows. Leaves to others: what happens (`runner`) and how it is sent (the doors).
Invariant: snapshots that nobody watches are not made; the journal ends with exactly one `result` or `error`.
"""

import asyncio
import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from converter.core import progress
from converter.core.deeds import Outcome
from converter.core.events import Advanced, Entered, Picture, Sound
from converter.core.journal import Entry, Journal
from converter.errors import Fault

PROGRESS_INTERVAL = 0.04
"""Seconds between two snapshots that are worth decoding."""


class Chronicle:
    """One job's. `workflow` is what the caller sent; `entered` tells when each of its nodes began, as it was heard."""

    def __init__(self, workflow: Mapping[str, Any]) -> None:
        self._workflow = workflow
        self._journal = Journal()
        self._progress = progress.begin(workflow)
        self.entered: dict[str, float] = {}
        self._watchers = 0
        self._status: Mapping[str, Any] = {}
        self._decoded_at = 0.0
        self._grown = asyncio.Event()

    # For readers --------------------------------------------------------------------------------------------------

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Want snapshots for as long as this is entered."""
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

    def since(self, sequence: int) -> list[Entry]:
        """What came after an entry; the `result` or `error` is the last."""
        return self._journal.since(sequence)

    def resume(self, sequence: int) -> int:
        """Where a reader goes on who had an entry; from the start, where there is none of that number."""
        return sequence if sequence <= self._journal.sequence else 0

    def is_told(self, sequence: int) -> bool:
        """Whether a reader who had this entry had the last one."""
        return self._journal.closed and sequence == self._journal.sequence

    async def growth(self, seconds: float) -> None:
        """Wait until the journal grows, for so long at most."""
        grown = self._grown
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await grown.wait()

    def snapshot(self) -> dict[str, Any]:
        """The progress so far."""
        return progress.snapshot(self._progress, self._workflow)

    @property
    def node_class(self) -> str | None:
        """The class of the node that runs, as far as is known."""
        return progress.node_class(self._progress, self._workflow)

    @property
    def ended(self) -> bool:
        """Whether the last entry is in."""
        return self._journal.closed

    @property
    def is_watched(self) -> bool:
        """Whether anybody wants snapshots."""
        return self._watchers > 0

    # For the run --------------------------------------------------------------------------------------------------

    def wants_progress(self, now: float) -> bool:
        """Whether a snapshot of progress is worth decoding at this moment."""
        return self._watchers > 0 and now - self._decoded_at >= PROGRESS_INTERVAL

    def hear(self, sound: Sound, now: float) -> None:
        """A sound of the prompt, which may be progress."""
        if isinstance(sound, Advanced):
            self._decoded_at = now
        elif isinstance(sound, Entered) and sound.node_id in self._workflow:
            self.entered.setdefault(sound.node_id, now)
        heard = progress.hear(self._progress, sound)
        if heard is not self._progress:
            self._progress = heard
            if self._watchers:
                self._show("progress", self.snapshot())

    def preview(self, picture: Picture) -> None:
        """A preview."""
        if self._watchers:
            data = base64.b64encode(picture.data).decode()
            self._show("preview", {"node_id": picture.node_id, "content_type": picture.content_type, "data": data})

    def status(self, status: Mapping[str, Any]) -> None:
        """The present state; told only where it has changed."""
        if status != self._status:
            self._status = status
            self._show("status", status)

    def restart(self, status: Mapping[str, Any]) -> None:
        """The prompt is run again from the start, on an engine that was restarted."""
        self._progress = progress.restart(self._progress)
        self.entered.clear()
        self._add("status", status)

    def output(self, description: Mapping[str, Any]) -> None:
        """An output, without its bytes."""
        self._add("output", description)

    def end(self, outcome: Outcome) -> None:
        """How the job ended; nothing follows."""
        self._journal.close("error" if isinstance(outcome, Fault) else "result", outcome)
        self._ring()

    def strip(self) -> None:
        """Let go of what a job that has ended has no more use for."""
        self._workflow = {}

    def _show(self, event: str, data: Mapping[str, Any]) -> None:
        self._journal.show(event, data)
        self._ring()

    def _add(self, event: str, data: Mapping[str, Any]) -> None:
        self._journal.append(event, data)
        self._ring()

    def _ring(self) -> None:
        if self._watchers:
            self._grown.set()
            self._grown = asyncio.Event()
