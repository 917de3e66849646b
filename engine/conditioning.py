"""Conditioning: what travels between nodes as CONDITIONING.

For: what to draw, as one or several encoded texts, and the ways to put them together. Leaves encoding to `texts` and
heeding it to `pipelines`.
Invariant: values, never changed; there is at least one cue; tensors are float32 on the CPU.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from torch import Tensor


# Two nodes that join a conditioning with itself double it: a dozen of them would keep a device for minutes a step.
_MAX_CUES = 64
_MAX_TOKENS = 32 * 77


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Cue:
    """One encoded text: `embedding` [1, tokens, width]; `pooled` [1, width] where the encoder sums texts up.

    `guidance` is how far models go that were trained to be told; None leaves it to them. `shown` is what models for
    inpainting are shown beside the noisy latent, as `surroundings` has it; None leaves it to the run.
    """

    embedding: "Tensor"
    pooled: "Tensor | None" = None
    guidance: float | None = None
    shown: "Tensor | None" = None

    @property
    def shapes(self) -> tuple[tuple[int, int], int | None]:
        """What cues that share a pass have in common: tokens and width, and the width of what sums a text up."""
        _, tokens, width = self.embedding.shape
        return (tokens, width), None if self.pooled is None else self.pooled.shape[1]

    def append(self, other: "Cue") -> "Cue":
        """This cue with the other's tokens after its own. Raises ValueError when their widths differ."""
        import torch

        widths = self.embedding.shape[2], other.embedding.shape[2]
        if widths[0] != widths[1]:
            raise ValueError(f"embeddings {widths[0]} and {widths[1]} wide do not go together: their models differ")
        if (tokens := self.embedding.shape[1] + other.embedding.shape[1]) > _MAX_TOKENS:
            raise ValueError(f"a conditioning has at most {_MAX_TOKENS} tokens, and these have {tokens} together")
        return replace(self, embedding=torch.cat([self.embedding, other.embedding], 1))

    def zero_out(self) -> "Cue":
        """A cue of the same shape that says nothing."""
        pooled = None if self.pooled is None else self.pooled.new_zeros(self.pooled.shape)
        return replace(self, embedding=self.embedding.new_zeros(self.embedding.shape), pooled=pooled)


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """Cues that are all heeded at once: the model is asked for each, and its answers are averaged."""

    cues: tuple[Cue, ...]

    @classmethod
    def of(cls, embedding: "Tensor", pooled: "Tensor | None" = None) -> Self:
        """A single cue."""
        return cls((Cue(embedding, pooled),))

    def combine(self, other: Self) -> Self:
        """The cues of both, each for itself. Raises ValueError for more than a model should be asked for each step."""
        if len(self.cues) + len(other.cues) > _MAX_CUES:
            raise ValueError(f"a conditioning has at most {_MAX_CUES} parts")
        return type(self)(self.cues + other.cues)

    def append(self, other: Self) -> Self:
        """Every cue with the tokens of the other's first after its own, as in ComfyUI. Raises ValueError."""
        return type(self)(tuple(cue.append(other.cues[0]) for cue in self.cues))

    def guide(self, guidance: float) -> Self:
        """The same texts, followed as far as `guidance` says."""
        return type(self)(tuple(replace(cue, guidance=guidance) for cue in self.cues))

    def show(self, shown: "Tensor") -> Self:
        """The same texts, with what models for inpainting are shown beside the noisy latent."""
        return type(self)(tuple(replace(cue, shown=shown) for cue in self.cues))

    def zero_out(self) -> Self:
        """Cues of the same shapes that say nothing."""
        return type(self)(tuple(cue.zero_out() for cue in self.cues))
