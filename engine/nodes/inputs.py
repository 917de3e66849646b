"""Files that callers name as inputs: LoadImage's and its likes.

For: offering, checking and fingerprinting them. Leaves paths to `paths`, and what is in the files to the nodes.
Invariant: only reads, and only inside the engine's folders.
"""

from __future__ import annotations

import hashlib

from engine.errors import ForbiddenPathError
from engine.nodes.spec import Folders
from engine.paths import find_annotated


def list_files(folders: Folders, suffix: str = "") -> list[str]:
    """The files directly in input/ whose names end with `suffix`, sorted."""
    if not folders.input.is_dir():
        return []
    return sorted(path.name for path in folders.input.iterdir() if path.is_file() and path.name.endswith(suffix))


def is_file(folders: Folders, value: object) -> bool:
    """Whether a value names a file; it may be in a subfolder, or annotated with another folder."""
    try:
        return isinstance(value, str) and find_annotated(folders, value).is_file()
    except ForbiddenPathError:
        return False


def hash_file(folders: Folders, value: object) -> str:
    """The content of the file that a value names, so that a changed file is loaded again. Raises OSError."""
    with find_annotated(folders, str(value)).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
