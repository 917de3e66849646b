"""Texts: what the text encoders of a checkpoint make of them.

For: CLIP's chunks and weights, and the hidden states that a family of models is conditioned on. Leaves looking for
tokens to `tokens`, T5 to `t5`, and the order of requests to `device`.
Invariant: what comes out is float32, where `transfer.keep` has it; a chunk is encoded alone.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from engine.conditioning import Cue
from engine.device import Place
from engine.t5 import T5Tower
from engine.tokens import Tokens, find_tokens
from engine.transfer import keep, send

_MAX_CHUNKS = 32  # 2400 tokens: far above any prompt in use, and a bound on one request's memory
# Layers of OpenCLIP's ViT-H as trained: the last is cut off in diffusers' folders, since nothing uses it.
_CUT_DEPTHS = {23: 24}


@dataclass(frozen=True, slots=True, eq=False)
class Tower:
    """A CLIP tokenizer with its text model. One with a projection also sums a text up."""

    tokenizer: Any
    model: Any
    summary: Literal["text_embeds", "pooler_output"] = "text_embeds"  # what sums a text up, if the model has it
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
                told = empty + (told - empty) * send(weights, told.device)[:, :, None]
            summary = None if pooled is None else pooled[start : start + 1]
            encoded.append((told.reshape(1, -1, told.shape[-1]), summary))
            start += len(own)
        return encoded

    def _run(self, place: Place, ids: Tensor, layer: int | None, normed: bool) -> tuple[Tensor, Tensor | None]:
        inner = layer is not None and -layer <= self._depth
        output = self.model(send(ids, place.device), output_hidden_states=inner)
        if layer is not None and inner:
            hidden = output.hidden_states[min(self._depth + 1 + layer, len(output.hidden_states) - 1)]
            if normed:
                hidden = getattr(self.model, "text_model", self.model).final_layer_norm(hidden)
        else:
            hidden = output.last_hidden_state
        pooled = getattr(output, self.summary, None)
        return keep(hidden.float()), None if pooled is None else keep(pooled.float())

    def tokenize(self, text: str) -> Tokens:
        """What the model is given. Any thread may ask. Raises ValueError when the text is too long."""
        room = self._length - 2
        tokens, weights = find_tokens(self.tokenizer, self._tokenizing, text, room * _MAX_CHUNKS)
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


Found: TypeAlias = tuple[Tensor, Tensor | None]  # the hidden states of a text, and what sums it up


def join_states(found: Sequence[Found]) -> Cue:
    """What CLIP's towers say of one text, side by side; the last that sums it up does."""
    length = min(states.shape[1] for states, _ in found)
    summaries = [summary for _, summary in found if summary is not None]
    return Cue(torch.cat([states[:, :length] for states, _ in found], 2), summaries[-1] if summaries else None)


@dataclass(frozen=True, slots=True)
class JoinForSD3:
    """CLIP's towers side by side, made `width` wide, then T5's tokens where there is one; all that CLIP sums up."""

    width: int

    def __call__(self, found: Sequence[Found]) -> Cue:
        summaries = [summary for _, summary in found if summary is not None]
        clip = join_states(found[: len(summaries)]).embedding
        wide = torch.nn.functional.pad(clip, (0, self.width - clip.shape[2]))
        return Cue(torch.cat([wide, *(states for states, _ in found[len(summaries) :])], 1), torch.cat(summaries, 1))


def join_for_flux(found: Sequence[Found]) -> Cue:
    """T5's tokens, and what CLIP sums up."""
    (_, summary), (states, _) = found
    return Cue(states, summary)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class TextEncoder:
    """The towers of a checkpoint, and how what they say of a text becomes a cue.

    `origin` is what this is a variant of, so that it counts as used while this is.
    """

    towers: tuple[Tower | T5Tower, ...]
    layer: int | None = None
    normed: bool = True
    join: Callable[[Sequence[Found]], Cue] = join_states
    names: tuple[str, ...] = ("l", "g")  # of the towers, as ComfyUI has them
    origin: "TextEncoder | None" = None

    def stop(self, layer: int) -> "TextEncoder":
        """The same, stopped after another layer."""
        return replace(self, layer=layer, origin=self)

    def tokenize(self, text: str) -> tuple[Tokens, ...]:
        """What each tower is given. Any thread may ask. Raises ValueError when the text is too long."""
        return tuple(tower.tokenize(text) for tower in self.towers)

    def tokenize_each(self, texts: Mapping[str, str], *, padded: bool = True) -> tuple[Tokens, ...]:
        """The same of a text for each tower, by their names. Not `padded`, an empty one is as short for T5 as can be.

        Texts for CLIP become equally many chunks. Raises ValueError also when a tower is left out.
        """
        if lacking := [name for name, _ in zip(self.names, self.towers, strict=False) if name not in texts]:
            raise ValueError(f"the text encoder is of another kind of model: it needs a text for {lacking[0]!r}")
        found = [
            tower.tokenize(texts[name], filled=padded or bool(texts[name]))
            if isinstance(tower, T5Tower)
            else tower.tokenize(texts[name])
            for name, tower in zip(self.names, self.towers, strict=False)
        ]
        chunks = max(len(tokens.ids) for tokens in found)
        for place, tower in enumerate(self.towers):
            if isinstance(tower, Tower) and (missing := chunks - len(found[place].ids)):
                filling = tower.tokenize("")
                found[place] = Tokens(
                    *(torch.cat([own, *[more] * missing]) for own, more in zip(found[place], filling, strict=True))
                )
        return tuple(found)

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
        return [self.join(own) for own in zip(*found, strict=True)]
