"""What a node class of the fake engine is: the declaration that validation and `/object_info` read, and a function to
run.

Leaves the classes themselves to `nodes` and `mischief`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.fakes.folders import Folders

InputConfig = tuple[str | list[str], dict[str, Any]]
Ui = dict[str, list[Any]]


class Stage(Protocol):
    """What a running node may do to the world."""

    node_id: str
    prompt: dict[str, Any]
    extra_data: dict[str, Any]

    @property
    def folders(self) -> Folders: ...

    async def progress(self, value: float, maximum: float, preview: bytes | None = None, kind: str = "jpeg") -> None:
        """Reports progress; raises `Interrupted` where ComfyUI's progress hook would."""

    def text(self, text: str) -> None:
        """Sends a TEXT binary to everybody."""

    async def exit(self) -> None:
        """Ends the engine's process, so to speak; never returns."""


@dataclass(frozen=True)
class Done:
    """What a node gives: a value for each output slot, and what history shows of it (None: nothing)."""

    values: tuple[Any, ...] = ()
    ui: Ui | None = None


@dataclass(frozen=True)
class Blocker:
    """In place of a value: whatever takes it does not run, and blocks in turn; `message` is sent as an error, once."""

    message: str | None = None


@dataclass(frozen=True)
class NodeClass:
    """One class of nodes; `required` and `optional` are what `/object_info` and validation show of it."""

    run: Callable[[dict[str, Any], Stage], Awaitable[Done]]
    required: Mapping[str, InputConfig] = field(default_factory=dict)
    optional: Mapping[str, InputConfig] = field(default_factory=dict)
    returns: tuple[str, ...] = ()
    output: bool = False
    fingerprint: Callable[[dict[str, Any], Folders], Any] | None = None
    """Stands for IS_CHANGED: a part of the cache key beside the inputs."""
    reject: Callable[[dict[str, Any], Folders], dict[str, str]] | None = None
    """Stands for VALIDATE_INPUTS: messages by input name; those inputs are not checked against lists and limits."""
    checks: tuple[str, ...] = ()
    """The inputs that `reject` takes over."""


def number(default: int, least: int = 0, most: int = 16384, step: int = 1) -> InputConfig:
    return "INT", {"default": default, "min": least, "max": most, "step": step}


def real(default: float, least: float, most: float) -> InputConfig:
    return "FLOAT", {"default": default, "min": least, "max": most}


def each_time(inputs: dict[str, Any], folders: Folders) -> object:
    """A fingerprint that never repeats."""
    return object()


ANYTHING: InputConfig = ("*", {})
