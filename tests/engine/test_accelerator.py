"""What holds on a GPU, where there is one; elsewhere these are skipped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from engine.conditioning import Conditioning
from engine.device import Device, Release
from engine.models import Models
from engine.noise import seed_items
from engine.pipelines import TextEncoding, predict_all
from engine.sampling import Sampling
from tests.engine.test_company import CLIP, MODEL, Wish, draw, make_run
from tests.engine.test_device import hold_back
from tests.engine.test_process import ROOT, start
from tests.engine.waiting import PATIENCE

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch knows")

WISH = Wish("euler", "normal", 6, 7.5, 1.0, 1, 1, "a red circle")
WISHES = [
    WISH,
    replace(WISH, sampler="dpmpp_2m", scheduler="karras", steps=4, seed=2, text="a (blue:1.4) star"),
    replace(WISH, sampler="euler_ancestral", seed=3, cfg=1.0),
    replace(WISH, sampler="uni_pc", steps=5, seed=4, batch=2, text="a long one " * 12),
    replace(WISH, sampler="dpmpp_sde", steps=3, seed=5, denoise=0.5),
]


@pytest.fixture(params=["float32", "float16", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def gpu(dtype: str) -> Iterator[Device]:
    with Device("cuda", dtype=dtype) as device:
        yield device


@pytest.fixture
def loaded(gpu: Device, checkpoints: Path) -> Models:
    return Models(gpu, checkpoints.parent)


# Shares of pixels that agree within 2 of 255, on the GPU and on the CPU in float32: an untrained network passes on
# whatever it is given, so that short formats show.
AGREE = {"float32": 0.999, "float16": 0.95, "bfloat16": 0.5}


def test_pictures_are_those_of_the_processor(
    gpu: Device, loaded: Models, device: Device, models: Models, dtype: str
) -> None:
    for wish in WISHES:
        ((_, there),), ((_, here),) = draw(gpu, loaded, [wish]), draw(device, models, [wish])
        share = float(((there - here).abs() <= 2 / 255).float().mean())
        print(f"{dtype} {wish.sampler}: {share:.4f}, most {255 * float((there - here).abs().max()):.1f}")
        assert there.device.type == "cpu"
        assert share >= AGREE[dtype]


# The largest difference of a latent, in standard deviations, and the share of pixels within 1 of 255.
ALONE = {"float32": (1e-3, 0.999), "float16": (0.1, 0.95), "bfloat16": (1.0, 0.5)}


def test_a_picture_hardly_depends_on_its_neighbours(gpu: Device, loaded: Models, dtype: str) -> None:
    furthest, least = ALONE[dtype]
    for wish, (latent, drawn) in zip(WISHES, draw(gpu, loaded, WISHES), strict=True):
        ((own_latent, own_drawn),) = draw(gpu, loaded, [wish])
        apart = float((latent - own_latent).abs().max() / own_latent.std())
        share = float(((drawn - own_drawn).abs() <= 1 / 255).float().mean())
        print(f"{dtype} {wish.sampler}: {apart:.2e}, {share:.4f}")
        assert apart <= furthest
        assert share >= least


def test_a_pass_that_does_not_fit_is_split_until_it_does(checkpoints: Path) -> None:
    tried: list[int] = []
    with Device("cuda", max_rows=1024) as gpu:
        loaded = Models(gpu, checkpoints.parent)
        text = gpu.submit(TextEncoding.of(loaded.text_encoder(CLIP), WISH.text)).result(PATIENCE)
        cues = dict.fromkeys((WISH.text, ""), Conditioning((text,)))
        runs = [
            replace(make_run(loaded, replace(WISH, seed=seed, steps=2), cues), latent=torch.zeros(1, 4, 128, 128))
            for seed in range(8)
        ]
        denoiser = loaded.denoiser(MODEL)
        torch.cuda.reset_peak_memory_stats()
        alone = [gpu.follow(predict_all(denoiser, run), lambda *_: None).result(PATIENCE) for run in runs]
        needed = torch.cuda.max_memory_allocated()
        denoiser.network.module.register_forward_pre_hook(lambda module, given: tried.append(len(given[0])))
        gpu.submit(Release()).result(PATIENCE)
        with at_most(2.5 * needed):
            hold = hold_back(gpu)
            ends = [gpu.follow(predict_all(denoiser, run), lambda *_: None) for run in again(runs)]
            hold.release.set()
            together = [end.result(PATIENCE) for end in ends]
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
