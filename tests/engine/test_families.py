"""Families of checkpoints: what is read of them answers as diffusers' own pipelines do."""

import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.checkpoints import read_part
from engine.conditioning import Conditioning, Cue
from engine.device import Device
from engine.errors import ModelError
from engine.latents import Scale
from engine.models import Handle, Models
from engine.nodes import conditioning, latents, loaders, sampling
from engine.noise import draw_noise, seed_items
from engine.pipelines import Decoding, Prediction, TextEncoding
from engine.sampling import Evaluation, Guidance
from engine.shelves import Source
from tests.engine.contexts import RecordingContext
from tests.engine.families import POOLED, build_second, build_xl, change, make_unet

NODES = {node.class_type: node for family in (loaders, conditioning, latents, sampling) for node in family.NODES}


@pytest.fixture(scope="module")
def folder(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models with one checkpoint of each family."""
    folder = tmp_path_factory.mktemp("families") / "checkpoints"
    folder.mkdir()
    (folder / "tiny").symlink_to(checkpoints / "tiny")
    build_second(checkpoints / "tiny", folder / "second")
    build_xl(checkpoints / "tiny", folder / "xl")
    return folder


@pytest.fixture(scope="module")
def families(device: Device, folder: Path) -> Models:
    return Models(device, folder.parent)


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    """Stable Diffusion XL, as diffusers runs it."""
    from diffusers import StableDiffusionXLPipeline

    kind: Any = StableDiffusionXLPipeline
    return kind.from_pretrained(folder / "xl", add_watermarker=False)


def encode(device: Device, models: Models, handle: Handle, text: str) -> Cue:
    cue: Cue = device.submit(TextEncoding.of(models.text_encoder(handle), text)).result(60)
    return cue


def predict(device: Device, models: Models, name: str, guidance: Guidance, latent: Tensor) -> Tensor:
    evaluation = Evaluation(latent, 500, guidance, 1.6, "epsilon", 1, 1, True)
    return device.submit(Prediction(models.denoiser(Handle(name, "model")), evaluation)).result(60)


def test_xl_says_of_a_text_what_diffusers_says(device: Device, families: Models, pipeline: Any) -> None:
    found = encode(device, families, Handle("xl", "clip"), "a red circle")
    embedding, _, pooled, _ = pipeline.encode_prompt("a red circle", device="cpu", do_classifier_free_guidance=False)
    assert found.pooled is not None
    assert torch.allclose(found.embedding, embedding, atol=1e-5)
    assert torch.allclose(found.pooled, pooled, atol=1e-5)


def test_xl_predicts_what_diffusers_predicts(device: Device, families: Models, pipeline: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(2, 4, 6, 8, generator=generator)
    sides = [torch.randn(1, tokens, 80, generator=generator) for tokens in (154, 77)]
    pooled = [torch.randn(1, POOLED, generator=generator) for _ in sides]
    guidance = Guidance(Conditioning.of(sides[0], pooled[0]), Conditioning.of(sides[1], pooled[1]), 7.0)
    size = (8 * 6, 8 * 8)
    times = pipeline._get_add_time_ids(size, (0, 0), size, torch.float32, text_encoder_projection_dim=POOLED)
    with torch.no_grad():
        positive, negative = (
            pipeline.unet(
                latent,
                500,
                encoder_hidden_states=side.expand(2, -1, -1),
                added_cond_kwargs={"text_embeds": summary.expand(2, -1), "time_ids": times.expand(2, -1)},
                return_dict=False,
            )[0]
            for side, summary in zip(sides, pooled, strict=True)
        )
    expected = negative + 7.0 * (positive - negative)
    assert torch.allclose(predict(device, families, "xl", guidance, latent), expected, atol=1e-4)


def test_xl_decodes_by_its_own_scale(device: Device, families: Models, pipeline: Any) -> None:
    autoencoder = families.autoencoder(Handle("xl", "vae"))
    assert autoencoder.scale == families.denoiser(Handle("xl", "model")).scale == Scale(0.13025)
    latent = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    picture = device.submit(Decoding(autoencoder, latent)).result(60)
    expected = pipeline.image_processor.postprocess(pipeline.vae.decode(latent)[0].detach(), output_type="np")
    assert torch.allclose(picture, torch.from_numpy(expected), atol=1e-5)


def test_a_long_text_is_summed_up_by_its_first_chunk(device: Device, families: Models) -> None:
    long, short = (encode(device, families, Handle("xl", "clip"), "a " * count) for count in (100, 75))
    assert long.embedding.shape == (1, 154, 80)
    assert long.pooled is not None
    assert short.pooled is not None
    assert torch.allclose(long.pooled, short.pooled, atol=1e-5)
    assert torch.allclose(long.embedding[:, :77], short.embedding, atol=1e-5)


def test_second_says_of_a_text_what_diffusers_says(device: Device, families: Models, folder: Path) -> None:
    from diffusers import StableDiffusionPipeline

    kind: Any = StableDiffusionPipeline
    pipeline = kind.from_pretrained(folder / "second", safety_checker=None)
    found = encode(device, families, Handle("second", "clip"), "a red circle")
    embedding, _ = pipeline.encode_prompt("a red circle", "cpu", 1, False)
    assert found.pooled is None
    assert torch.allclose(found.embedding, embedding, atol=1e-5)
    assert families.denoiser(Handle("second", "model")).prediction_type == "v_prediction"


def draw(models: Models, device: Device, name: str, steps: int) -> tuple[Tensor, Tensor]:
    """The latents and the pictures of ComfyUI's first workflow."""
    context: Any = RecordingContext(device, models)

    def call(class_type: str, **inputs: object) -> Any:
        return NODES[class_type].function(context, **inputs)

    model, clip, vae = call("CheckpointLoaderSimple", ckpt_name=name)
    (positive,), (negative,) = (call("CLIPTextEncode", clip=clip, text=text) for text in ("a red circle", "blurred"))
    (empty,) = call("EmptyLatentImage", width=64, height=48, batch_size=2)
    run = {"steps": steps, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "seed": 5}
    (drawn,) = call("KSampler", model=model, positive=positive, negative=negative, latent_image=empty, **run)
    (pictures,) = call("VAEDecode", samples=drawn, vae=vae)
    return drawn.samples, torch.from_numpy(pictures)


@pytest.mark.parametrize(("name", "prediction_type"), [("tiny", "epsilon"), ("second", "v_prediction")])
def test_first_and_second_draw_what_diffusers_draws(
    device: Device, families: Models, folder: Path, name: str, prediction_type: str
) -> None:
    """From texts to pictures. In 4 steps, ComfyUI's "normal" visits whole steps of training, as diffusers does."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

    kinds: tuple[Any, Any] = (StableDiffusionPipeline, EulerDiscreteScheduler)
    scheduler = kinds[1].from_pretrained(folder / name / "scheduler", timestep_spacing="linspace")
    assert scheduler.config.prediction_type == prediction_type
    pipeline = kinds[0].from_pretrained(folder / name, scheduler=scheduler, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    noise = draw_noise(seed_items(5, range(2)), (4, 6, 8))
    scheduler.set_timesteps(4)
    # ComfyUI adds noise to an empty latent as if it were of unit variance; diffusers has the last level as it is.
    noise *= float((scheduler.sigmas[0] ** 2 + 1).sqrt() / scheduler.init_noise_sigma)
    latent, pictures = (
        pipeline(
            ["a red circle"] * 2,
            negative_prompt=["blurred"] * 2,
            num_inference_steps=4,
            guidance_scale=7.0,
            latents=noise,
            output_type=kind,
        )[0]
        for kind in ("latent", "np")
    )
    found, drawn = draw(families, device, name, 4)
    scale = families.denoiser(Handle(name, "model")).scale
    assert torch.allclose(scale.enter(found) / latent.std(), latent / latent.std(), atol=1e-4)
    assert np.allclose(drawn, pictures, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "layer", "states", "normed"),
    [
        ("second", -1, 23, True),  # the layer that is cut off, of which nothing is left but the one before
        ("second", -2, 23, True),
        ("second", -3, 22, True),
        ("tiny", -1, 2, True),
        ("tiny", -2, 1, True),
        ("tiny", -3, 2, True),  # more than there are: ComfyUI takes the last
    ],
)
def test_a_text_encoder_stops_where_comfyui_stops(
    device: Device, families: Models, models: Models, name: str, layer: int, states: int, normed: bool
) -> None:
    source = models if name == "tiny" else families
    found = encode(device, source, Handle(name, "clip", layer=layer), "a cat").embedding
    (tower,) = source.text_encoder(Handle(name, "clip")).towers
    ids, _ = tower.tokenize("a cat")
    with torch.no_grad():
        hidden = tower.model(ids, output_hidden_states=True).hidden_states[states]
        expected = tower.model.final_layer_norm(hidden)
    assert torch.allclose(found, expected, atol=1e-5)


def test_xls_encoders_stop_alike_without_their_norms(device: Device, families: Models) -> None:
    encoder = families.text_encoder(Handle("xl", "clip"))
    usual = encode(device, families, Handle("xl", "clip"), "a cat")
    assert torch.equal(encode(device, families, Handle("xl", "clip", layer=-2), "a cat").embedding, usual.embedding)
    early = encode(device, families, Handle("xl", "clip", layer=-4), "a cat").embedding
    first, second = encoder.towers
    with torch.no_grad():
        ids = first.tokenize("a cat")[0]
        # The first has three layers, and is taken as a whole.
        assert torch.allclose(early[..., :32], first.model(ids).last_hidden_state, atol=1e-5)
        ids = second.tokenize("a cat")[0]
        states = second.model(ids, output_hidden_states=True).hidden_states
        assert torch.allclose(early[..., 32:], states[1], atol=1e-5)


def test_a_network_that_sums_tokens_up_itself_is_asked_in_their_own_number(
    device: Device, checkpoints: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoints / "tiny", tmp_path / "checkpoints" / "summing")
    make_unet(32, addition_embed_type="text", addition_embed_type_num_heads=4).save_pretrained(
        tmp_path / "checkpoints" / "summing" / "unet"
    )
    models = Models(device, tmp_path)
    generator = torch.Generator().manual_seed(0)
    long, short = (Conditioning.of(torch.randn(1, tokens, 32, generator=generator)) for tokens in (154, 77))
    latent = torch.randn(1, 4, 8, 8, generator=generator)
    towards, away = (predict(device, models, "summing", Guidance(side, side, 1.0), latent) for side in (long, short))
    found = predict(device, models, "summing", Guidance(long, short, 7.0), latent)
    assert torch.allclose(found, away + 7.0 * (towards - away), atol=1e-4)


@pytest.mark.parametrize(("text_of", "model"), [("xl", "second"), ("second", "xl")])
def test_a_conditioning_of_another_family_is_refused(
    device: Device, families: Models, text_of: str, model: str
) -> None:
    side = Conditioning((encode(device, families, Handle(text_of, "clip"), "a cat"),))
    with pytest.raises(ValueError, match="of another kind of model"):
        predict(device, families, model, Guidance(side, side, 1.0), torch.zeros(1, 4, 8, 8))


@pytest.mark.parametrize(
    ("channels", "which"),
    [(5, r" \(a depth model\)"), (6, ""), (7, r" \(an upscaler\)"), (8, r" \(InstructPix2Pix\)"), (16, "")],
)
def test_unets_that_are_shown_something_else_are_refused_by_name(
    checkpoints: Path, tmp_path: Path, channels: int, which: str
) -> None:
    shutil.copytree(checkpoints / "tiny", tmp_path / "other")
    make_unet(32, in_channels=channels).save_pretrained(tmp_path / "other" / "unet")
    reason = f"its unet takes {channels} channels and gives 4{which}, and such are not run"
    with pytest.raises(ModelError, match=f"checkpoint 'other': {reason}"):
        read_part(Source("other", tmp_path / "other"), "model")


@pytest.mark.parametrize(
    ("part", "file", "changes", "reason"),
    [
        ("model", "model_index.json", {"unet": None, "transformer": ["diffusers", "DiT"]}, "is diffusers.DiT, which"),
        ("model", "model_index.json", {"requires_aesthetics_score": True}, "refiners"),
        ("model", "scheduler/scheduler_config.json", {"_class_name": "EDMEulerScheduler"}, "is EDMEulerScheduler"),
        ("model", "unet/config.json", {"class_embed_type": "identity"}, "conditioned on what this engine does not"),
        ("vae", "vae/config.json", {"latents_mean": [0.1]}, "its latents have a mean for each channel"),
        ("vae", "model_index.json", {"vae": ["diffusers", "AutoencoderDC"]}, "diffusers.AutoencoderDC, which this"),
    ],
)
def test_what_is_not_run_is_refused_by_name(
    checkpoints: Path,
    tmp_path: Path,
    part: Literal["model", "clip", "vae"],
    file: str,
    changes: dict[str, object],
    reason: str,
) -> None:
    shutil.copytree(checkpoints / "tiny", tmp_path / "other")
    change(tmp_path / "other" / file, **changes)
    with pytest.raises(ModelError, match=f"checkpoint 'other': .*{reason}"):
        read_part(Source("other", tmp_path / "other"), part)
