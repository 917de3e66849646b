"""Tokens: what a text encoder is given of a text.

For: token ids with the weights that a text gives to its parts. Leaves the notation to `emphasis`, and frames and chunks
to the encoders.
Invariant: looking for tokens needs no device, and is bounded in time and memory.
"""

import threading
from typing import Any, NamedTuple

from torch import Tensor

from engine.emphasis import read_emphasis

_MAX_CHARACTERS = 100_000  # a bound on the time that one request spends on looking for tokens


class Tokens(NamedTuple):
    """A text as token ids and their weights, both [chunks, tokens]."""

    ids: Tensor
    weights: Tensor


def find_tokens(tokenizer: Any, tokenizing: threading.Lock, text: str, most: int) -> tuple[list[int], list[float]]:
    """Ids and weights of a text, without begin and end. Any thread may ask. Raises ValueError when it is too long.

    Tokenizers may be changed by what they are asked, and refuse it while another thread asks: hence the lock.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"the text has {len(text)} characters, and at most {_MAX_CHARACTERS} are read")
    tokens: list[int] = []
    weights: list[float] = []
    for segment in read_emphasis(text):
        with tokenizing:
            found = tokenizer(segment.text, add_special_tokens=False, verbose=False)["input_ids"]
        tokens += found
        weights += [segment.weight] * len(found)
    if len(tokens) > most:
        raise ValueError(f"the text has {len(tokens)} tokens, and at most {most} are encoded")
    return tokens, weights
