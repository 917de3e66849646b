"""Layouts: the rows of a pass that say what to draw.

For: not laying out and sending to the device what the same company was told a step before. Leaves what rows are made of
to `networks`.
Invariant: at most `_KEPT` layouts of a model are held, as long as the model; rows are those of exactly these cues, in
this order.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor

from engine.conditioning import Cue
from engine.device import Place

LayOut: TypeAlias = Callable[[Place, Sequence[Cue], Sequence[int]], Sequence[Tensor]]

_KEPT = 2  # a positive and a negative text of two lengths are laid out apart


@dataclass(slots=True, eq=False)
class Layouts:
    """What was laid out last, for a single thread."""

    _held: OrderedDict[object, Sequence[Tensor]] = field(default_factory=OrderedDict)

    def find(self, lay_out: LayOut, place: Place, cues: Sequence[Cue], sizes: Sequence[int]) -> Sequence[Tensor]:
        """The rows of these cues, each as many times as its size says. Raises what `lay_out` raises."""
        key = place, tuple(cues), tuple(sizes)  # cues are equal if they are the same
        if (rows := self._held.pop(key, None)) is None:
            while len(self._held) >= _KEPT:
                self._held.popitem(last=False)
            rows = lay_out(place, cues, sizes)
        self._held[key] = rows
        return rows
