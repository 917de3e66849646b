"""Reading: the text encoder, which learns what captions say before anything is drawn.

For: its architecture, and minutes of training on captions alone, which spare the denoiser hours. Leaves words to
`captions` and pictures to the denoiser.
Invariant: seeded: step n sees the same captions in every run. The last REGISTERS tokens of every text are padding; as
they see all that comes before, what was read is gathered there.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.captions import write_caption, write_nothing
from training.partners import do_once, own_share
from training.scenes import COLOURS, LAYOUTS, PLACES, SHAPES, SIZES, Scene, draw_scene
from training.states import Journal, Trainee, load_state, pace
from training.vocabulary import REGISTERS, TOKENS, encode_captions, read_tokenizer, write_tokenizer

WIDTH = 128  # of text embeddings
_BATCH = 64
_RATE = 2e-3
DROPPED = 0.1  # of the captions say nothing, for guidance

# What each register has to tell, as the number of answers to each question; 0 is that nothing is said.
_ORDERS = {frozenset(layout): number for number, layout in enumerate(LAYOUTS, start=len(PLACES) + 1)}
_GROUND = (len(COLOURS) + 1, len(PLACES) + len(LAYOUTS) + 1)
_FIGURE = (len(SHAPES) + 1, len(COLOURS) + 1, len(SIZES) + 1, len(PLACES) + len(LAYOUTS) + 1)
_QUESTIONS = (_GROUND, _FIGURE, _FIGURE, (*_FIGURE[:3], *_FIGURE[:3], *_GROUND))


def make_text_encoder(tokens: int) -> Any:
    """A fresh CLIPTextModel for a vocabulary of `tokens`, whose last two are begin and end."""
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=tokens,
            hidden_size=WIDTH,
            intermediate_size=3 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=tokens - 2,
            eos_token_id=tokens - 1,
            pad_token_id=tokens - 1,
            initializer_factor=2.0,
        )
    )


class Reader(nn.Module):
    """A text encoder with the questions that its registers are asked."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.text_encoder = make_text_encoder(tokens)
        self.heads = nn.ModuleList(nn.Linear(WIDTH, sum(questions)) for questions in _QUESTIONS)

    def forward(self, ids: Tensor) -> list[Tensor]:
        """The answers to all questions, as logits [batch, answers] each."""
        states = self.text_encoder(ids)[0][:, -REGISTERS:]
        answers: list[Tensor] = []
        for register, (head, questions) in enumerate(zip(self.heads, _QUESTIONS, strict=True)):
            answers += head(states[:, register]).split(questions, dim=1)
        return answers


def list_answers(scene: Scene | None) -> list[int]:
    """The right answers for a caption of `scene`, or of nothing; the figure on the left or on top comes first."""
    if scene is None:
        return [0] * sum(map(len, _QUESTIONS))
    figures = sorted(scene.figures, key=lambda figure: figure.place in ("right", "bottom"))
    places = [figure.place for figure in figures]
    order = PLACES.index(places[0]) + 1 if len(places) == 1 else _ORDERS[frozenset(places)]
    ground = [list(COLOURS).index(scene.background) + 1, order]
    told = [
        [SHAPES.index(figure.shape) + 1, list(COLOURS).index(figure.colour) + 1, SIZES.index(figure.size) + 1]
        for figure in figures
    ]
    told += [[0, 0, 0]] * (2 - len(told))
    return [*ground, *told[0], order, *told[1], order, *told[0], *told[1], *ground]


def train_reader(folder: Path, steps: int, seed: int = 0, device: str = "cpu") -> None:
    """Train until `steps`, taking up what is in `folder`."""
    torch.manual_seed(seed)
    tokens = do_once(lambda: write_tokenizer(folder / "tokenizer"))
    tokenizer = read_tokenizer(folder / "tokenizer")
    reader = Reader(tokens)
    trainee = Trainee(reader, folder / "reader.pt", _RATE, device)
    journal = Journal(folder / "reader.jsonl", 50)
    while trainee.step < steps:
        ids, wanted = (part[own_share()] for part in _draw_batch(seed, trainee.step, tokenizer))
        answers = reader(ids.to(device))
        pairs = list(zip(answers, wanted.to(device).unbind(1), strict=True))
        loss = torch.stack([functional.cross_entropy(answer, right) for answer, right in pairs]).sum()
        known = torch.stack([answer.argmax(1) == right for answer, right in pairs]).all(0).float().mean()
        trainee.learn(loss, pace(trainee.step, steps))
        last = trainee.step == steps
        journal.note(trainee.step, last, loss=loss.item(), known=known.item())
        trainee.keep(last)


def read_reader(folder: Path) -> dict[str, Tensor]:
    """The averaged weights of the text encoder that has learned to read."""
    found = load_state(folder / "reader.pt")
    if found is None:
        raise FileNotFoundError(f"{folder} has no reader")
    prefix = "text_encoder."
    return {name[len(prefix) :]: value for name, value in found["average"].items() if name.startswith(prefix)}


def _draw_batch(seed: int, step: int, tokenizer: Any) -> tuple[Tensor, Tensor]:
    """Token ids of captions, and the right answers [batch, questions]."""
    chance = random.Random(f"reader {seed} {step}")
    scenes: Sequence[Scene | None] = [None if chance.random() < DROPPED else draw_scene(chance) for _ in range(_BATCH)]
    captions = [write_caption(chance, scene) if scene else write_nothing(chance) for scene in scenes]
    return torch.tensor(encode_captions(tokenizer, captions)), torch.tensor([list_answers(scene) for scene in scenes])
