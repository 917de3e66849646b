"""What holds on a GPU, where there is one; elsewhere these are skipped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from engine.conditioning import Conditioning
from engine.device import Device
from engine.memory import Release
from engine.models import Models
from engine.noise import seed_items
from engine.pipelines import TextEncoding, predict_all
from engine.samplers import FLOW_SAMPLERS, SAMPLERS
from engine.sampling import Sampling
from engine.schedules import SCHEDULERS
from engine.transfer import fetch
from tests.engine.test_company import CLIP, MODEL, Wish, draw, make_run
from tests.engine.test_device import hold_back
from tests.engine.test_flow_company import Wish as FlowWish
from tests.engine.test_flow_company import draw as draw_flow
from tests.engine.test_process import ROOT, start
from tests.engine.waiting import PATIENCE

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch knows")

WISH = Wish("euler", "normal", 5, 7.5, 1.0, 1, 1, "a red circle")
WISHES = [
    replace(WISH, sampler=sampler, scheduler=scheduler, seed=seed, steps=3 + seed % 4, batch=1 + seed % 2, text=text)
    for seed, (sampler, scheduler, text) in enumerate(
        zip(SAMPLERS, cycle(SCHEDULERS), cycle(["a red circle", "a (blue:1.4) star", "a long one " * 12]), strict=False)
    )
]
FLOW_WISHES = [
    FlowWish(sampler, "simple", 4, 4.5, None, 1.0, None, seed, "a red circle")
    for seed, sampler in enumerate(FLOW_SAMPLERS)
]

# How far a latent may be from what the processor makes of it in float32, and from what it is without neighbours, in
# standard deviations. Untrained networks pass on whatever they are given, so that short formats show.
APART = {"float32": 0.01, "float16": 0.1, "bfloat16": 0.2}
# Pixels within 1 of 255 of what they are without neighbours.
ALIKE = {"float32": 0.999, "float16": 0.99, "bfloat16": 0.8}


@pytest.fixture(params=["float32", "float16", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def gpu(dtype: str) -> Iterator[Device]:
    with Device("cuda", dtype=dtype) as device:
        yield device


def load(gpu: Device, checkpoints: Path, name: str) -> Models:
    """Models of which one is in memory: while the device is held back, none can be moved there."""
    models = Models(gpu, checkpoints.parent)
    models.load(name)
    return models


def measure(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.std())


def share(one: Tensor, other: Tensor) -> float:
    """Of the values of two pictures that agree within 1 of 255."""
    return float(((one - other).abs() <= 1 / 255).float().mean())


def test_latents_are_those_of_the_processor_whatever_the_sampler(
    gpu: Device, checkpoints: Path, device: Device, models: Models, dtype: str
) -> None:
    loaded = load(gpu, checkpoints, "tiny")
    models.load("tiny")
    there, here = draw(gpu, loaded, WISHES), draw(device, models, WISHES)
    apart = {wish.sampler: measure(one, other) for wish, (one, _), (other, _) in zip(WISHES, there, here, strict=True)}
    print(dtype, {sampler: f"{each:.1e}" for sampler, each in apart.items()})
    assert all(latent.device.type == "cpu" for latent, _ in there)
    assert max(apart.values()) <= APART[dtype]


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_so_are_those_of_flow_matching(
    gpu: Device, flow_checkpoints: Path, device: Device, flow_models: Models, dtype: str, name: str
) -> None:
    if (name, dtype) == ("flux", "bfloat16"):
        pytest.skip("an untrained Flux makes as much of bfloat16's rounding as of its latents")
    loaded = load(gpu, flow_checkpoints, name)
    flow_models.load(name)
    there, here = draw_flow(gpu, loaded, name, FLOW_WISHES), draw_flow(device, flow_models, name, FLOW_WISHES)
    apart = {wish.sampler: measure(one, other) for wish, one, other in zip(FLOW_WISHES, there, here, strict=True)}
    print(dtype, name, {sampler: f"{each:.1e}" for sampler, each in apart.items()})
    assert max(apart.values()) <= APART[dtype]


def test_a_latent_hardly_depends_on_its_neighbours(gpu: Device, checkpoints: Path, dtype: str) -> None:
    loaded = load(gpu, checkpoints, "tiny")
    together = draw(gpu, loaded, WISHES)
    alone = [draw(gpu, loaded, [wish])[0] for wish in WISHES]
    apart = [measure(one, other) for (one, _), (other, _) in zip(together, alone, strict=True)]
    pixels = [share(one, other) for (_, one), (_, other) in zip(together, alone, strict=True)]
    print(dtype, "company", f"{max(apart):.1e}", "pixels", f"{min(pixels):.3f}")
    assert max(apart) <= APART[dtype]
    assert min(pixels) >= ALIKE[dtype]


def test_what_a_mask_keeps_is_kept_to_the_bit(checkpoints: Path) -> None:
    with Device("cuda") as gpu:
        loaded = load(gpu, checkpoints, "tiny")
        text = gpu.submit(TextEncoding.of(loaded.text_encoder(CLIP), WISH.text)).result(PATIENCE)
        cues = dict.fromkeys((WISH.text, ""), Conditioning((text,)))
        kept, mask = torch.randn(1, 4, 8, 8), torch.zeros(1, 1, 8, 8)
        mask[..., :4] = 1
        for sampler in ("euler", "dpm_2", "dpmpp_sde", "lcm"):
            run = replace(make_run(loaded, replace(WISH, sampler=sampler), cues), latent=kept, mask=mask)
            drawn = fetch(gpu.follow(predict_all(loaded.denoiser(MODEL), run), lambda *_: None).result(PATIENCE))
            assert torch.equal(drawn[..., 4:], kept[..., 4:])
            assert not torch.equal(drawn[..., :4], kept[..., :4])
            assert drawn.isfinite().all()


def test_a_pass_that_does_not_fit_is_split_until_it_does(checkpoints: Path) -> None:
    tried: list[int] = []
    with Device("cuda", max_rows=1024) as gpu:
        loaded = load(gpu, checkpoints, "tiny")
        text = gpu.submit(TextEncoding.of(loaded.text_encoder(CLIP), WISH.text)).result(PATIENCE)
        cues = dict.fromkeys((WISH.text, ""), Conditioning((text,)))
        runs = [
            replace(make_run(loaded, replace(WISH, seed=seed, steps=2), cues), latent=torch.zeros(1, 4, 128, 128))
            for seed in range(8)
        ]
        denoiser = loaded.denoiser(MODEL)
        torch.cuda.reset_peak_memory_stats()
        alone = [fetch(gpu.follow(predict_all(denoiser, run), lambda *_: None).result(PATIENCE)) for run in runs]
        needed = torch.cuda.max_memory_allocated()
        denoiser.network.module.register_forward_pre_hook(lambda module, given: tried.append(len(given[0])))
        gpu.submit(Release()).result(PATIENCE)
        with at_most(2.5 * needed):
            hold = hold_back(gpu)
            ends = [gpu.follow(predict_all(denoiser, run), lambda *_: None) for run in again(runs)]
            hold.release.set()
            together = [fetch(end.result(PATIENCE)) for end in ends]
    assert tried[0] == 2 * len(runs)
    assert min(tried) < 2 * len(runs)
    for one, other in zip(alone, together, strict=True):
        assert torch.allclose(one, other, atol=0.05 * float(one.std()))


def again(runs: list[Sampling]) -> list[Sampling]:
    """The same from the beginning: the generators of a run have been drawn from."""
    return [replace(run, generators=seed_items(seed, [0])) for seed, run in enumerate(runs)]


@contextmanager
def at_most(size: float) -> Iterator[None]:
    """So many bytes of the GPU's memory for this process."""
    torch.cuda.set_per_process_memory_fraction(size / torch.cuda.get_device_properties(0).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("flags", [("--dtype", "float32"), (), ("--dtype", "bfloat16")])
def test_an_engine_on_a_gpu_draws_and_tells_its_memory(tmp_path: Path, flags: tuple[str, ...]) -> None:
    graph = json.loads((ROOT / "workflows" / "txt2img.json").read_text(encoding="utf-8"))
    graph["6"]["inputs"]["text"] = "a red circle on a white background"
    with start(tmp_path, "--device", "cuda", *flags) as engine:
        record = engine.finish(graph)
        assert record["status"]["status_str"] == "success", record["status"]
        (stats,) = engine.ask("/system_stats")["devices"]
        assert stats["type"] == "cuda"
        assert 0 < stats["torch_vram_total"] < stats["vram_total"]
    with Image.open(next((tmp_path / "output").glob("*.png"))) as drawn:
        centre, corner = drawn.convert("RGB").getpixel((64, 64)), drawn.convert("RGB").getpixel((4, 4))
    assert isinstance(centre, tuple)
    assert isinstance(corner, tuple)
    assert centre[0] > 180 > 90 > max(centre[1:])
    assert min(corner) > 220
