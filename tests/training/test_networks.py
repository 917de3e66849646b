"""The networks of the demo model: their sizes, their steps, and the way into the engine."""

import json
import random
from pathlib import Path

import pytest
import torch

from engine.checkpoints import read_part
from engine.latents import Scale
from engine.pipelines import Autoencoder, Denoiser
from engine.shelves import Source
from engine.texts import TextEncoder
from training.autoencoder import make_autoencoder, train_autoencoder
from training.captions import list_words
from training.denoiser import SCHEDULER, Painter, list_alphas, train_denoiser
from training.export import adopt_model, export_model
from training.latents import measure_scale, read_latents, take_fingerprint
from training.reading import list_answers, train_reader
from training.sampling import paint
from training.scenes import draw_scene
from training.states import Average, append_line, load_state, pace, read_lines, save_state
from training.vocabulary import TOKENS, encode_captions, learn_merges, read_tokenizer, write_tokenizer


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A folder with latents as if a few scenes had been encoded."""
    torch.manual_seed(0)
    save_state(tmp_path / "latents-000.pt", {"latents": torch.randn(100, 4, 16, 16).half() * 2})
    train_reader(tmp_path, 1)
    return tmp_path


def test_every_word_is_one_token(tmp_path: Path) -> None:
    size = write_tokenizer(tmp_path)
    tokenizer = read_tokenizer(tmp_path)
    assert len(tokenizer) == size
    ids = tokenizer(list_words(), add_special_tokens=False)["input_ids"]
    assert {len(row) for row in ids} == {1}


def test_unknown_words_fall_into_letters(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = read_tokenizer(tmp_path)
    (row,) = encode_captions(tokenizer, ["A red Xylophone"])
    assert len(row) == TOKENS
    assert tokenizer.decode(row, skip_special_tokens=True).strip() == "a red xylophone"


def test_merges_make_words_whole_even_where_one_begins_another() -> None:
    assert ("re", "d</w>") in learn_merges(["red", "redder", "ring"])


def test_an_autoencoder_starts_by_letting_colours_through_and_is_taken_up(tmp_path: Path) -> None:
    train_autoencoder(tmp_path, 1)
    train_autoencoder(tmp_path, 2)
    state = load_state(tmp_path / "autoencoder.pt")
    assert state is not None
    assert state["step"] == 2
    assert [line["step"] for line in read_lines(tmp_path / "autoencoder.jsonl")] == [1, 2]


def test_a_frozen_encoder_stays_as_the_latents_know_it(tmp_path: Path) -> None:
    train_autoencoder(tmp_path, 1)
    before = load_state(tmp_path / "autoencoder.pt")
    train_autoencoder(tmp_path, 2, frozen_from=1)
    after = load_state(tmp_path / "autoencoder.pt")
    assert before is not None
    assert after is not None
    changed = {name for name, tensor in after["average"].items() if not tensor.equal(before["average"][name])}
    assert changed
    assert all(name.startswith(("decoder.", "post_quant_conv.")) for name in changed)


def test_a_reader_is_taken_up_and_learns(tmp_path: Path) -> None:
    train_reader(tmp_path, 1)
    train_reader(tmp_path, 30)
    losses = [line["loss"] for line in read_lines(tmp_path / "reader.jsonl")]
    assert losses[1] < losses[0]


def test_captions_that_say_the_same_have_the_same_answers() -> None:
    chance = random.Random(6)
    answers = {tuple(list_answers(draw_scene(chance))) for _ in range(300)}
    assert len({len(answer) for answer in answers}) == 1
    assert len(answers) > 290
    assert set(list_answers(None)) == {0}


def test_a_denoiser_is_taken_up_and_measured(state: Path) -> None:
    measured: list[int] = []
    train_denoiser(state, 1)
    train_denoiser(state, 2, measure=lambda step, painter, scale: measured.append(step))
    assert measured == [2]
    found = load_state(state / "denoiser.pt")
    assert found is not None
    assert found["step"] == 2


def test_the_engine_reads_what_is_exported(tmp_path: Path) -> None:
    tokens = write_tokenizer(tmp_path / "tokenizer")
    folder = tmp_path / "demo"
    assert export_model(folder, Painter(tokens), make_autoencoder(), 0.5) <= 16_000_000
    source = Source("demo", folder)
    denoiser, encoder, autoencoder = (read_part(source, "model"), read_part(source, "clip"), read_part(source, "vae"))
    assert isinstance(denoiser, Denoiser)
    assert denoiser.prediction_type == SCHEDULER["prediction_type"] == "v_prediction"
    powers = 1 / (denoiser.schedule.sigmas**2 + 1)
    assert torch.allclose(torch.from_numpy(powers).float(), list_alphas(), atol=1e-6)
    assert isinstance(encoder, TextEncoder)
    assert encoder.towers[0].model.config.max_position_embeddings == TOKENS
    assert isinstance(autoencoder, Autoencoder)
    assert autoencoder.scale == Scale(0.5)


def test_training_goes_on_from_what_is_exported(tmp_path: Path, state: Path) -> None:
    torch.manual_seed(2)
    painter = Painter(write_tokenizer(tmp_path / "tokenizer"))
    export_model(tmp_path / "demo", painter, make_autoencoder(), 0.5)
    adopt_model(tmp_path / "demo", state, 1, 1)
    train_reader(state, 1)
    train_autoencoder(state, 1)
    train_denoiser(state, 1)
    found = load_state(state / "denoiser.pt")
    assert found is not None
    assert json.loads((state / "scale.json").read_text()) == 0.5
    name = "unet.conv_in.weight"
    assert torch.allclose(found["model"][name], painter.state_dict()[name], atol=1e-3)
    name = "text_encoder.embeddings.token_embedding.weight"
    assert found["model"][name].equal(painter.state_dict()[name].half().float())


def test_a_picture_depends_on_its_caption_and_seed_alone(tmp_path: Path) -> None:
    tokens = write_tokenizer(tmp_path)
    torch.manual_seed(1)
    painter, autoencoder = Painter(tokens).eval(), make_autoencoder().eval()
    tokenizer = read_tokenizer(tmp_path)
    one = paint(painter, autoencoder, tokenizer, ["a red star"], 0.5, steps=2)
    two = paint(painter, autoencoder, tokenizer, ["a red star", "a blue ring"], 0.5, steps=2)
    assert abs(one[0].astype(int) - two[0]).max() <= 1
    assert abs(two[1].astype(int) - two[0]).max() > 1


def test_another_encoder_is_told_by_its_fingerprint() -> None:
    autoencoder = make_autoencoder()
    before = take_fingerprint(autoencoder)
    with torch.no_grad():
        autoencoder.decoder.conv_out.weight.add_(1)
    assert take_fingerprint(autoencoder) == before
    with torch.no_grad():
        autoencoder.encoder.conv_out.weight.add_(1)
    assert take_fingerprint(autoencoder) != before


def test_the_scale_brings_latents_to_unit_variance(state: Path) -> None:
    latents = read_latents(state)
    assert float((latents * measure_scale(latents)).var()) == pytest.approx(1, abs=0.02)


def test_averages_follow_weights() -> None:
    module = torch.nn.Linear(2, 2)
    average = Average(module, 0.9)
    with torch.no_grad():
        module.weight.add_(1)
    for step in range(200):
        average.update(module, step)
    assert torch.allclose(average.module.weight, module.weight, atol=1e-4)


def test_the_pace_rises_and_falls() -> None:
    assert pace(0, 1000) < pace(199, 1000)
    assert pace(999, 1000) < 0.05


def test_logs_keep_the_last_line_of_a_step(tmp_path: Path) -> None:
    for loss in (1.0, 2.0):
        append_line(tmp_path / "log.jsonl", step=5, loss=loss)
    assert [line["loss"] for line in read_lines(tmp_path / "log.jsonl")] == [2.0]
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["loss"] == 1.0
