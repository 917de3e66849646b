"""Cues are sent to the device once for each run, and let go of with it."""

import gc
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from engine.conditioning import Conditioning, Cue
from engine.device import Device, Place
from engine.models import Handle, Models
from engine.networks import Unet
from engine.noise import seed_items
from engine.pipelines import Denoiser, predict_all
from engine.sampling import Guidance, Sampling
from engine.schedules import space_sigmas
from tests.engine.test_device import hold_back
from tests.engine.waiting import PATIENCE

LONG, SHORT, OTHER = (Conditioning.of(torch.randn(1, tokens, 32)) for tokens in (154, 77, 77))


@dataclass(frozen=True, eq=False)
class Counting(Unet):
    """A network that notes the cues that it sends."""

    sent: list[Cue] | None = None

    def send_cue(self, place: Place, cue: Cue) -> list[Tensor]:
        assert self.sent is not None
        self.sent.append(cue)
        return Unet.send_cue(self, place, cue)


def count(models: Models, name: str = "tiny") -> tuple[Denoiser, list[Cue]]:
    """A model's denoiser with what its network has sent."""
    denoiser, sent = models.denoiser(Handle(name, "model")), list[Cue]()
    network = Counting(denoiser.network.module, sent=sent)
    return replace(denoiser, network=network, sent=WeakKeyDictionary()), sent


def make_run(denoiser: Denoiser, positive: Conditioning, steps: int) -> Sampling:
    return Sampling(
        latent=torch.zeros(1, 4, 8, 8),
        generators=seed_items(1, [0]),
        sampler="euler",
        sigmas=space_sigmas(denoiser.schedule, "normal", steps),
        schedule=denoiser.schedule,
        prediction_type=denoiser.prediction_type,
        guidance=Guidance(positive, SHORT, 3.0),
    )


def test_a_run_sends_each_of_its_cues_once_whatever_company_comes_and_goes(device: Device, models: Models) -> None:
    denoiser, sent = count(models)
    hold = hold_back(device)
    runs = [make_run(denoiser, OTHER, steps) for steps in (5, 2, 3)]
    ends = [device.follow(predict_all(denoiser, run), lambda *_: None) for run in runs]
    hold.release.set()
    for end in ends:
        assert end.result(PATIENCE).isfinite().all()
    assert len(sent) == 2 * len(runs)


def test_texts_of_different_lengths_are_made_equally_long_once(device: Device, models: Models) -> None:
    denoiser, sent = count(models)
    device.follow(predict_all(denoiser, make_run(denoiser, LONG, 5)), lambda *_: None).result(PATIENCE)
    assert [cue.embedding.shape[1] for cue in sent] == [154, 154]


def test_what_is_shown_beside_the_latent_is_sent_once_with_each_cue(device: Device, inpainting_models: Models) -> None:
    denoiser, sent = count(inpainting_models, "inpainting")
    run = make_run(denoiser, OTHER, 3)
    batch = replace(run, latent=torch.zeros(6, 4, 8, 8), generators=seed_items(1, range(6)))
    device.follow(predict_all(denoiser, batch), lambda *_: None).result(PATIENCE)
    shown = [None if cue.shown is None else len(cue.shown) for cue in sent]
    assert sorted(shown, key=str) == [2, 2, 4, 4], "for each slice of the batch, on both sides"


def test_what_was_sent_is_let_go_of_with_the_run(device: Device, models: Models) -> None:
    denoiser, sent = count(models)
    device.follow(predict_all(denoiser, make_run(denoiser, OTHER, 2)), lambda *_: None).result(PATIENCE)
    assert len(denoiser.sent) == 2
    sent.clear()
    device.submit(Nothing()).result(PATIENCE)  # the device has let go of its last turn by then
    gc.collect()
    assert len(denoiser.sent) == 0, "though the texts themselves live on"


class Nothing:
    def perform(self, place: Place) -> None: ...
