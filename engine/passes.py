"""Passes: rows put through a network, as many at a time as it bears.

For: splitting what is asked into parts. Leaves how many rows that are to `device`.
Invariant: the order of rows is kept.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def run_split(run: Callable[..., Tensor], limit: int, *rows: Tensor) -> Tensor:
    """What `run` makes of rows, at most `limit` of them at a time."""
    if len(rows[0]) <= limit:
        return run(*rows)
    return torch.cat([run(*part) for part in zip(*(torch.split(tensor, limit) for tensor in rows), strict=True)])
