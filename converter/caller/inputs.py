"""What to run, as a command line says it: a file with a workflow or the name of a template, and `--set` for its inputs.

Leaves types to `core.assignments`, and sending to the client. Invariant: every word that is wrong is told at once, and
before anything is sent.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from converter.core.assignments import Upload, Wrong, read_input, read_place, split, takes_file


class Unusable(Exception):
    """What was given can't be used; `lines` say why. `malformed`: it was read, and is not what it should be."""

    def __init__(self, *lines: str, malformed: bool = False) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.malformed = malformed


def is_file(work: str) -> bool:
    """Whether it names a file with a workflow, and no template: standard input, a path, `.json`, or a file that is
    there.
    """
    return work == "-" or "/" in work or work.endswith(".json") or Path(work).is_file()


def read_workflow(path: str) -> Any:
    """The JSON of a file, of standard input for `-`. Raises Unusable."""
    try:
        return json.loads(sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise Unusable(f"can't read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{path} is not JSON: {error}", malformed=True) from None


def change(workflow: Any, words: Sequence[str]) -> tuple[Any, dict[str, Path]]:
    """The workflow with `node.input=value` in it, and the files that it refers to, by part. Raises Unusable."""
    parts = _Parts()
    if not words:
        return workflow, parts.files
    nodes = workflow.values() if isinstance(workflow, dict) else [None]
    if not all(isinstance(node, dict) and isinstance(node.get("inputs", {}), dict) for node in nodes):
        raise Unusable("--set needs a workflow in API format", malformed=True)
    changed = {node_id: {**node, "inputs": {**node.get("inputs", {})}} for node_id, node in workflow.items()}

    def assign(name: str, text: str) -> None:
        (node_id, key), value = read_place(workflow, name, text)
        changed[node_id]["inputs"][key] = parts.take(value)

    _assign(words, assign)
    return changed, parts.files


def fill(described: Mapping[str, Any], words: Sequence[str]) -> tuple[dict[str, Any], dict[str, Path]]:
    """A template's inputs from `name=value`, and the files that they refer to, by part. Raises Unusable."""
    parts = _Parts()
    inputs: dict[str, Any] = {}
    schema = _find_schema(described)

    def assign(name: str, text: str) -> None:
        inputs[name] = parts.take(read_input(schema, name, text))

    _assign(words, assign)
    return inputs, parts.files


def find_unsent(described: Mapping[str, Any], words: Sequence[str]) -> Iterator[str]:
    """A sentence for each word that names a file that is here, as one that the engine should have."""
    schema = _find_schema(described)
    for word in words:
        name, _, text = word.partition("=")
        with suppress(OSError):  # a text that can't be a path, such as base64
            takes = takes_file(schema, name) and not text.startswith("@")
            if takes and Path(text).is_file():
                yield f"--set {word} names a file of the engine's; --set {name}=@{text} sends the one that is here"


def _find_schema(described: Mapping[str, Any]) -> Mapping[str, Any]:
    schema = described.get("inputs")
    return schema if isinstance(schema, dict) else {}


class _Parts:
    """The files to be sent; one that is named twice is sent once."""

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}
        self._parts: dict[str, str] = {}

    def take(self, value: Any) -> Any:
        """The value as it is sent; raises Wrong for a file that can't be read."""
        if not isinstance(value, Upload):
            return value
        part = self._parts.get(value.path, f"file-{len(self.files) + 1}")
        try:
            with Path(value.path).open("rb"):
                pass
        except OSError as error:
            raise Wrong(f"can't read {value.path}: {error.strerror}") from None
        self._parts[value.path] = part
        self.files[part] = Path(value.path)
        return {"part": part}


def _assign(words: Sequence[str], assign: Callable[[str, str], None]) -> None:
    lines, seen = [], set()
    for word in words:
        try:
            name, text = split(word)
            if name in seen:
                raise Wrong("is set twice")
            seen.add(name)
            assign(name, text)
        except Wrong as error:
            lines.append(f"--set {word.partition('=')[0]}: {error}")
    if lines:
        raise Unusable(*lines)
