"""T5: the text encoder that Stable Diffusion 3 and Flux have besides CLIP.

For: texts of any length at once, where CLIP takes chunks. Leaves what becomes of its states to `texts`.
Invariant: what comes out is float32, where `transfer.keep` has it; a text is encoded alone.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engine.device import Place
from engine.tokens import Tokens, find_tokens
from engine.transfer import keep, send

_MAX_TOKENS = 32 * 75  # as many as CLIP's encoders take


@dataclass(frozen=True, slots=True, eq=False)
class T5Tower:
    """A T5 tokenizer with its encoder. A text is filled up to `least` tokens, to which the encoder attends as well."""

    tokenizer: Any
    model: Any
    least: int
    _tokenizing: threading.Lock = field(default_factory=threading.Lock)

    def encode(
        self, place: Place, texts: Sequence[Tokens], limit: int, layer: int | None, normed: bool
    ) -> list[tuple[Tensor, None]]:
        """The hidden states [1, tokens, width] of each text with emphasis, `limit` rows at a time.

        It is always taken as a whole: `layer` and `normed` are for CLIP.
        """
        states: dict[int, Tensor] = {}
        for length in {tokens.ids.shape[1] for tokens in texts}:
            own = [number for number, tokens in enumerate(texts) if tokens.ids.shape[1] == length]
            changed = {number for number in own if bool((texts[number].weights != 1).any())}
            ids = torch.cat([*(texts[number].ids for number in own), *([self._fill([], length)] if changed else [])])
            parts = [self.model(send(part, place.device)).last_hidden_state for part in torch.split(ids, limit)]
            told = torch.split(keep(torch.cat(parts).float()), 1)
            for number, hidden in zip(own, told, strict=False):
                if number in changed:
                    weights, empty = send(texts[number].weights, hidden.device)[:, :, None], told[-1]
                    hidden = empty + (hidden - empty) * weights
                states[number] = hidden
        return [(states[number], None) for number in range(len(texts))]

    def tokenize(self, text: str, *, filled: bool = True) -> Tokens:
        """What the model is given, `filled` up or as short as it is. Raises ValueError when the text is too long."""
        tokens, weights = find_tokens(self.tokenizer, self._tokenizing, text, _MAX_TOKENS)
        length = max(len(tokens) + 1, self.least if filled else 0)
        return Tokens(
            self._fill(tokens, length), torch.tensor([weights + [1.0] * (length - len(tokens))], dtype=torch.float32)
        )

    def _fill(self, tokens: list[int], length: int) -> Tensor:
        """A row [1, length] of tokens, their end, and what fills it up."""
        row = [*tokens, self.tokenizer.eos_token_id]
        return torch.tensor([row + [self.tokenizer.pad_token_id] * (length - len(row))])
