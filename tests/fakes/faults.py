"""What can be wrong with the fake engine, as one dataclass whose defaults mean a healthy one.

Every field is read at the moment it matters, so a test may change it while the engine runs. Fields that say "the
next N" count down by themselves; `True` stands for one. What a healthy ComfyUI does by itself is no fault and needs
no field: history after `execution_success`, the deaf twin of a client id, prompts that kill the worker, 200 with
`node_errors`.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass
class Faults:
    """Seconds are floats, sizes are bytes."""

    late_history: float = 0.0
    """Between `execution_success` and the history record; the prompt stays in `queue_running` meanwhile, as in
    ComfyUI.
    """
    missing_history: int = 0
    """The next N finished prompts leave no record."""
    success_before_answer: int = 0
    """The next N posts of a prompt are answered only after its last message was sent."""
    answer_lost: int = 0
    """The next N prompts are accepted, then the connection is cut without an answer."""
    exit_on_post: int = 0
    """The next N prompts are accepted, then the process ends without an answer."""
    post_500: int = 0
    """The next N posts of a prompt are answered 500 and nothing is queued."""
    refuse_connections: bool = False
    """New connections are reset at once; those that exist live on."""
    held_path: str = ""
    """Requests to paths that begin so are noted, and wait until this is changed and the engine told to `release`."""
    drop_socket_at: int | None = None
    """The socket that would get the Nth message from here on is cut in place of it (1: the next one)."""
    deaf_socket: int = 0
    """The next N sockets get their first status and then nothing."""
    dead_worker: Literal["", "running", "pending"] = ""
    """`running`: the next prompt taken stays for ever, and the worker is gone. `pending`: nothing is taken while this
    is set.
    """
    duplicate_events: bool = False
    """Every message of a run comes twice."""
    foreign_events: bool = False
    """Before each message of a run: the same one of another prompt, a TEXT binary, and a preview without metadata."""
    huge_message: int = 0
    """Before each node of a run, a binary and a text message of this size."""
    nan_in_json: bool = False
    """Every ui output holds a bare NaN, which is no valid JSON."""
    out_of_memory: int = 0
    """The next N prompts fail in their first node, as when the accelerator's memory is full."""
    view_slow: float = 0.0
    """Pause in the middle of every file."""
    view_missing: int = 0
    """The next N files asked for are gone (404)."""
    view_wrong_length: int = 0
    """The next N files announce ten bytes more than they have."""
    view_truncated: int = 0
    """The next N files break off in the middle."""
    broken_path: str = ""
    """Requests to paths that begin so are noted and answered 500."""
    evicted_history: int = 0
    """After the next N finished prompts all records are gone, theirs too."""
    ignore_prompt_id_on_interrupt: bool = False
    """`/interrupt` with a prompt id stops whatever runs, as older versions do."""
    stray_interrupt: int = 0
    """The next N interrupts by id hit the prompt after the one that they name: check and flag are two steps."""

    def take(self, name: str) -> bool:
        """Whether the counting fault `name` strikes here; counts it down."""
        left = int(getattr(self, name))
        if left > 0:
            setattr(self, name, left - 1)
        return left > 0
