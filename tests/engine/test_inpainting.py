"""The nodes of inpainting, and what becomes of masks on their way to a sampler."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.device import Device
from engine.latents import Latent
from engine.models import Handle, Models
from engine.nodes import inpainting, latents
from tests.engine.contexts import RecordingContext
from tests.engine.test_diffusion_nodes import draw

NODES = {node.class_type: node for family in (inpainting, latents) for node in family.NODES}
VAE = Handle("tiny", "vae")


@pytest.fixture
def context(device: Device, models: Models) -> RecordingContext:
    return RecordingContext(device, models)


def call(context: RecordingContext, class_type: str, **inputs: object) -> Any:
    (value,) = NODES[class_type].function(context, **inputs)
    return value


def encode(
    context: RecordingContext, mask: np.ndarray[Any, Any], grow: int, size: tuple[int, int] = (64, 64)
) -> Latent:
    picture = np.random.default_rng(0).random((1, *size, 3), dtype=np.float32)
    latent = call(context, "VAEEncodeForInpaint", pixels=picture, vae=VAE, mask=mask, grow_mask_by=grow)
    assert isinstance(latent, Latent)
    return latent


def test_what_a_mask_hides_is_encoded_as_grey(context: RecordingContext) -> None:
    picture = np.random.default_rng(0).random((1, 64, 64, 3), dtype=np.float32)
    mask = np.zeros((1, 64, 64), np.float32)
    mask[:, 16:32, 8:24] = 0.7
    hidden = picture.copy()
    hidden[:, 16:32, 8:24] = 0.5
    plain = call(context, "VAEEncode", pixels=hidden, vae=VAE)
    assert torch.allclose(encode(context, mask, 0).samples, plain.samples, atol=1e-5)


@pytest.mark.parametrize(
    ("grow", "before", "after"), [(0, 0, 0), (1, 0, 0), (2, 0, 1), (6, 2, 3), (7, 3, 3), (64, 31, 32)]
)
def test_a_mask_grows_as_in_comfyui(context: RecordingContext, grow: int, before: int, after: int) -> None:
    mask = np.zeros((1, 64, 64), np.float32)
    mask[0, 30, 20] = 1
    found = encode(context, mask, grow).noise_mask
    assert found is not None
    expected = torch.zeros(1, 1, 64, 64)
    expected[..., max(0, 30 - before) : 30 + after + 1, max(0, 20 - before) : 20 + after + 1] = 1
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("value", "drawn"), [(0.4, 0), (0.5, 0), (0.51, 1)])
def test_a_mask_is_rounded(context: RecordingContext, value: float, drawn: int) -> None:
    found = encode(context, np.full((1, 64, 64), value, np.float32), 6).noise_mask
    assert found is not None
    assert torch.equal(found, torch.full_like(found, drawn))


def test_a_mask_of_another_size_is_fitted_and_cropped_with_its_picture(context: RecordingContext) -> None:
    mask = np.zeros((1, 35, 34), np.float32)
    mask[:, :, 17:] = 1
    latent = encode(context, mask, 0, (70, 68))
    assert latent.samples.shape == (1, 4, 8, 8)
    assert latent.noise_mask is not None
    assert latent.noise_mask.shape == (1, 1, 64, 64)
    assert latent.noise_mask[0, 0, 0].tolist() == [0] * 32 + [1] * 32


def test_a_mask_is_laid_on_latents(context: RecordingContext) -> None:
    empty = Latent.of(torch.zeros(3, 4, 8, 8))
    mask = np.random.default_rng(0).random((2, 64, 64), dtype=np.float32)
    latent = call(context, "SetLatentNoiseMask", samples=empty, mask=mask)
    assert latent.samples is empty.samples
    fitted = latent.fit_mask()
    assert fitted.shape == (3, 1, 8, 8)
    assert torch.equal(fitted[0], fitted[2]), "masks are taken in turn"
    assert not torch.equal(fitted[0], fitted[1])
    assert empty.fit_mask() is None


def test_a_sampler_keeps_what_a_mask_leaves_out_and_draws_the_rest(context: RecordingContext, models: Models) -> None:
    before = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = np.zeros((1, 64, 64), np.float32)
    mask[:, 16:48, 32:] = 1
    drawn = torch.zeros(1, 4, 8, 8, dtype=torch.bool)
    drawn[:, :, 2:6, 4:] = True
    latent = call(context, "SetLatentNoiseMask", samples=Latent.of(before), mask=mask)
    first, second = (draw(context, latent, seed=seed).samples for seed in (5, 6))
    scale = models.denoiser(Handle("tiny", "model")).scale
    kept = scale.leave(scale.enter(before))  # the same but for how a float is rounded on the way
    assert torch.allclose(kept, before, rtol=1e-6)
    for found in (first, second):
        assert torch.equal(found[~drawn], kept[~drawn])
        assert float((found - before)[drawn].abs().mean()) > 0.3
    assert float((first - second)[drawn].abs().mean()) > 0.3


@settings(max_examples=30)
@given(items=st.integers(1, 4), masks=st.integers(1, 5), amount=st.integers(1, 3))
def test_repeated_items_keep_their_masks(items: int, masks: int, amount: int) -> None:
    mask = torch.arange(masks, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    latent = Latent(torch.zeros(items, 4, 8, 8), range(items), mask)
    before, after = latent.fit_mask(), latent.repeat(amount).fit_mask()
    assert before is not None
    assert after is not None
    assert torch.equal(after, before.repeat(amount, 1, 1, 1))


def test_limits_are_comfyuis() -> None:
    assert NODES["VAEEncodeForInpaint"].required["grow_mask_by"].options == {
        "default": 6,
        "min": 0,
        "max": 64,
        "step": 1,
    }
    shown = NODES["InpaintModelConditioning"]
    assert list(shown.required) == ["positive", "negative", "vae", "pixels", "mask", "noise_mask"]
    assert shown.required["noise_mask"].options["default"] is True
    assert [(output.type, output.name) for output in shown.outputs] == [
        ("CONDITIONING", "positive"),
        ("CONDITIONING", "negative"),
        ("LATENT", "latent"),
    ]
    tiled = NODES["VAEDecodeTiled"].required
    assert {
        name: tuple(tiled[name].options[key] for key in ("default", "min", "max", "step")) for name in list(tiled)[2:]
    } == {
        "tile_size": (512, 64, 4096, 32),
        "overlap": (64, 0, 4096, 32),
        "temporal_size": (64, 8, 4096, 4),
        "temporal_overlap": (8, 4, 4096, 4),
    }


def decode_tiled(context: RecordingContext, latent: Latent, tile_size: int, overlap: int) -> Any:
    sizes = {"tile_size": tile_size, "overlap": overlap, "temporal_size": 64, "temporal_overlap": 8}
    return call(context, "VAEDecodeTiled", samples=latent, vae=VAE, **sizes)


def test_a_picture_of_one_tile_is_decoded_as_a_whole(context: RecordingContext) -> None:
    latent = Latent.of(torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(0)))
    assert np.allclose(
        decode_tiled(context, latent, 512, 64), call(context, "VAEDecode", samples=latent, vae=VAE), atol=1e-6
    )


def test_tiles_are_decoded_one_by_one_and_told_of(context: RecordingContext) -> None:
    latent = Latent.of(torch.randn(2, 4, 16, 12, generator=torch.Generator().manual_seed(0)))
    picture = decode_tiled(context, latent, 64, 64)
    assert picture.shape == (2, 128, 96, 3)
    assert [(value, maximum) for value, maximum, _ in context.reports] == [(each, 12) for each in range(1, 13)]
    corner = Latent.of(latent.samples[..., :8, :8])
    alone = call(context, "VAEDecode", samples=corner, vae=VAE)
    assert np.allclose(picture[:, :32, :32], alone[:, :32, :32], atol=1e-5), "outside of the seams a tile is as it is"
