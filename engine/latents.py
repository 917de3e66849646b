"""Latents: what travels between nodes as LATENT.

For: the latents of a batch, and which noise each item gets. Leaves making and using them to the nodes.
Invariant: a value, never changed; each item has an index.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Latent:
    """`samples` [batch, channels, height, width], float32 on the CPU, in the autoencoder's scale.

    `indices` has one number for each item, which is added to a sampler's seed: an item keeps its noise in whatever
    batch it is drawn (ComfyUI's `batch_index`).
    """

    samples: "Tensor"
    indices: Sequence[int]

    @classmethod
    def of(cls, samples: "Tensor") -> Self:
        """A batch that is numbered from 0."""
        return cls(samples, range(len(samples)))

    def repeat(self, amount: int) -> Self:
        """The whole batch `amount` times over, each time with new indices."""
        offset = max(self.indices) - min(self.indices) + 1
        indices = [index + turn * offset for turn in range(amount) for index in self.indices]
        return type(self)(self.samples.repeat(amount, 1, 1, 1), indices)
