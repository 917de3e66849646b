"""What the networks of a checkpoint are asked, and that the answers mean what they say."""

import numpy as np
import pytest
import torch

from engine.conditioning import Conditioning
from engine.device import Device
from engine.models import Handle, Models
from engine.pipelines import Decoding, Encoding, Prediction, TextEncoding
from engine.sampling import Evaluation, Guidance

ONES = Conditioning.of(torch.ones(1, 77, 32))


@pytest.mark.parametrize(("positive", "negative"), [(1, 1), (2, 1), (3, 2), (7, 5)])
def test_guidance_goes_from_the_negative_towards_the_positive(
    device: Device, models: Models, positive: int, negative: int
) -> None:
    denoiser = models.denoiser(Handle("tiny", "model"))
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(2, 4, 8, 8, generator=generator)
    sides = [torch.randn(1, 77 * chunks, 32, generator=generator) for chunks in (positive, negative)]

    def predict(first: torch.Tensor, second: torch.Tensor, cfg: float) -> torch.Tensor:
        guidance = Guidance(Conditioning.of(first), Conditioning.of(second), cfg)
        evaluation = Evaluation(latent, 500, guidance, 1.6, "epsilon", 1, 1, True)
        return device.submit(Prediction(denoiser, evaluation)).result(60)

    towards, away = predict(sides[0], sides[0], 1.0), predict(sides[1], sides[1], 1.0)
    assert float((towards - away).abs().max()) > 1e-3
    assert torch.allclose(predict(sides[0], sides[1], 7.5), away + 7.5 * (towards - away), atol=1e-4)
    assert torch.allclose(predict(sides[0], sides[1], 0.0), away, atol=1e-5)


def test_time_matters(device: Device, models: Models) -> None:
    denoiser = models.denoiser(Handle("tiny", "model"))
    latent, guidance = torch.ones(1, 4, 8, 8), Guidance(ONES, ONES, 1.0)
    early, late = (
        device.submit(Prediction(denoiser, Evaluation(latent, time, guidance, 1.0, "epsilon", 1, 1, True))).result(60)
        for time in (999, 1)
    )
    assert not np.allclose(early, late, atol=1e-3)


def test_texts_are_encoded_in_chunks_of_the_encoders_length(device: Device, models: Models) -> None:
    encoder = models.text_encoder(Handle("tiny", "clip"))
    width = 32

    def encode(text: str) -> torch.Tensor:
        return device.submit(TextEncoding.of(encoder, text)).result(60).embedding

    assert encode("").shape == (1, 77, width)
    assert encode("a" * 75).shape == (1, 77, width)
    assert encode("a" * 76).shape == (1, 2 * 77, width)
    assert torch.allclose(encode("a " * 75 + "b c")[:, :77], encode("a " * 75), atol=1e-5)
    assert torch.equal(encode("a Cat"), encode("a  cat"))
    assert not torch.allclose(encode("a cat"), encode("a dog"))
    assert torch.allclose(encode("(a cat:1.0)"), encode("a cat"))
    assert torch.allclose(encode("(a cat:0.0)")[:, 1:5], encode("")[:, 1:5], atol=1e-5), "without weight, as if empty"
    plain, empty = encode("a cat"), encode("")
    assert torch.allclose(encode("a (cat:3)")[0, 2:5], (empty + 3 * (plain - empty))[0, 2:5], atol=1e-4)
    with pytest.raises(ValueError, match="has 3000 tokens, and at most 2400"):
        encode("a " * 3000)
    with pytest.raises(ValueError, match="has 100001 characters"):
        encode(" " * 100_001)


def test_a_picture_has_one_latent(device: Device, models: Models) -> None:
    autoencoder = models.autoencoder(Handle("tiny", "vae"))
    pictures = torch.rand(2, 32, 48, 3, generator=torch.Generator().manual_seed(0))
    latents = device.submit(Encoding(autoencoder, pictures)).result(60)
    assert latents.shape == (2, 4, 4, 6)
    assert torch.equal(latents, device.submit(Encoding(autoencoder, pictures)).result(60))
    alone = device.submit(Encoding(autoencoder, pictures[1:])).result(60)
    assert torch.allclose(latents[1:], alone, atol=1e-5), "in company as alone"


def test_rows_weigh_as_their_pictures_are_large(models: Models) -> None:
    denoiser, autoencoder = models.denoiser(Handle("tiny", "model")), models.autoencoder(Handle("tiny", "vae"))

    def weigh(height: int, width: int) -> list[tuple[int, float]]:
        latent = torch.zeros(3, 4, height // 8, width // 8)
        evaluation = Evaluation(latent, 500, Guidance(ONES, ONES, 7.5), 1.0, "epsilon", 1, 1, True)
        pictures = torch.zeros(3, height, width, 3)
        works = Prediction(denoiser, evaluation), Decoding(autoencoder, latent), Encoding(autoencoder, pictures)
        return [(work.rows, work.weight) for work in works]

    assert weigh(128, 128) == [(6, 1), (3, 1), (3, 1)]
    assert weigh(512, 512) == [(6, 1), (3, 8), (3, 8)]
    assert weigh(1024, 1536) == [(6, 6), (3, 48), (3, 48)]
