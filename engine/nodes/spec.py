"""What a node is: a frozen declaration and a plain function.

The declaration answers /object_info and validation; the function does the work. A node's function is called as
`function(context, **inputs)` on a worker thread, once per element where inputs are lists, and returns a tuple with one
value per output, or a `Result` when it also has something to show (`ui`).

Values on links: IMAGE is numpy float32 [B, H, W, C] in 0..1, MASK numpy float32 [B, H, W]; other types are opaque to
all but the nodes that make and take them. Nodes never change a value they were given: the cache holds it too.

Invariant: this module imports neither torch nor aiohttp, so that /object_info is answered before either is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

S = TypeVar("S")

MAX_RESOLUTION = 16384  # pixels of a side, ComfyUI's
METADATA = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}  # what nodes that save write into their files


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the engine reads and writes. `models` has one subfolder per kind of model, such as `checkpoints`."""

    models: Path
    input: Path
    output: Path
    temp: Path


class Preview(NamedTuple):
    """An encoded picture of work in progress.

    A reader that cannot keep up gets the latest only, unless the picture is a result in itself.
    """

    format: Literal["jpeg", "png"]
    data: bytes
    result: bool = False


def measure(count: int, height: int, width: int, channels: int = 3) -> int:
    """Bytes of an IMAGE [count, height, width, channels], and of what else is float32 with such sides."""
    return 4 * count * height * width * channels


class Context(Protocol):
    """What a node's function receives as its first argument. It is of one node of one prompt."""

    @property
    def node_id(self) -> str: ...

    @property
    def prompt_id(self) -> str: ...

    @property
    def prompt(self) -> Mapping[str, object]:
        """The whole graph as validated: node id -> {"class_type", "inputs"}. Not to be changed."""

    @property
    def prompt_text(self) -> str:
        """The same graph as JSON."""

    @property
    def extra_pnginfo(self) -> Mapping[str, object] | None:
        """What the caller wants in PNG chunks, usually {"workflow": ...}."""

    @property
    def previews(self) -> bool:
        """Whether previews are wanted; making them costs time."""

    @property
    def folders(self) -> Folders: ...

    def service(self, kind: type[S]) -> S:
        """The one instance of `kind` that the engine was composed with, such as the device or the models.

        Raises LookupError when the engine runs without it.
        """

    def progress(self, value: float, maximum: float, preview: Preview | None = None) -> None:
        """Tell how far the node is; `value` runs to `maximum`. Call it once per step, from any thread.

        Raises InterruptError when the prompt has been interrupted.
        """

    def check(self) -> None:
        """Raise InterruptError when the prompt has been interrupted, and do nothing else."""

    def claim(self, size: int) -> None:
        """Call it before making values of `size` bytes that may be much larger than what was given.

        Raises TooLargeError when the prompt would hold more than it may.
        """

    def interruptible(self, future: Future[Any]) -> AbstractContextManager[None]:
        """While the context is open an interrupt cancels `future`, and waiting for it then raises InterruptError.

        A context that is left by an error cancels it too: nobody waits for it any more.
        """


Choices = Sequence[str] | Callable[[Folders], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Input:
    """One input.

    `type` as on the wire ("INT", "FLOAT", "STRING", "BOOLEAN" are widgets and converted; others are links; "*" takes
    anything). With `choices` the input is a combo and `type` is ignored; choices that depend on files are a callable.
    `options` is handed to /object_info as it is (default, min, max, step, round, tooltip, multiline, ...); min and max
    are also enforced. `check` stands in place of list and range checks: it returns a complaint, or None.
    """

    type: str = "COMBO"
    options: Mapping[str, object] = field(default_factory=dict)
    choices: Choices | None = None
    check: Callable[[Folders, object], str | None] | None = None

    def listed(self, folders: Folders) -> list[str] | None:
        """The choices at this moment, or None when the input is no combo."""
        if self.choices is None:
            return None
        return list(self.choices(folders) if callable(self.choices) else self.choices)


@dataclass(frozen=True, slots=True)
class Output:
    """One output: its type, its shown name (the type when empty), and whether it is a list of values."""

    type: str
    name: str = ""
    is_list: bool = False
    tooltip: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """Outputs and what to show. `ui` maps a kind ("images", "text", ...) to a JSON list."""

    values: tuple[object, ...] = ()
    ui: Mapping[str, Sequence[object]] | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """The declaration of a node class.

    `hidden` is told to /object_info (name -> "PROMPT", "EXTRA_PNGINFO", "UNIQUE_ID"); the values are in the context.
    A node with a UNIQUE_ID shares no cache entry with twins. `is_changed(folders, constants)` adds to the cache key;
    None, NaN or an exception means that the node is never cached. With `input_is_list` the function gets all inputs as
    lists and is called once.
    """

    class_type: str
    function: Callable[..., tuple[object, ...] | Result]
    category: str
    required: Mapping[str, Input] = field(default_factory=dict)
    optional: Mapping[str, Input] = field(default_factory=dict)
    hidden: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[Output, ...] = ()
    output_node: bool = False
    input_is_list: bool = False
    display_name: str = ""
    description: str = ""
    is_changed: Callable[[Folders, Mapping[str, object]], object] | None = None

    def input(self, name: str) -> Input | None:
        """The declaration of an input, or None when the class has none of that name."""
        return self.required.get(name) or self.optional.get(name)
