"""Asking: what a node needs from the device.

For: a request made and waited for, given up when the prompt is interrupted, and its answer brought to the CPU by the
thread that needs it. Leaves what is asked to `pipelines`.
Invariant: importing this imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.conditioning import Cue
from engine.device import Device
from engine.memory import may_be_lost
from engine.nodes.spec import Context

if TYPE_CHECKING:
    from torch import Tensor


def ask(context: Context, work: Any) -> Any:
    """The answer to `work`, a tensor or a cue. Raises InterruptError when the prompt is interrupted before, or what the
    work raised.
    """
    future = context.service(Device).submit(work)
    with context.interruptible(future):
        answer = future.result()
        if not isinstance(answer, Cue):
            return bring(context, [answer])[0]
        embedding, *rest = bring(context, [answer.embedding, *([] if answer.pooled is None else [answer.pooled])])
        return replace(answer, embedding=embedding, pooled=rest[0] if rest else None)


def bring(context: Context, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors on the CPU. An accelerator that is lost may be seen here first: the device is told to look."""
    from engine.transfer import fetch_all

    try:
        return fetch_all(tensors)
    except RuntimeError as error:
        if may_be_lost(error):
            context.service(Device).doubt()
        raise
