"""Latents: what travels between nodes as LATENT.

For: the latents of a batch, which noise each item gets, and which part of it is to be drawn. Leaves making and using
them to the nodes.
Invariant: a value, never changed; each item has an index.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from torch import Tensor

FACTOR = 8  # a picture's side to its latent's
_INDEX = 64  # bytes of a number and its place in a list, generously


@dataclass(frozen=True, slots=True)
class Scale:
    """Between an autoencoder's latents and a model's, which are those less `shift`, times `factor`."""

    factor: float
    shift: float = 0.0

    def enter(self, latents: "Tensor") -> "Tensor":
        """The autoencoder's latents as the model has them."""
        return (latents - self.shift) * self.factor

    def leave(self, latents: "Tensor") -> "Tensor":
        """The model's latents as the autoencoder has them."""
        return latents / self.factor + self.shift


@dataclass(frozen=True, slots=True, eq=False)
class Latent:
    """`samples` [batch, channels, height, width], float32 on the CPU, in the autoencoder's scale.

    `indices` has one number for each item, which is added to a sampler's seed: an item keeps its noise in whatever
    batch it is drawn (ComfyUI's `batch_index`).

    `noise_mask` [any, 1, any, any] is 1 where a sampler is to draw and 0 where it is to keep what there is. It is
    fitted to the samples when they are drawn, so that it may have the size of the picture.
    """

    samples: "Tensor"
    indices: Sequence[int]
    noise_mask: "Tensor | None" = None

    @property
    def size(self) -> int:
        """Bytes of the batch where every item has memory of its own."""
        return self.samples.numel() * self.samples.element_size() + _INDEX * len(self.indices)

    @classmethod
    def of(cls, samples: "Tensor") -> Self:
        """A batch that is numbered from 0."""
        return cls(samples, range(len(samples)))

    def repeat(self, amount: int) -> Self:
        """The whole batch `amount` times over, each time with new indices."""
        offset = max(self.indices) - min(self.indices) + 1
        indices = [index + turn * offset for turn in range(amount) for index in self.indices]
        mask = self.noise_mask
        if mask is not None and len(mask) > 1:
            mask = cycle(mask, len(self.samples)).repeat(amount, 1, 1, 1)
        return type(self)(self.samples.repeat(amount, 1, 1, 1), indices, mask)

    def fit_mask(self) -> "Tensor | None":
        """The mask as [batch, 1, height, width] of the samples, the masks taken in turn where there are fewer."""
        if self.noise_mask is None:
            return None
        from torch.nn.functional import interpolate

        fitted = interpolate(self.noise_mask, size=self.samples.shape[2:], mode="bilinear")
        return cycle(fitted, len(self.samples))


def cycle(items: "Tensor", size: int) -> "Tensor":
    """As many items as a batch has, taken in turn where there are fewer."""
    return items.repeat(-(-size // len(items)), 1, 1, 1)[:size]
