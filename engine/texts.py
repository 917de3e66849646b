"""Texts: what the text encoders of a checkpoint make of them.

For: tokens in chunks, weights, and the hidden states that a family of models is conditioned on. Leaves the reading of
emphasis to `emphasis` and the order of requests to `device`.
Invariant: what comes out is float32 on the CPU; a chunk is encoded alone; looking for tokens needs no device.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.conditioning import Cue
from engine.device import Place
from engine.emphasis import read_emphasis

_MAX_CHUNKS = 32  # 2400 tokens: far above any prompt in use, and a bound on one request's memory
_MAX_CHARACTERS = 100_000  # a bound on the time that one request spends on looking for tokens
# Layers of OpenCLIP's ViT-H as trained: the last is cut off in diffusers' folders, since nothing uses it.
_CUT_DEPTHS = {23: 24}


class Tokens(NamedTuple):
    """A text as token ids and their weights, both [chunks, tokens]."""

    ids: Tensor
    weights: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Tower:
    """A CLIP tokenizer with its text model. One with a projection also sums a text up."""

    tokenizer: Any
    model: Any
    # Tokenizers may be changed by what they are asked, and refuse it while another thread asks.
    _tokenizing: threading.Lock = field(default_factory=threading.Lock)

    def encode(
        self, place: Place, texts: Sequence[Tokens], limit: int, layer: int | None, normed: bool
    ) -> list[tuple[Tensor, Tensor | None]]:
        """The hidden states [1, tokens, width] of each text with emphasis, and what sums it up [1, width] if anything.

        Layers are counted from the last, -1; None, and a layer before the first, is the last one behind its norm. The
        states of a layer pass the same norm where `normed` says so. `limit` chunks are encoded at a time.
        """
        weighted = [bool((weights != 1).any()) for _, weights in texts]
        ids = torch.cat([*(ids for ids, _ in texts), *([self._frame([])] if any(weighted) else [])])
        parts = [self._run(place, part, layer, normed) for part in torch.split(ids, limit)]
        hidden = torch.cat([states for states, _ in parts])
        summaries = [summary for _, summary in parts if summary is not None]
        pooled = torch.cat(summaries) if summaries else None
        empty, encoded, start = hidden[-1:], [], 0
        for (own, weights), changed in zip(texts, weighted, strict=True):
            told = hidden[start : start + len(own)]
            if changed:
                told = empty + (told - empty) * weights[:, :, None]
            summary = None if pooled is None else pooled[start : start + 1]
            encoded.append((told.reshape(1, -1, told.shape[-1]), summary))
            start += len(own)
        return encoded

    def _run(self, place: Place, ids: Tensor, layer: int | None, normed: bool) -> tuple[Tensor, Tensor | None]:
        inner = layer is not None and -layer <= self._depth
        output = self.model(ids.to(place.device), output_hidden_states=inner)
        if layer is not None and inner:
            hidden = output.hidden_states[min(self._depth + 1 + layer, len(output.hidden_states) - 1)]
            if normed:
                hidden = getattr(self.model, "text_model", self.model).final_layer_norm(hidden)
        else:
            hidden = output.last_hidden_state
        pooled = getattr(output, "text_embeds", None)
        return hidden.to("cpu", torch.float32), None if pooled is None else pooled.to("cpu", torch.float32)

    def tokenize(self, text: str) -> Tokens:
        """What the model is given. Any thread may ask. Raises ValueError when the text is too long."""
        if len(text) > _MAX_CHARACTERS:
            raise ValueError(f"the text has {len(text)} characters, and at most {_MAX_CHARACTERS} are read")
        tokens: list[int] = []
        weights: list[float] = []
        for segment in read_emphasis(text):
            with self._tokenizing:
                found = self.tokenizer(segment.text, add_special_tokens=False, verbose=False)["input_ids"]
            tokens += found
            weights += [segment.weight] * len(found)
        room = self._length - 2
        if len(tokens) > room * _MAX_CHUNKS:
            raise ValueError(f"the text has {len(tokens)} tokens, and at most {room * _MAX_CHUNKS} are encoded")
        starts = range(0, max(1, len(tokens)), room)
        ids = torch.cat([self._frame(tokens[start : start + room]) for start in starts])
        padded = [[1.0, *weights[start : start + room]] for start in starts]
        return Tokens(ids, torch.tensor([chunk + [1.0] * (self._length - len(chunk)) for chunk in padded]))

    def _frame(self, tokens: list[int]) -> Tensor:
        """A chunk [1, tokens] of full length, with its begin and end."""
        tokenizer = self.tokenizer
        chunk = [tokenizer.bos_token_id, *tokens, tokenizer.eos_token_id]
        return torch.tensor([chunk + [tokenizer.pad_token_id] * (self._length - len(chunk))])

    @property
    def _length(self) -> int:
        """Tokens that the model takes at once."""
        return int(self.model.config.max_position_embeddings)

    @property
    def _depth(self) -> int:
        """Layers, as ComfyUI counts them."""
        layers = int(self.model.config.num_hidden_layers)
        return _CUT_DEPTHS.get(layers, layers)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class TextEncoder:
    """The towers of a checkpoint, whose hidden states lie side by side in an embedding."""

    towers: tuple[Tower, ...]
    layer: int | None = None
    normed: bool = True

    def tokenize(self, text: str) -> tuple[Tokens, ...]:
        """What each tower is given. Any thread may ask. Raises ValueError when the text is too long."""
        return tuple(tower.tokenize(text) for tower in self.towers)

    def encode(self, place: Place, texts: Sequence[tuple[Tokens, ...]], limit: int) -> list[Cue]:
        """The cue of each text, as `tokenize` gives it, with its emphasis, `limit` chunks at a time.

        A long text is encoded in chunks that are laid end to end, and summed up by its first. A weight moves its tokens
        away from what an empty text has in their place, or towards it, as in ComfyUI 0.3.64.
        """
        given = zip(*texts, strict=True)
        found = [
            tower.encode(place, own, limit, self.layer, self.normed)
            for tower, own in zip(self.towers, given, strict=True)
        ]
        return [_join(own) for own in zip(*found, strict=True)]


def _join(found: Sequence[tuple[Tensor, Tensor | None]]) -> Cue:
    """What the towers say of one text, side by side; the last that sums it up does."""
    length = min(states.shape[1] for states, _ in found)
    summaries = [summary for _, summary in found if summary is not None]
    return Cue(torch.cat([states[:, :length] for states, _ in found], 2), summaries[-1] if summaries else None)
