"""Requests that wait together and must not share a pass: each is answered by its own network, as if it were alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.conditioning import Conditioning, Cue
from engine.device import Device
from engine.models import Handle, Models
from engine.nodes.conditioning import NODES
from engine.noise import seed_items
from engine.pipelines import Decoding, Encoding, Prediction, TextEncoding, predict_all
from engine.sampling import Evaluation, Guidance, Sampling
from engine.schedules import space_sigmas
from engine.tiny import build_tiny
from engine.transfer import fetch
from tests.engine.contexts import RecordingContext
from tests.engine.test_device import hold_back
from tests.engine.waiting import PATIENCE

NAMES = "first", "second"
(SET_LAST_LAYER,) = [node for node in NODES if node.class_type == "CLIPSetLastLayer"]


def draw(*shape: int) -> Tensor:
    """The same numbers for each checkpoint."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


GUIDANCE = Guidance(Conditioning.of(draw(1, 77, 32)), Conditioning.of(torch.zeros(1, 77, 32)), 7.5)


@pytest.fixture(scope="module")
def pair(device: Device, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Models with two checkpoints that differ in nothing but their weights."""
    folder: Path = tmp_path_factory.mktemp("pair")
    for seed, name in enumerate(NAMES):
        build_tiny(folder / "checkpoints" / name, seed)
    return Models(device, folder)


def predict(models: Models, name: str) -> Prediction:
    evaluation = Evaluation(draw(1, 4, 8, 8), 500, GUIDANCE, 1.6, "epsilon", 1, 1, True)
    return Prediction(models.denoiser(Handle(name, "model")), evaluation)


def decode(models: Models, name: str) -> Decoding:
    return Decoding(models.autoencoder(Handle(name, "vae")), draw(1, 4, 8, 8))


def encode(models: Models, name: str) -> Encoding:
    return Encoding(models.autoencoder(Handle(name, "vae")), draw(1, 64, 64, 3).sigmoid())


def encode_text(models: Models, name: str) -> TextEncoding:
    return TextEncoding.of(models.text_encoder(Handle(name, "clip")), "a red circle")


def answer(device: Device, works: list[Any]) -> list[Tensor]:
    """The answers to requests that reach the device together."""
    hold = hold_back(device)
    futures = [device.submit(work) for work in works]
    hold.release.set()
    answers = [future.result(PATIENCE) for future in futures]
    return [fetch(each.embedding if isinstance(each, Cue) else each) for each in answers]


def check(together: list[Tensor], alone: list[Tensor]) -> None:
    """Each is what it is alone, and not what its neighbour is."""
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)
    for found, expected in zip(together, alone, strict=True):
        assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("ask", [predict, decode, encode, encode_text])
def test_what_two_checkpoints_are_asked_together_each_answers_by_its_own_network(
    device: Device, pair: Models, ask: Callable[[Models, str], Any]
) -> None:
    works = [ask(pair, name) for name in NAMES]
    check(answer(device, works), [answer(device, [work])[0] for work in works])


def test_pictures_of_two_checkpoints_are_drawn_side_by_side_as_alone(device: Device, pair: Models) -> None:
    def begin(name: str) -> Any:
        denoiser = pair.denoiser(Handle(name, "model"))
        sigmas = space_sigmas(denoiser.schedule, "normal", 3)
        latent = torch.zeros(1, 4, 8, 8)
        run = Sampling(latent, seed_items(5, range(1)), "euler", sigmas, denoiser.schedule, "epsilon", GUIDANCE)
        return device.follow(predict_all(denoiser, run), lambda work, answer: None)

    hold = hold_back(device)
    ends = [begin(name) for name in NAMES]
    hold.release.set()
    together = [fetch(end.result(PATIENCE)) for end in ends]
    alone = [fetch(begin(name).result(PATIENCE)) for name in NAMES]
    # In the latents' standard deviation: an untrained model does not bring it down to 1.
    check([latent / alone[0].std() for latent in together], [latent / alone[0].std() for latent in alone])


def test_texts_that_stop_at_two_layers_of_one_encoder_are_encoded_as_alone(device: Device, pair: Models) -> None:
    context: Any = RecordingContext(device, pair)

    def stop(layer: int) -> Any:
        return SET_LAST_LAYER.function(context, clip=Handle(NAMES[0], "clip"), stop_at_clip_layer=layer)

    clips = [clip for layer in (-1, -2) for clip in stop(layer)]
    works = [TextEncoding.of(pair.text_encoder(clip), "a red circle") for clip in clips]
    check(answer(device, works), [answer(device, [work])[0] for work in works])


def test_texts_with_and_without_the_norm_of_one_encoder_are_encoded_as_alone(device: Device, pair: Models) -> None:
    normed = pair.text_encoder(Handle(NAMES[0], "clip", layer=-2))
    works = [TextEncoding.of(encoder, "a red circle") for encoder in (normed, replace(normed, normed=False))]
    check(answer(device, works), [answer(device, [work])[0] for work in works])
