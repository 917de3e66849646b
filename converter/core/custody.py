"""Custody of folders that are one prompt's alone: which files lie in them, and whether anybody needs them still.

For: removing outputs after they were delivered. Leaves removing to others. Invariant: a folder is to be removed once,
when the last of those who took it has given it back.
"""

from collections import Counter
from collections.abc import Iterable

from converter.core.outputs import FileRef


def own_folders(files: Iterable[FileRef], tag: str) -> frozenset[str]:
    """The folders called `tag`, as paths from the output folder, in which these files lie."""
    folders = set()
    for file in files:
        parts = file.subfolder.split("/")
        if file.type == "output" and tag in parts:
            folders.add("/".join(parts[: parts.index(tag) + 1]))
    return frozenset(folders)


class Custody:
    """Folders by how many need them."""

    def __init__(self) -> None:
        self._needs: Counter[str] = Counter()

    def take(self, folder: str) -> None:
        """One more needs the folder."""
        self._needs[folder] += 1

    def give_back(self, folder: str) -> bool:
        """One of those who took it needs it no longer; whether it is to be removed."""
        self._needs[folder] -= 1
        if self._needs[folder]:
            return False
        del self._needs[folder]
        return True

    def find(self, file: FileRef) -> str | None:
        """The folder that somebody needs in which the file lies."""
        if file.type != "output":
            return None
        parts = file.subfolder.split("/")
        paths = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
        return next((path for path in paths if path in self._needs), None)
