"""Prompts that run at once: each is drawn as if it were alone, and each can leave without the others noticing."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from engine.conditioning import Conditioning
from engine.device import Device
from engine.models import Handle, Models
from engine.nodes.conditioning import encode_text
from engine.noise import seed_items
from engine.pipelines import Decoding, TextEncoding, predict_all
from engine.samplers import SAMPLERS
from engine.sampling import Evaluation, Guidance, Sampling
from engine.schedules import SCHEDULERS, space_sigmas
from engine.transfer import fetch
from tests.engine.contexts import RecordingContext
from tests.engine.graphs import make_folders, picture, through
from tests.engine.test_device import hold_back
from tests.engine.test_executor import Bench
from tests.engine.waiting import PATIENCE

MODEL, CLIP, VAE = Handle("tiny", "model"), Handle("tiny", "clip"), Handle("tiny", "vae")


@dataclass(frozen=True)
class Wish:
    """What one prompt asks of the sampler."""

    sampler: str
    scheduler: str
    steps: int
    cfg: float
    denoise: float
    seed: int
    batch: int
    text: str


WISHES = st.builds(
    Wish,
    sampler=st.sampled_from(sorted(SAMPLERS)),
    scheduler=st.sampled_from(sorted(SCHEDULERS)),
    steps=st.integers(1, 6),
    cfg=st.sampled_from([1.0, 2.0, 7.5]),
    denoise=st.sampled_from([0.5, 1.0]),
    seed=st.integers(0, 2**64 - 1),
    batch=st.integers(1, 2),
    text=st.sampled_from(["a red circle", "a (blue:1.4) star", "", "a long one " * 12]),
)


def make_run(models: Models, wish: Wish, cues: dict[str, Conditioning]) -> Sampling:
    denoiser = models.denoiser(MODEL)
    return Sampling(
        latent=torch.zeros(wish.batch, 4, 8, 8),
        generators=seed_items(wish.seed, range(wish.batch)),
        sampler=wish.sampler,
        sigmas=space_sigmas(denoiser.schedule, wish.scheduler, wish.steps, wish.denoise),
        schedule=denoiser.schedule,
        prediction_type=denoiser.prediction_type,
        guidance=Guidance(cues[wish.text], cues[""], wish.cfg),
    )


def begin(device: Device, models: Models, wish: Wish, cues: dict[str, Conditioning]) -> Future[Tensor]:
    run = make_run(models, wish, cues)
    return device.follow(predict_all(models.denoiser(MODEL), run), lambda work, answer: None)


def draw(device: Device, models: Models, wishes: list[Wish]) -> list[tuple[Tensor, Tensor]]:
    """The latents and the pictures of all wishes, whose requests reach the device together."""
    encoder, autoencoder = models.text_encoder(CLIP), models.autoencoder(VAE)
    texts = sorted({"", *(wish.text for wish in wishes)})
    hold = hold_back(device)
    encoded = [device.submit(TextEncoding.of(encoder, text)) for text in texts]
    hold.release.set()
    cues = {text: Conditioning((future.result(PATIENCE),)) for text, future in zip(texts, encoded, strict=True)}
    hold = hold_back(device)
    ends = [begin(device, models, wish, cues) for wish in wishes]
    hold.release.set()
    latents = [fetch(end.result(PATIENCE)) for end in ends]
    hold = hold_back(device)
    decoded = [device.submit(Decoding(autoencoder, latent)) for latent in latents]
    hold.release.set()
    return [(latent, future.result(PATIENCE)) for latent, future in zip(latents, decoded, strict=True)]


@given(st.lists(WISHES, min_size=2, max_size=5))
@settings(max_examples=8, deadline=None)
def test_a_picture_does_not_depend_on_its_neighbours(device: Device, models: Models, wishes: list[Wish]) -> None:
    together = draw(device, models, wishes)
    for wish, (latent, drawn) in zip(wishes, together, strict=True):
        ((own_latent, own_drawn),) = draw(device, models, [wish])
        # In the latents' standard deviation: an untrained model does not bring it down to 1.
        assert float((latent - own_latent).abs().max() / own_latent.std()) <= 1e-4
        assert float(((drawn - own_drawn).abs() <= 1 / 255).float().mean()) >= 0.999


def test_texts_of_any_length_share_a_pass_and_so_do_pictures_of_one_size(device: Device, models: Models) -> None:
    encoder, autoencoder = models.text_encoder(CLIP), models.autoencoder(VAE)
    passes: list[int] = []

    def count(module: object, given: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        passes.append(len([*given, *keywords.values()][0]))

    networks = encoder.towers[0].model, autoencoder.vae.decoder
    hooks = [network.register_forward_pre_hook(count, with_kwargs=True) for network in networks]
    try:
        hold = hold_back(device)
        texts = [device.submit(TextEncoding.of(encoder, text)) for text in ("a red circle", "a star", "long " * 40)]
        pictures = [device.submit(Decoding(autoencoder, torch.zeros(1, 4, 8, 8))) for _ in range(3)]
        hold.release.set()
        assert [future.result(PATIENCE).embedding.shape[1] for future in texts] == [77, 77, 3 * 77]
        assert [len(future.result(PATIENCE)) for future in pictures] == [1, 1, 1]
    finally:
        for hook in hooks:
            hook.remove()
    assert passes == [5, 3]


def test_tokens_are_found_before_the_device_is_asked(device: Device, models: Models) -> None:
    encoder, threads = models.text_encoder(CLIP), set()

    class Tokenizer:
        bos_token_id, eos_token_id, pad_token_id = 0, 1, 1

        def __call__(self, text: str, **options: object) -> dict[str, list[int]]:
            threads.add(threading.current_thread())
            return {"input_ids": [2] * len(text)}

    watched = replace(encoder, towers=(replace(encoder.towers[0], tokenizer=Tokenizer()),))
    context = RecordingContext(device, models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Models, "text_encoder", lambda models, handle: watched)
        encode_text(context, "a (red:1.2) circle", CLIP)
    assert threads == {threading.current_thread()}


def test_a_large_batch_is_asked_for_in_slices_so_that_others_get_their_turn(device: Device, models: Models) -> None:
    denoiser = models.denoiser(MODEL)
    wish = Wish("euler", "karras", 2, 7.5, 1.0, 3, 9, "")
    asked: list[Evaluation] = []
    run = make_run(models, wish, {"": Conditioning.of(torch.zeros(1, 77, 32))})
    hold = hold_back(device)
    end = device.follow(predict_all(denoiser, run), lambda work, answer: asked.append(work.evaluation))
    hold.release.set()
    assert len(end.result(PATIENCE)) == 9
    assert [(len(evaluation.latent), evaluation.completes) for evaluation in asked[:3]] == [
        (1, False),
        (4, False),
        (4, True),
    ]
    assert len(asked) == 6


def test_a_run_that_goes_wrong_leaves_its_neighbours_as_they_are(device: Device, models: Models) -> None:
    good = Wish("euler", "karras", 4, 7.5, 1.0, 3, 1, "a red circle")
    cues = {"": Conditioning.of(torch.zeros(1, 77, 32)), good.text: Conditioning.of(torch.ones(1, 77, 32))}
    alone = begin(device, models, good, cues).result(PATIENCE)
    hold = hold_back(device)
    bad = begin(device, models, good, cues | {good.text: Conditioning.of(torch.full((1, 77, 32), torch.nan))})
    neighbour = begin(device, models, good, cues)
    hold.release.set()
    with pytest.raises(FloatingPointError, match="not finite"):
        bad.result(PATIENCE)
    assert float((neighbour.result(PATIENCE) - alone).abs().max()) <= 1e-4


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """An executor that runs three prompts at once."""
    bench = Bench(make_folders(tmp_path), patience=PATIENCE, concurrency=3)
    with bench.executor:
        yield bench
        bench.gate.opened.release(100)
    assert not bench.ended.is_set()


def test_several_prompts_run_at_once_in_the_order_of_the_queue(bench: Bench) -> None:
    running = [bench.hold() for _ in range(3)]
    pending = [bench.submit(through("Gate")) for _ in range(2)]
    assert bench.queue() == (running, pending)
    assert bench.executor.remaining == 5
    bench.gate.opened.release()
    assert bench.gate.entered.acquire(timeout=PATIENCE), "the next one has started"
    now_running, now_pending = bench.queue()
    assert len(now_running) == 3
    assert now_running[-1] == pending[0]
    assert now_pending == pending[1:]


def test_an_interrupt_by_id_takes_out_one_and_no_other(bench: Bench) -> None:
    running = [bench.hold() for _ in range(3)]
    bench.executor.interrupt(running[1])
    bench.gate.opened.release(3)
    ends = wait_for(bench, running)
    assert [ends[prompt_id] for prompt_id in running] == ["success", "error", "success"]


def test_an_interrupt_without_an_id_takes_out_all_that_run(bench: Bench) -> None:
    running = [bench.hold() for _ in range(3)]
    bench.executor.interrupt(None)
    bench.gate.opened.release(3)
    assert set(wait_for(bench, running).values()) == {"error"}


def test_memory_is_freed_while_others_run(bench: Bench) -> None:
    running = bench.hold()
    bench.executor.free(models=True, cache=True)
    wait_for(bench, [bench.submit(picture(3))])
    assert bench.unloaded == 1
    bench.gate.opened.release()
    assert wait_for(bench, [running]) == {running: "success"}


def test_files_of_prompts_that_run_at_once_have_names_of_their_own(bench: Bench) -> None:
    prompts = [bench.submit(picture(color)) for color in range(24)]
    assert set(wait_for(bench, prompts).values()) == {"success"}
    names = [bench.record(prompt_id)["outputs"]["2"]["images"][0]["filename"] for prompt_id in prompts]
    assert len(set(names)) == 24
    for color, name in enumerate(names):
        pixels = np.asarray(Image.open(bench.folders.output / name))
        assert tuple(pixels[0, 0]) == (0, 0, color)


def wait_for(bench: Bench, prompts: list[str]) -> dict[str, str]:
    """How each of the prompts ended, in the words of the history."""
    missing = set(prompts)
    while missing:
        message = bench.hear()
        if message["type"] == "executing" and message["data"]["node"] is None:
            missing.discard(message["data"]["prompt_id"])
    return {prompt_id: bench.record(prompt_id)["status"]["status_str"] for prompt_id in prompts}
