"""The vocabulary: a CLIP tokenizer to which every word of the captions is one token.

For: byte pairs merged until each known word is whole. Leaves the words to `captions`.
Invariant: any text has tokens: an unknown word falls into pieces of known ones, down to single letters.
"""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from training.captions import list_words

REGISTERS = 4  # tokens that are always padding: what was read is gathered there
TOKENS = 32  # that the text encoder takes at once: enough for the longest caption, and less to compute than CLIP's 77

START, END = "<|startoftext|>", "<|endoftext|>"

Pair = tuple[str, str]


def learn_merges(words: Sequence[str]) -> list[Pair]:
    """Byte pairs in the order of merging, after which every word is whole (Sennrich et al. 2016, section 3.2)."""
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[Pair] = []
    while pairs := Counter(pair for pieces in spelled for pair in pairwise(pieces)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = [_merge(pieces, best) for pieces in spelled]
    return merges


def write_tokenizer(folder: Path) -> int:
    """Write the files of a CLIPTokenizer to `folder`; the answer is its number of tokens."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    merges = learn_merges(list_words())
    # Single letters first: what CLIP's vocabulary begins with.
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *dict.fromkeys(map("".join, merges)), START, END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    _write_json(folder / "vocab.json", vocabulary)
    rows = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, **special}
    )
    return len(vocabulary)


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder."""
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def encode_captions(tokenizer: Any, captions: Sequence[str]) -> list[list[int]]:
    """Token ids with begin and end, padded with the end to TOKENS; what reaches into the registers is cut."""
    rows = tokenizer(list(captions), add_special_tokens=False, verbose=False)["input_ids"]
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    framed = [[start, *row[: TOKENS - REGISTERS - 2], end] for row in rows]
    return [row + [end] * (TOKENS - len(row)) for row in framed]


def _merge(pieces: list[str], pair: Pair) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
