"""Models for inpainting: what they are shown beside the noisy latent, and what they draw."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.conditioning import Conditioning, Cue
from engine.device import Device
from engine.latents import Latent
from engine.models import Handle, Models
from engine.nodes import inpainting, latents, sampling
from engine.noise import draw_noise, seed_items
from engine.pipelines import Prediction, predict_all
from engine.sampling import Evaluation, Guidance, Sampling
from engine.schedules import space_sigmas
from engine.surroundings import fit
from tests.engine.contexts import RecordingContext
from tests.engine.families import POOLED, build_xl
from tests.engine.test_device import hold_back
from tests.engine.waiting import PATIENCE

NODES = {node.class_type: node for family in (inpainting, latents, sampling) for node in family.NODES}
MODEL, VAE = Handle("inpainting", "model"), Handle("inpainting", "vae")
GREY = torch.tensor([0.8223, -0.6876, 0.6364, 0.1380]).reshape(1, 4, 1, 1)
POSITIVE, NEGATIVE = map(Conditioning.of, torch.randn(2, 1, 77, 32, generator=torch.Generator().manual_seed(0)))
PICTURES = np.random.default_rng(0).random((2, 64, 64, 3), dtype=np.float32)
HOLE = np.zeros((1, 64, 64), np.float32)
HOLE[:, 16:40, 24:56] = 1


@pytest.fixture
def context(device: Device, inpainting_models: Models) -> RecordingContext:
    return RecordingContext(device, inpainting_models)


def call(context: RecordingContext, class_type: str, **inputs: object) -> Any:
    return NODES[class_type].function(context, **inputs)


def draw(context: RecordingContext, latent: Latent, **changes: object) -> Tensor:
    """What KSampler draws, in two steps if nothing else is said."""
    inputs = {
        "model": MODEL,
        "seed": 5,
        "steps": 2,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "positive": POSITIVE,
        "negative": NEGATIVE,
        "latent_image": latent,
        "denoise": 1.0,
    }
    (drawn,) = call(context, "KSampler", **{**inputs, **changes})
    samples: Tensor = drawn.samples
    return samples


@contextmanager
def listen(models: Models) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """The rows that the network is given meanwhile, and the embeddings with them, one pass after another."""
    heard: list[tuple[Tensor, Tensor]] = []

    def hear(module: object, given: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        heard.append((given[0], keywords["encoder_hidden_states"]))

    hook = models.denoiser(MODEL).network.module.register_forward_pre_hook(hear, with_kwargs=True)
    try:
        yield heard
    finally:
        hook.remove()


def test_a_latent_is_of_as_many_channels_as_of_other_models(inpainting_models: Models) -> None:
    assert inpainting_models.denoiser(MODEL).channels == inpainting_models.autoencoder(VAE).channels == 4


def test_the_mask_and_the_latent_itself_are_shown_at_every_evaluation(
    context: RecordingContext, inpainting_models: Models
) -> None:
    generator = torch.Generator().manual_seed(1)
    soft = torch.rand(2, 1, 64, 64, generator=generator)
    latent = Latent(torch.randn(2, 4, 8, 8, generator=generator), range(2), soft)
    scale, mask = inpainting_models.denoiser(MODEL).scale, latent.fit_mask()
    assert mask is not None
    with listen(inpainting_models) as heard:
        draw(context, latent, sampler_name="heun")
    assert len(heard) == 3
    for rows, _ in heard:
        assert rows.shape == (4, 9, 8, 8)
        assert torch.equal(rows[:, 4:5], mask.round().repeat(2, 1, 1, 1))
        assert torch.allclose(rows[:, 5:], scale.enter(latent.samples).repeat(2, 1, 1, 1))


def test_without_a_mask_a_grey_picture_is_shown_that_is_all_to_be_drawn(
    context: RecordingContext, inpainting_models: Models
) -> None:
    with listen(inpainting_models) as heard:
        draw(context, Latent.of(torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))))
    for rows, _ in heard:
        assert torch.equal(rows[:, 4:5], torch.ones(4, 1, 8, 8))
        assert torch.equal(rows[:, 5:], GREY.expand(4, 4, 8, 8))


def test_what_is_kept_is_kept_as_by_other_models(context: RecordingContext) -> None:
    (latent,) = call(context, "VAEEncodeForInpaint", pixels=PICTURES, vae=VAE, mask=HOLE, grow_mask_by=0)
    drawn, mask = draw(context, latent), latent.fit_mask()
    kept = (mask == 0).expand_as(drawn)
    assert torch.allclose(drawn[kept], latent.samples[kept], atol=1e-5)
    assert float((drawn - latent.samples)[~kept].abs().mean()) > 0.1


@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_a_run_draws_what_diffusers_draws(
    context: RecordingContext, inpainting_models: Models, inpainting_checkpoints: Path, cfg: float
) -> None:
    from diffusers import StableDiffusionInpaintPipeline
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

    kind: Any = StableDiffusionInpaintPipeline
    pipeline = kind.from_pretrained(inpainting_checkpoints / "inpainting", safety_checker=None)
    scheduler: Any = EulerDiscreteScheduler
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, timestep_spacing="leading")
    denoiser = inpainting_models.denoiser(MODEL)
    (around,) = call(context, "VAEEncodeForInpaint", pixels=PICTURES[:1], vae=VAE, mask=HOLE, grow_mask_by=0)
    expected = pipeline(
        prompt_embeds=POSITIVE.cues[0].embedding,
        negative_prompt_embeds=NEGATIVE.cues[0].embedding,
        guidance_scale=cfg,
        image=torch.from_numpy(PICTURES[:1]).permute(0, 3, 1, 2),
        mask_image=torch.from_numpy(HOLE)[:, None],
        # Made here of the same picture: diffusers would draw a sample of what the autoencoder gives.
        masked_image_latents=denoiser.scale.enter(around.samples),
        latents=draw_noise(seed_items(5, [0]), torch.Size([4, 8, 8])),
        sigmas=space_sigmas(denoiser.schedule, "normal", 4).tolist(),
        height=64,
        width=64,
        output_type="latent",
    ).images
    # Nothing is kept but in the eyes of the model, as diffusers has it.
    positive, negative, latent = call(
        context,
        "InpaintModelConditioning",
        positive=POSITIVE,
        negative=NEGATIVE,
        vae=VAE,
        pixels=PICTURES[:1],
        mask=HOLE,
        noise_mask=False,
    )
    empty = replace(latent, samples=torch.zeros_like(latent.samples))
    found = draw(context, empty, steps=4, cfg=cfg, positive=positive, negative=negative)
    assert torch.allclose(denoiser.scale.enter(found), expected, atol=1e-3 * float(expected.std()))


def test_xl_is_shown_the_same_besides_what_sums_the_text_up(device: Device, checkpoints: Path, tmp_path: Path) -> None:
    build_xl(checkpoints / "tiny", tmp_path / "checkpoints" / "xl", channels=9)
    denoiser = Models(device, tmp_path).denoiser(Handle("xl", "model"))
    generator = torch.Generator().manual_seed(0)
    latent, shown = (torch.randn(2, channels, 8, 8, generator=generator) for channels in (4, 5))
    cue = Cue(torch.randn(1, 77, 80, generator=generator), torch.randn(1, POOLED, generator=generator), shown=shown)
    side = Conditioning((cue,))
    found = device.submit(
        Prediction(denoiser, Evaluation(latent, 500, Guidance(side, side, 1.0), 1.6, "epsilon", 1, 1, True))
    ).result(PATIENCE)
    assert cue.pooled is not None
    with torch.no_grad():
        (expected,) = denoiser.network.module(
            torch.cat([latent, shown], 1),
            500,
            encoder_hidden_states=cue.embedding.expand(2, -1, -1),
            added_cond_kwargs={
                "text_embeds": cue.pooled.expand(2, -1),
                "time_ids": torch.tensor([64.0, 64, 0, 0, 64, 64]).expand(2, -1),
            },
            return_dict=False,
        )
    assert torch.allclose(found, expected, atol=1e-4)


def test_what_conditionings_show_goes_before_what_the_run_would(
    context: RecordingContext, inpainting_models: Models
) -> None:
    shown = torch.rand(1, 5, 8, 8, generator=torch.Generator().manual_seed(2))
    with listen(inpainting_models) as heard:
        draw(context, Latent.of(torch.zeros(6, 4, 8, 8)), steps=1, positive=POSITIVE.show(shown).combine(POSITIVE))
    assert [len(rows) for rows, _ in heard] == [2 * 3, 4 * 3], "in slices"
    for rows, embeddings in heard:
        own = torch.cat([torch.ones(1, 1, 8, 8), GREY.expand(1, 4, 8, 8)], 1)
        first, second, third = torch.split(rows[:, 4:], len(rows) // 3)
        assert torch.equal(first, fit(shown, first))
        assert torch.equal(second, own.expand_as(second))
        assert torch.equal(third, own.expand_as(third))
        assert torch.equal(embeddings[0], embeddings[len(second)])


def test_models_that_are_shown_nothing_do_not_look(device: Device, models: Models) -> None:
    context, model = RecordingContext(device, models), Handle("tiny", "model")
    shown = POSITIVE.show(torch.rand(1, 5, 8, 8))
    latent = Latent.of(torch.zeros(1, 4, 8, 8))
    plain = draw(context, latent, model=model)
    assert torch.equal(draw(context, latent, model=model, positive=shown), plain)


def test_a_picture_of_another_kind_of_model_is_refused(context: RecordingContext) -> None:
    with pytest.raises(ValueError, match="what the conditioning shows is of another kind of model"):
        draw(context, Latent.of(torch.zeros(1, 4, 8, 8)), positive=POSITIVE.show(torch.zeros(1, 17, 8, 8)))


def make_run(models: Models, seed: int, batch: int, masked: bool, cfg: float) -> Sampling:
    denoiser, generator = models.denoiser(MODEL), torch.Generator().manual_seed(seed)
    return Sampling(
        latent=torch.randn(batch, 4, 8, 8, generator=generator),
        generators=seed_items(seed, range(batch)),
        sampler="euler",
        sigmas=space_sigmas(denoiser.schedule, "normal", 2 + seed),
        schedule=denoiser.schedule,
        prediction_type=denoiser.prediction_type,
        guidance=Guidance(POSITIVE, NEGATIVE, cfg),
        mask=torch.rand(batch, 1, 8, 8, generator=generator) if masked else None,
    )


def test_a_picture_does_not_depend_on_its_neighbours(device: Device, inpainting_models: Models) -> None:
    models, denoiser = inpainting_models, inpainting_models.denoiser(MODEL)
    wishes = [(0, 1, True, 4.0), (1, 6, True, 4.0), (2, 2, False, 1.0), (3, 1, False, 4.0)]
    with listen(models) as heard:
        hold = hold_back(device)
        ends = [device.follow(predict_all(denoiser, make_run(models, *wish)), lambda *_: None) for wish in wishes]
        hold.release.set()
        together = [end.result(PATIENCE) for end in ends]
    assert max(len(rows) for rows, _ in heard) > 4 * 2, "in company"
    for wish, drawn in zip(wishes, together, strict=True):
        alone = device.follow(predict_all(denoiser, make_run(models, *wish)), lambda *_: None).result(PATIENCE)
        assert float((drawn - alone).abs().max() / alone.std()) <= 1e-4


@pytest.mark.parametrize("noise_mask", [True, False])
def test_conditionings_show_a_picture_without_what_its_mask_hides(
    context: RecordingContext, inpainting_models: Models, noise_mask: bool
) -> None:
    pixels = np.random.default_rng(1).random((2, 68, 70, 3), dtype=np.float32)
    mask = np.random.default_rng(2).random((1, 34, 35), dtype=np.float32)
    positive, negative, latent = call(
        context,
        "InpaintModelConditioning",
        positive=POSITIVE.combine(NEGATIVE),
        negative=NEGATIVE,
        vae=VAE,
        pixels=pixels,
        mask=mask,
        noise_mask=noise_mask,
    )
    (around,) = call(context, "VAEEncodeForInpaint", pixels=pixels, vae=VAE, mask=mask, grow_mask_by=0)
    (plain,) = call(context, "VAEEncode", pixels=pixels, vae=VAE)
    assert torch.equal(latent.samples, plain.samples)
    assert not torch.allclose(around.samples, plain.samples, atol=1e-3)
    shown = [cue.shown for cue in (*positive.cues, *negative.cues)]
    assert len(shown) == 3
    for each in shown:
        assert torch.equal(each[:, 1:], inpainting_models.denoiser(MODEL).scale.enter(around.samples))
    assert [cue.embedding for cue in positive.cues] == [POSITIVE.cues[0].embedding, NEGATIVE.cues[0].embedding]
    if noise_mask:
        assert latent.noise_mask.shape == (1, 1, 64, 64)
        assert not torch.equal(latent.noise_mask, latent.noise_mask.round()), "as it is"
        assert all(torch.equal(each[:, :1], latent.fit_mask()) for each in shown)
    else:
        assert latent.noise_mask is None


def test_what_is_shown_is_fitted_to_what_is_drawn() -> None:
    shown = torch.rand(2, 5, 4, 6, generator=torch.Generator().manual_seed(3))
    fitted = fit(shown, torch.zeros(5, 4, 8, 12))
    assert fitted.shape == (5, 5, 8, 12)
    assert torch.equal(fitted[:2], fitted[2:4]), "taken in turn"
    assert torch.equal(fitted[0], fitted[4])
    assert not torch.equal(fitted[0], fitted[1])
    assert set(fitted[:, 0].flatten().tolist()) == {0, 1}
    half = torch.full((1, 5, 8, 12), 0.5)
    assert torch.equal(fit(half, half)[:, :1], torch.zeros(1, 1, 8, 12))
    assert torch.equal(fit(half, half)[:, 1:], half[:, 1:])
