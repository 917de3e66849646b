"""Stable Diffusion 3 and Flux in company: rows of one model and shape share passes, and each is as it is alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.conditioning import Conditioning
from engine.device import Device
from engine.models import Handle, Models
from engine.noise import seed_items
from engine.pipelines import TextEncoding, predict_all
from engine.samplers import FLOW_SAMPLERS
from engine.sampling import Guidance, Sampling
from engine.schedules import SCHEDULERS, space_sigmas
from engine.transfer import fetch
from tests.engine.flow_families import CHANNELS
from tests.engine.test_device import hold_back
from tests.engine.waiting import PATIENCE


@dataclass(frozen=True)
class Wish:
    """What one prompt asks of the sampler."""

    sampler: str
    scheduler: str
    steps: int
    cfg: float
    told: float | None
    denoise: float
    shift: float | None
    seed: int
    text: str


WISHES = st.builds(
    Wish,
    sampler=st.sampled_from(sorted(FLOW_SAMPLERS)),
    scheduler=st.sampled_from(sorted(SCHEDULERS)),
    steps=st.integers(1, 5),
    cfg=st.sampled_from([1.0, 4.5]),
    told=st.sampled_from([None, 1.0, 6.0]),
    denoise=st.sampled_from([0.5, 1.0]),
    shift=st.sampled_from([None, 1.0, 5.0]),
    seed=st.integers(0, 2**64 - 1),
    text=st.sampled_from(["a red circle", "a (blue:1.4) star", "a long one " * 12]),
)


def draw(device: Device, models: Models, name: str, wishes: list[Wish]) -> list[Tensor]:
    """The latents of all wishes, whose requests reach the device together."""
    encoder = models.text_encoder(Handle(name, "clip"))
    texts = sorted({"", *(wish.text for wish in wishes)})
    hold = hold_back(device)
    encoded = [device.submit(TextEncoding.of(encoder, text)) for text in texts]
    hold.release.set()
    cues = {text: Conditioning((future.result(PATIENCE),)) for text, future in zip(texts, encoded, strict=True)}
    hold = hold_back(device)
    ends = []
    for wish in wishes:
        denoiser = models.denoiser(Handle(name, "model", shift=wish.shift))
        positive = cues[wish.text] if wish.told is None else cues[wish.text].guide(wish.told)
        run = Sampling(
            latent=torch.zeros(1, CHANNELS, 6, 4),
            generators=seed_items(wish.seed, range(1)),
            sampler=wish.sampler,
            sigmas=space_sigmas(denoiser.schedule, wish.scheduler, wish.steps, wish.denoise),
            schedule=denoiser.schedule,
            prediction_type=denoiser.prediction_type,
            guidance=Guidance(positive, cues[""], wish.cfg),
        )
        ends.append(device.follow(predict_all(denoiser, run), lambda *_: None))
    hold.release.set()
    return [fetch(end.result(PATIENCE)) for end in ends]


@pytest.mark.parametrize("name", ["sd3", "flux"])
@given(wishes=st.lists(WISHES, min_size=2, max_size=4))
@settings(max_examples=4, deadline=None)
def test_a_picture_does_not_depend_on_its_neighbours(
    device: Device, flow_models: Models, name: str, wishes: list[Wish]
) -> None:
    together = draw(device, flow_models, name, wishes)
    for wish, latent in zip(wishes, together, strict=True):
        (alone,) = draw(device, flow_models, name, [wish])
        # In the latents' standard deviation: an untrained model does not bring it down to 1.
        assert float((latent - alone).abs().max() / alone.std()) <= 1e-4


@pytest.mark.parametrize(("name", "cfg", "rows"), [("sd3", 4.0, 6), ("flux", 1.0, 3)])
def test_calls_of_one_model_and_shape_share_passes(
    device: Device, flow_models: Models, name: str, cfg: float, rows: int
) -> None:
    passes: list[int] = []

    def count(module: object, given: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        passes.append(len(keywords["encoder_hidden_states"]))

    network = flow_models.denoiser(Handle(name, "model")).network.module
    hook = network.register_forward_pre_hook(count, with_kwargs=True)
    plain = Wish("euler", "simple", 2, cfg, None, 1.0, None, 1, "a red circle")
    others = (
        Wish("dpmpp_2m", "beta", 2, cfg, 2.0, 1.0, 4.0, 2, "a star"),
        Wish("heun", "karras", 2, cfg, 6.0, 0.5, None, 3, "a heart"),
    )
    try:
        draw(device, flow_models, name, [plain, *others])
    finally:
        hook.remove()
    assert passes == [rows, rows, rows // 3], "the last is heun's, which asks twice in its first step"
