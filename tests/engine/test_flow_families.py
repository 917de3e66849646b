"""Stable Diffusion 3 and Flux: what is read of them answers, and draws, as diffusers' own pipelines do."""

import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from engine.checkpoints import Placement, read_part
from engine.conditioning import Conditioning, Cue
from engine.device import Device, Place
from engine.errors import ModelError
from engine.latents import Scale
from engine.models import Handle, Models
from engine.noise import draw_noise, seed_items
from engine.pipelines import Decoding, TextEncoding, predict_all
from engine.sampling import Guidance, Sampling
from engine.schedules import space_sigmas
from engine.shelves import Source
from engine.texts import TextEncoder
from tests.engine.families import change
from tests.engine.flow_families import CHANNELS, FLUX_SCALE, SD3_SCALE, T5_WIDTH, build_flux, build_sd3
from tests.engine.waiting import PATIENCE

SEED = 3


@pytest.fixture(scope="module")
def sd3(flow_checkpoints: Path) -> Any:
    """Stable Diffusion 3, as diffusers runs it."""
    from diffusers import StableDiffusion3Pipeline

    kind: Any = StableDiffusion3Pipeline
    return _hush(kind.from_pretrained(flow_checkpoints / "sd3"))


@pytest.fixture(scope="module")
def flux(flow_checkpoints: Path) -> Any:
    """Flux, as diffusers runs it."""
    from diffusers import FluxPipeline

    kind: Any = FluxPipeline
    return _hush(kind.from_pretrained(flow_checkpoints / "flux"))


def _hush(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def encode(device: Device, models: Models, name: str, text: str) -> Cue:
    cue: Cue = device.submit(TextEncoding.of(models.text_encoder(Handle(name, "clip")), text)).result(PATIENCE)
    return cue


def draw(
    device: Device, models: Models, name: str, guidance: Guidance, scheduler: str = "normal", side: int = 8
) -> Tensor:
    """The latent, in the model's scale, of four steps from seed SEED."""
    denoiser = models.denoiser(Handle(name, "model"))
    run = Sampling(
        latent=torch.zeros(1, CHANNELS, side, 6),
        generators=seed_items(SEED, range(1)),
        sampler="euler",
        sigmas=space_sigmas(denoiser.schedule, scheduler, 4),
        schedule=denoiser.schedule,
        prediction_type=denoiser.prediction_type,
        guidance=guidance,
    )
    return device.follow(predict_all(denoiser, run), lambda *_: None).result(PATIENCE)


def noise(side: int = 8) -> Tensor:
    return draw_noise(seed_items(SEED, range(1)), (CHANNELS, side, 6))


def make_guidance(device: Device, models: Models, name: str, cfg: float) -> Guidance:
    positive, negative = (Conditioning((encode(device, models, name, text),)) for text in ("a red circle", "blur"))
    return Guidance(positive, negative, cfg)


@pytest.mark.parametrize("text", ["a red circle", "", "a red circle, a blue square, a green triangle and " * 3])
def test_sd3_says_of_a_text_what_diffusers_says(device: Device, flow_models: Models, sd3: Any, text: str) -> None:
    found = encode(device, flow_models, "sd3", text)
    length = max(77, len(sd3.tokenizer_3(text).input_ids))
    embedding, _, pooled, _ = sd3.encode_prompt(
        text, None, None, do_classifier_free_guidance=False, max_sequence_length=length
    )
    assert found.pooled is not None
    # diffusers cuts long texts for CLIP, which are chunks here.
    assert torch.allclose(found.embedding[:, :77], embedding[:, :77], atol=1e-5)
    assert torch.allclose(found.embedding[:, -length:], embedding[:, 77:], atol=1e-4)
    assert torch.allclose(found.pooled, pooled, atol=1e-5)


def test_flux_says_of_a_text_what_diffusers_says(device: Device, flow_models: Models, flux: Any) -> None:
    found = encode(device, flow_models, "flux", "a red circle")
    embedding, pooled, _ = flux.encode_prompt("a red circle", max_sequence_length=256)
    assert found.pooled is not None
    assert torch.allclose(found.embedding, embedding, atol=1e-4)
    assert torch.allclose(found.pooled, pooled, atol=1e-5)


def test_emphasis_moves_t5s_tokens_from_what_an_empty_text_has_there(device: Device, flow_models: Models) -> None:
    plain, strong, empty = (
        encode(device, flow_models, "flux", text).embedding for text in ("a cat", "a (cat:1.5)", "")
    )
    expected = plain.clone()
    # "▁", "a", "▁", "c", "a", "t": the last four are what is weighed.
    expected[:, 2:6] = empty[:, 2:6] + 1.5 * (plain[:, 2:6] - empty[:, 2:6])
    assert torch.allclose(strong, expected, atol=1e-4)


def test_sd3_is_read_without_its_largest_encoder(device: Device, checkpoints: Path, tmp_path: Path) -> None:
    build_sd3(checkpoints / "tiny", tmp_path / "checkpoints" / "small", t5=False)
    found = encode(device, Models(device, tmp_path), "small", "a red circle")
    assert found.shapes == ((77, T5_WIDTH), 64)


@pytest.mark.parametrize("cfg", [1.0, 5.0])
def test_sd3_draws_what_diffusers_draws(device: Device, flow_models: Models, sd3: Any, cfg: float) -> None:
    guidance = make_guidance(device, flow_models, "sd3", cfg)
    positive, negative = guidance.positive.cues[0], guidance.negative.cues[0]
    expected = sd3(
        prompt_embeds=positive.embedding,
        pooled_prompt_embeds=positive.pooled,
        negative_prompt_embeds=negative.embedding,
        negative_pooled_prompt_embeds=negative.pooled,
        guidance_scale=cfg,
        latents=noise(),
        num_inference_steps=4,
        height=64,
        width=48,
        output_type="latent",
    ).images
    assert torch.allclose(draw(device, flow_models, "sd3", guidance), expected, atol=1e-4)


@pytest.mark.parametrize("told", [None, 2.0])
def test_flux_draws_what_diffusers_draws(device: Device, flow_models: Models, flux: Any, told: float | None) -> None:
    guidance = make_guidance(device, flow_models, "flux", 1.0)
    if told is not None:
        guidance = Guidance(guidance.positive.guide(told), guidance.negative, 1.0)
    cue = guidance.positive.cues[0]
    flux.scheduler.register_to_config(base_shift=1.15)  # the largest picture's shift for all, as ComfyUI has it
    packed = flux(
        prompt_embeds=cue.embedding,
        pooled_prompt_embeds=cue.pooled,
        guidance_scale=3.5 if told is None else told,
        latents=flux._pack_latents(noise(), 1, CHANNELS, 8, 6),
        num_inference_steps=4,
        height=64,
        width=48,
        output_type="latent",
    ).images
    expected = flux._unpack_latents(packed, 64, 48, 8)
    assert torch.allclose(draw(device, flow_models, "flux", guidance, "simple"), expected, atol=1e-4)


def test_flux_that_is_not_told_how_far_to_go_goes_as_it_was_trained(
    device: Device, checkpoints: Path, tmp_path: Path
) -> None:
    build_flux(checkpoints / "tiny", tmp_path / "checkpoints" / "schnell", guided=False)
    models = Models(device, tmp_path)
    assert models.denoiser(Handle("schnell", "model")).schedule.interpolate(torch.tensor(0.5).numpy()) == 0.5
    guidance = make_guidance(device, models, "schnell", 1.0)
    far = Guidance(guidance.positive.guide(50.0), guidance.negative, 1.0)
    assert torch.equal(draw(device, models, "schnell", guidance), draw(device, models, "schnell", far))


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_pictures_whose_sides_are_no_whole_patches_are_drawn(device: Device, flow_models: Models, name: str) -> None:
    drawn = draw(device, flow_models, name, make_guidance(device, flow_models, name, 1.0), side=7)
    assert drawn.shape == (1, CHANNELS, 7, 6)
    assert bool(drawn.isfinite().all())


def test_pictures_larger_than_a_model_knows_places_for_are_refused(device: Device, flow_models: Models) -> None:
    guidance = make_guidance(device, flow_models, "sd3", 1.0)
    assert draw(device, flow_models, "sd3", guidance, side=32).shape[2] == 32
    with pytest.raises(ValueError, match="pictures of this model have at most 256 pixels a side"):
        draw(device, flow_models, "sd3", guidance, side=33)


@pytest.mark.parametrize(("name", "scale"), [("sd3", SD3_SCALE), ("flux", FLUX_SCALE)])
def test_latents_that_are_not_centred_are_decoded(
    device: Device, flow_models: Models, name: str, scale: tuple[float, float], request: pytest.FixtureRequest
) -> None:
    pipeline = request.getfixturevalue(name)
    autoencoder = flow_models.autoencoder(Handle(name, "vae"))
    assert autoencoder.scale == flow_models.denoiser(Handle(name, "model")).scale == Scale(*scale)
    assert autoencoder.channels == flow_models.denoiser(Handle(name, "model")).channels == CHANNELS
    latent = torch.randn(1, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(autoencoder.scale.enter(autoencoder.scale.leave(latent)), latent, atol=1e-6)
    picture = device.submit(Decoding(autoencoder, autoencoder.scale.leave(latent))).result(PATIENCE)
    theirs = pipeline.vae.decode(latent / scale[0] + scale[1])[0].detach()
    expected = pipeline.image_processor.postprocess(theirs, output_type="np")
    assert torch.allclose(picture, torch.from_numpy(expected), atol=1e-5)


def test_what_overflows_in_half_precision_is_kept_in_full(flow_checkpoints: Path) -> None:
    part = read_part(Source("flux", flow_checkpoints / "flux"), "clip")
    assert isinstance(part, TextEncoder)
    size = Placement(part).perform(Place(torch.device("cpu"), torch.float16))
    formats = {name: weight.dtype for name, weight in part.towers[1].model.named_parameters()}
    precise = {name for name, dtype in formats.items() if dtype == torch.float32}
    assert precise == {name for name in formats if ".wo." in name} != set()
    assert size == sum(
        weight.numel() * weight.element_size()
        for tower in part.towers
        for weight in (*tower.model.parameters(), *tower.model.buffers())
    )


@pytest.mark.parametrize(
    ("part", "file", "changes", "reason"),
    [
        (
            "model",
            "scheduler/scheduler_config.json",
            {"_class_name": "DDIMScheduler"},
            "is DDIMScheduler, which is not",
        ),
        ("model", "scheduler/scheduler_config.json", {"shift_terminal": 0.1}, "shift_terminal, which this engine"),
        ("model", "scheduler/scheduler_config.json", {"time_shift_type": "linear"}, "time_shift_type, which this"),
        ("model", "model_index.json", {"transformer": ["diffusers", "Flux2Model"]}, "diffusers.Flux2Model, which this"),
        ("clip", "model_index.json", {"transformer": ["diffusers", "Flux2Model"]}, "diffusers.Flux2Model, which this"),
        ("clip", "model_index.json", {"text_encoder_2": ["transformers", "UMT5"]}, "transformers.UMT5, which this"),
    ],
)
def test_what_is_not_run_is_refused_by_name(
    flow_checkpoints: Path,
    tmp_path: Path,
    part: Literal["model", "clip"],
    file: str,
    changes: dict[str, object],
    reason: str,
) -> None:
    shutil.copytree(flow_checkpoints / "flux", tmp_path / "other")
    change(tmp_path / "other" / file, **changes)
    with pytest.raises(ModelError, match=f"checkpoint 'other': .*{reason}"):
        read_part(Source("other", tmp_path / "other"), part)


@pytest.mark.parametrize("part", ["model", "clip"])
def test_single_files_are_refused_by_name(flow_checkpoints: Path, part: Literal["model", "clip"]) -> None:
    weights = flow_checkpoints / "flux" / "transformer" / "diffusion_pytorch_model.safetensors"
    source = Source("flux.safetensors", flow_checkpoints / "flux", weights)
    with pytest.raises(ModelError, match="FluxTransformer2DModel is read from folders"):
        read_part(source, part)
