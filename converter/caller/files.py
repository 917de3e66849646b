"""Where outputs go: the file that was named, or files with the outputs' own names in a folder.

Invariant: a file is replaced only if its exact path was given; every other name that is taken gets a number. Names
that come from the service choose no folder and make no hidden file.
"""

import mimetypes
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from converter.client import Output


@dataclass(frozen=True, slots=True)
class Destination:
    """`file`: the path for one output, and the pattern of the names of several; None for their own names."""

    folder: Path
    file: Path | None = None


def choose(path: str | None) -> Destination:
    """What `-o` means: a folder, a file, or (None) the current folder. Raises ValueError if it can't be written to."""
    if path is None:
        return Destination(Path())
    if path == "-":
        raise ValueError("outputs can't go to standard output: name a file or a folder (./- for a file called so)")
    if Path(path).is_dir():
        return Destination(Path(path))
    if path.endswith("/"):
        raise ValueError(f"there is no folder {path}")
    file = Path(path)
    if not file.parent.is_dir():
        raise ValueError(f"there is no folder {file.parent}")
    return Destination(file.parent, file)


def write(outputs: Sequence[Output], destination: Destination) -> Iterator[Path]:
    """Write the outputs of a result; gives the paths.

    Raises OSError, and ValueError for an output without contents.
    """
    for number, output in enumerate(outputs, start=1):
        contents = output.content
        if destination.file is None:
            yield _write_new(destination.folder / _own_name(output), contents)
        elif len(outputs) > 1:
            yield _write_new(destination.file.with_stem(f"{destination.file.stem}-{number}"), contents)
        else:
            destination.file.write_bytes(contents)
            yield destination.file


def _own_name(output: Output) -> str:
    name = PurePosixPath((output.name or "").replace("\\", "/")).name
    name = re.sub(r"[^\w.() +@=,-]", "_", name).lstrip(".")
    if name:
        return name
    node = re.sub(r"\W", "_", output.node_id)
    return f"output-{node}{mimetypes.guess_extension(output.content_type) or ''}"


def _write_new(path: Path, contents: bytes) -> Path:
    """Write a file that did not exist; `picture.png` that did makes it `picture-2.png`."""
    candidate, number = path, 1
    while True:
        try:
            with candidate.open("xb") as file:
                file.write(contents)
        except FileExistsError:
            number += 1
            candidate = path.with_stem(f"{path.stem}-{number}")
        else:
            return candidate
