"""What can be learned about a prompt: the words in which the link reports and the machines decide.

Sounds are heard on the engine's websocket and say when to look; sights are read over HTTP and say what is. This
file holds the words only: `link/wire.py` makes them from ComfyUI's messages, `evidence.py` weighs them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Began:
    """`execution_start`: the engine's worker has taken the prompt."""


@dataclass(frozen=True, slots=True)
class Cached:
    """`execution_cached`: these nodes will not run again."""

    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entered:
    """`executing` with a node: the (visible) node that runs."""

    node_id: str


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """One node's entry of `progress_state`; `value` and `maximum` are steps, in the node's own unit."""

    node_id: str
    display_node_id: str
    value: float
    maximum: float
    finished: bool


@dataclass(frozen=True, slots=True)
class Advanced:
    """`progress_state`: a complete snapshot of all nodes that were started so far."""

    nodes: tuple[NodeProgress, ...]


@dataclass(frozen=True, slots=True)
class Executed:
    """`executed`: a node's ui output, or None where a twin's cache entry was found."""

    node_id: str
    output: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Succeeded:
    """`execution_success`; ComfyUI writes the history record after it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """`execution_error`. `midway`: the prompt goes on (ExecutionBlocker's message, which has no timestamp)."""

    node_id: str | None
    class_type: str | None
    message: str
    exception_type: str
    midway: bool = False


@dataclass(frozen=True, slots=True)
class Interrupted:
    """`execution_interrupted`, at a node."""

    node_id: str | None


@dataclass(frozen=True, slots=True)
class Released:
    """`executing` with node null: the worker is done with the prompt and its history record is written."""


@dataclass(frozen=True, slots=True)
class Alive:
    """Any other message about the prompt: it says only that the prompt lives."""


Sound = Began | Cached | Entered | Advanced | Executed | Succeeded | Failed | Interrupted | Released | Alive


@dataclass(frozen=True, slots=True)
class Picture:
    """A binary message with an image: a preview, or the output of SaveImageWebsocket.

    `prompt_id` and `node_id` are None for messages without metadata (type 1).
    """

    prompt_id: str | None
    node_id: str | None
    content_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """A history entry. `requested` are the output nodes that the engine undertook to run.

    `success` is what `status_str` says; `failure` and `interrupted` come from its messages, since status_str
    "error" covers failure and interrupt alike, and "success" may stand beside an execution_error.
    """

    success: bool
    outputs: Mapping[str, Any]
    requested: tuple[str, ...] = ()
    failure: Failed | None = None
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class QueueView:
    """One read of `/queue`: ids in the order in which they will run. `asked_at` is when the read was begun."""

    asked_at: float
    running: tuple[str, ...]
    pending: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sight:
    """A look at one prompt: the queue first, then (if it is absent there) its history record."""

    asked_at: float
    running: bool
    pending: bool
    record: Record | None = field(default=None)

    @property
    def absent(self) -> bool:
        """Neither queued nor running nor recorded."""
        return not (self.running or self.pending) and self.record is None
