"""Asking: what a node needs from the device.

For: a request made and waited for, given up when the prompt is interrupted. Leaves what is asked to `pipelines`.
Invariant: importing this imports no torch.
"""

from __future__ import annotations

from typing import Any

from engine.device import Device
from engine.nodes.spec import Context


def ask(context: Context, work: Any) -> Any:
    """The answer to `work`. Raises InterruptError when the prompt is interrupted before, or what the work raised."""
    future = context.service(Device).submit(work)
    with context.interruptible(future):
        return future.result()
