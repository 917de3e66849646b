"""Uploads: files that clients of the passthrough have sent for prompts to come.

Leaves putting them where the engine reads them to the staging of each job. Invariant: a name stands for one file of one
API key; the oldest go when there are more than `MOST`, or more bytes than `ROOM`.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import Any

from converter.core.media import LOADERS
from converter.core.order import Part
from converter.core.template import Place
from converter.core.workflow import Graph, replace_inputs, unwrap

MOST = 256
"""Files that are kept at once; each may need a file handle."""

ROOM = 2**30
"""Bytes that they have together; those that are not small are on the disk."""


class Uploads:
    """The files, by API key and name; a name may have folders in it."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[str, str], Part] = OrderedDict()

    def add(self, scope: str, folder: str, name: str, part: Part, *, overwrite: bool) -> str:
        """Keep a file; the name that it has in its folder: another, where that one stands for other bytes."""
        path, number = PurePosixPath(name), 0
        while True:
            given = f"{path.stem} ({number}){path.suffix}" if number else name
            key = (scope, join(folder, given))
            known = self._files.get(key)
            if overwrite or known is None or known.content.digest == part.content.digest:
                break
            number += 1
        self._files[key] = part
        self._files.move_to_end(key)
        while len(self._files) > MOST or sum(each.content.size for each in self._files.values()) > ROOM:
            self._files.popitem(last=False)
        return given

    def find(self, scope: str, path: str) -> Part | None:
        """A file by its folder and name."""
        return self._files.get((scope, path))

    def place(
        self, scope: str, graph: Graph, declared: Collection[tuple[str, str]]
    ) -> tuple[Graph, Mapping[str, Part]]:
        """The workflow with the files that it names as parts, and these. `declared`: inputs that take uploads, too."""
        values: dict[Place, Any] = {}
        parts: dict[str, Part] = {}
        for node_id, node in graph.items():
            for name, value in node["inputs"].items():
                text = unwrap(value)
                if not isinstance(text, str) or (node["class_type"], name) not in LOADERS.union(declared):
                    continue
                path = text.removesuffix(" [input]")
                part = self.find(scope, path)
                if part is not None:
                    values[node_id, name] = {"part": path}
                    parts[path] = part
        return replace_inputs(graph, values), parts


def join(folder: str, name: str) -> str:
    """The path of a file."""
    return f"{folder}/{name}" if folder else name
