"""Names of saved files: `{name}_{counter:05}_.png`, and the same for other kinds of files.

For: turning the prefix of a saving node into files that did not exist before, as ComfyUI 0.3.64 names them. Leaves what
is in them to the node.
Invariant: a file is created only where none is, and only inside the given folder; a folder is listed once for each
prefix, not once for each picture, so that saving stays quick however many pictures there are.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from engine.paths import resolve

_REMEMBERED = 4096  # prefixes whose counter is remembered
_BATCH = "%batch_num%"


class Numbering:
    """The counters of all prefixes. Any thread may ask.

    What decides is the file system: a file is created exclusively, or another number is tried.
    """

    def __init__(self) -> None:
        self._latest: OrderedDict[tuple[Path, str], int] = OrderedDict()
        self._changing = threading.Lock()

    @contextmanager
    def create(
        self, folder: Path, prefix: str, width: int, height: int, index: int, extension: str = "png"
    ) -> Iterator[tuple[BinaryIO, str, str]]:
        """A new file, open for writing, with its subfolder and name; `index` is the picture's place in its batch.

        Raises ForbiddenPathError when the prefix leaves the folder. A file that could not be written whole is removed.
        """
        subfolder, _, name = fill_prefix(prefix, width, height, time.localtime()).rpartition("/")
        # Without a separator there is nothing that could lead out, and nothing to ask the file system about.
        target = resolve(folder, subfolder or "/") if "/" in prefix else folder
        target.mkdir(parents=True, exist_ok=True)
        shown = "" if target == folder else target.relative_to(folder.resolve()).as_posix()
        file, path = self._open(target, name, index, extension)
        try:
            with file:
                yield file, shown, path.name
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _open(self, folder: Path, name: str, index: int, extension: str) -> tuple[BinaryIO, Path]:
        counter = self._count(folder, name)
        while True:
            path = folder / f"{name.replace(_BATCH, str(index))}_{counter:05}_.{extension}"
            try:
                return path.open("xb"), path
            except FileExistsError:
                # Somebody else writes here too, so that what is remembered no longer holds.
                with self._changing:
                    self._latest.pop((folder, name), None)
                counter = max(counter + 1, self._count(folder, name))

    def _count(self, folder: Path, name: str) -> int:
        with self._changing:
            latest = self._latest.get((folder, name))
        if latest is None:
            # Without the lock: a folder of many files delays only those who save under a new prefix.
            latest = find_latest(folder, name)
        with self._changing:
            counter = 1 + max(latest, self._latest.pop((folder, name), 0))
            self._latest[folder, name] = counter
            if len(self._latest) > _REMEMBERED:
                self._latest.popitem(last=False)
            return counter


def fill_prefix(prefix: str, width: int, height: int, moment: time.struct_time) -> str:
    """Replace %width%, %height% and the parts of the date and time."""
    if "%" not in prefix:
        return prefix
    values = {
        "%width%": f"{width}",
        "%height%": f"{height}",
        "%year%": f"{moment.tm_year}",
        "%month%": f"{moment.tm_mon:02}",
        "%day%": f"{moment.tm_mday:02}",
        "%hour%": f"{moment.tm_hour:02}",
        "%minute%": f"{moment.tm_min:02}",
        "%second%": f"{moment.tm_sec:02}",
    }
    for key, value in values.items():
        prefix = prefix.replace(key, value)
    return prefix


def find_latest(folder: Path, name: str) -> int:
    """The highest counter among the files of a prefix, 0 if there are none."""
    pattern = re.compile(re.escape(name).replace(re.escape(_BATCH), r"\d+") + r"_(\d+)_?\.")
    numbers = (int(found[1]) for path in folder.iterdir() if (found := pattern.match(path.name)))
    return max(numbers, default=0)
