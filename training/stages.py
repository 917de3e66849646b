"""The stages of training the demo model, each taken up where it was left.

For: the text encoder, the autoencoder, the latents of the training set, the denoiser, the decoder once more, and the
report, in this order. Leaves each stage to its module, and flags to `__main__`.
Invariant: FOLDER/state has all that is needed to go on; FOLDER/export/demo has the best model so far.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from training.autoencoder import make_autoencoder, train_autoencoder
from training.denoiser import Painter, read_painter, train_denoiser
from training.export import adopt_model, export_model
from training.latents import encode_scenes
from training.measurement import list_held_out, save_sheet, score_pictures, write_captions
from training.partners import do_once, meet, rank
from training.reading import train_reader
from training.report import draw_report
from training.sampling import paint
from training.states import append_line, load_state, read_lines
from training.vocabulary import read_tokenizer


def train(arguments: argparse.Namespace) -> None:
    """Go through the stages, alone or as one of several processes."""
    torch.set_num_threads(max(1, arguments.threads // arguments.processes))
    state: Path = arguments.folder / "state"
    seed, device = arguments.seed, arguments.device
    if arguments.origin is not None:
        do_once(lambda: adopt(arguments))
    train_reader(state, arguments.reader_steps, seed, device)
    train_autoencoder(state, arguments.autoencoder_steps, seed, device)
    meet()
    encode_scenes(state, read_autoencoder(state).to(device), arguments.pieces, seed, device)
    meet()

    def measure(step: int, painter: Painter, scale: float) -> None:
        measure_model(arguments.folder, read_autoencoder(state).to(device), painter, scale, step, arguments.measured)

    train_denoiser(state, arguments.denoiser_steps, seed, device, measure, arguments.measure_every)
    decoder_end = arguments.autoencoder_steps + arguments.decoder_steps
    train_autoencoder(state, decoder_end, seed, device, frozen_from=arguments.autoencoder_steps)
    if rank() == 0:
        painter, scale = read_painter(state)
        measure(arguments.denoiser_steps, painter.to(device), scale)
        draw_report(arguments.folder)


def adopt(arguments: argparse.Namespace) -> None:
    """Take up the model that `--from` names, unless there is something to go on from."""
    state: Path = arguments.folder / "state"
    if not (state / "denoiser.pt").exists():
        adopt_model(arguments.origin, state, arguments.reader_steps, arguments.autoencoder_steps)


def read_autoencoder(state: Path) -> Any:
    """The averaged autoencoder that a folder of states has."""
    found = load_state(state / "autoencoder.pt")
    if found is None:
        raise FileNotFoundError(f"{state} has no autoencoder")
    autoencoder = make_autoencoder()
    autoencoder.load_state_dict(found["average"])
    return autoencoder.eval().requires_grad_(False)


def measure_model(folder: Path, autoencoder: Any, painter: Painter, scale: float, step: int, amount: int) -> None:
    """Draw `amount` held-out captions of one shape and of two, note the scores, and export the best model so far."""
    tokenizer = read_tokenizer(folder / "state" / "tokenizer")
    scenes = list_held_out(amount, 1) + list_held_out(amount, 2)
    pictures = paint(painter, autoencoder, tokenizer, write_captions(scenes), scale)
    one, one_right = score_pictures(scenes[:amount], pictures[:amount])
    two, two_right = score_pictures(scenes[amount:], pictures[amount:])
    save_sheet(folder / "sheets" / f"{step:06d}.png", pictures, one_right + two_right)
    log = folder / "state" / "scores.jsonl"
    best = max((line["one"]["right"] + line["two"]["right"] for line in read_lines(log)), default=0.0)
    append_line(log, step=step, one=one.as_shares(), two=two.as_shares())
    if one.right + two.right >= best:
        export_model(folder / "export" / "demo", painter, autoencoder, scale)
