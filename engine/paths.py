"""Paths that callers name.

For: finding what a caller means inside one of the engine's folders. Leaves reading and writing to others.
Invariant: a path that was resolved is inside the folder it was named in, symbolic links included.
"""

from __future__ import annotations

import re
from pathlib import Path

from engine.errors import ForbiddenPathError
from engine.nodes.spec import Folders


def pick_folder(folders: Folders, kind: object) -> Path | None:
    """The folder of a file type on the wire: output, input or temp."""
    match kind:
        case "output":
            return folders.output
        case "input":
            return folders.input
        case "temp":
            return folders.temp
    return None


def split_annotation(name: str) -> tuple[str, str | None]:
    """Take "x.png [output]" apart; the folder is None when the name has no such ending."""
    found = re.fullmatch(r"(.*) \[(output|input|temp)\]", name, re.DOTALL)
    return (found[1], found[2]) if found else (name, None)


def resolve(folder: Path, *parts: str) -> Path:
    """The path of `parts` inside `folder`. Raises ForbiddenPathError when it is outside, or no path at all."""
    try:
        root = folder.resolve()
        path = root.joinpath(*parts).resolve()
    except (ValueError, OSError, RuntimeError) as error:
        raise ForbiddenPathError("not a path") from error
    if not path.is_relative_to(root):
        raise ForbiddenPathError("the path leaves its folder")
    try:
        path.exists()
    except OSError as error:  # such as a name that is too long to ask for
        raise ForbiddenPathError("not a path") from error
    return path


def find_annotated(folders: Folders, name: str) -> Path:
    """The file that a value such as LoadImage's names, in input/ unless annotated. Raises ForbiddenPathError."""
    name, kind = split_annotation(name)
    return resolve(pick_folder(folders, kind) or folders.input, name)
