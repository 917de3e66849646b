"""What a node raised, as the caller's fault.

Invariant: any failure makes a fault, and no path or secret of the server gets into it.
"""

from typing import Any

from converter.core.events import Failed
from converter.core.workflow import scrub
from converter.errors import ExecutionFailed, Fault, OutOfMemory

_MEMORY_ERRORS = ("OutOfMemoryError", "OOMError", "OOM_EXCEPTION")


def explain(failure: Failed) -> Fault:
    """A node's exception in the caller's terms. The type tells memory trouble: the text may be the caller's own."""
    where: dict[str, Any] = {"node_id": failure.node_id, "class_type": failure.class_type}
    message = scrub(failure.message)
    if failure.exception_type.rpartition(".")[2] in _MEMORY_ERRORS:
        return OutOfMemory("the engine ran out of accelerator memory", **where)
    return ExecutionFailed(message or "the node gave no reason", exception_type=failure.exception_type or None, **where)
