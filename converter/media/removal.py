"""Outputs removed from the engine's output folder, where it is shared, once nobody needs them any more.

Only folders that a prompt of ours has alone are removed, never single files: ComfyUI gives a free name to the next
prompt, and may go on naming it for the one before from its cache. Who needs which folder is kept by `core.custody`.
Invariant: what a job, a kept result or a link that is good still names is there; nothing outside the folder is touched.
"""

import asyncio
import logging
import shutil
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from converter.core.custody import Custody, own_folders
from converter.core.outputs import FileRef

log = logging.getLogger(__name__)

ENDING = 5.0
"""Seconds for removals under way to end."""


class Removal:
    """Removes, as an async context manager that owns its tasks and timers. `folder` None: nothing is ever removed."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = None if folder is None else folder.resolve()
        self._custody = Custody()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is still needed stays."""
        for timer in self._timers:
            timer.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=ENDING)

    @property
    def active(self) -> bool:
        """Whether anything is removed, so that each prompt has to have a folder of its own."""
        return self._folder is not None

    def take(self, files: Iterable[FileRef], tag: str) -> frozenset[str]:
        """Need the folders called `tag` in which files lie; these are to be given back."""
        folders = own_folders(files, tag) if self.active else frozenset()
        for folder in folders:
            self._custody.take(folder)
        return folders

    def give_back(self, folders: Collection[str]) -> None:
        """Need them no longer; those that nobody needs are removed."""
        for folder in folders:
            if self._custody.give_back(folder):
                task = asyncio.create_task(asyncio.to_thread(self._remove, folder))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def keep(self, file: FileRef, seconds: float) -> None:
        """Need a file for so long, if it is in a folder that somebody needs."""
        folder = self._custody.find(file)
        if folder is not None:
            self._custody.take(folder)
            self.after(seconds, lambda: self.give_back([folder]))

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        """Do something later, unless this has ended by then."""

        def ring() -> None:
            self._timers.discard(timer)
            act()

        timer = asyncio.get_running_loop().call_later(seconds, ring)
        self._timers.add(timer)

    def _remove(self, name: str) -> None:
        if self._folder is None:
            return
        path = (self._folder / name).resolve()
        if path == self._folder or not path.is_relative_to(self._folder):
            return
        try:
            shutil.rmtree(path)
        except OSError as error:  # the answer is none the worse for it
            log.warning("outputs were not removed: %s", error.strerror, extra={"folder": name})
