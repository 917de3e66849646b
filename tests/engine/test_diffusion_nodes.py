"""The nodes that draw, called as the executor calls them."""

import io
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from engine.device import Device
from engine.errors import InterruptError
from engine.latents import Latent
from engine.models import Handle, Models
from engine.nodes import conditioning, latents, loaders, sampling
from engine.nodes.spec import Context, Folders, Node, Preview
from engine.pipelines import Prediction
from tests.engine.contexts import RecordingContext, read_default_workflow
from tests.engine.waiting import PATIENCE

SKIPPING = "dpm_2", "uni_pc", "uni_pc_bh2"
NODES = {node.class_type: node for family in (loaders, conditioning, latents, sampling) for node in family.NODES}


class CountingDevice(Device):
    """A device that counts the predictions asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.predictions = 0

    def follow(self, course: Any, hear: Any) -> Any:
        def count(work: object, answer: object) -> None:
            self.predictions += isinstance(work, Prediction)
            hear(work, answer)

        return super().follow(course, count)


class CountingContext(RecordingContext):
    """A context that notes how many predictions there were when the prompt was interrupted."""

    device: CountingDevice
    noted = 0

    @contextmanager
    def interruptible(self, future: Future[Any]) -> Iterator[None]:
        try:
            with super().interruptible(future):
                yield
        except InterruptError:
            self.noted = self.device.predictions
            raise


class SlowContext(RecordingContext):
    """A context that is told of the first step when all have been taken."""

    def interruptible(self, future: Future[Any]) -> Any:
        self.future = future
        return super().interruptible(future)

    def progress(self, value: float, maximum: float, preview: Preview | None = None) -> None:
        self.future.exception(PATIENCE)
        super().progress(value, maximum, preview)


@pytest.fixture
def context(device: Device, models: Models) -> RecordingContext:
    return RecordingContext(device, models)


def call(context: RecordingContext, class_type: str, **inputs: object) -> Any:
    """The first output of a node."""
    given: Context = context
    result = NODES[class_type].function(given, **inputs)
    assert isinstance(result, tuple)
    assert len(result) == len(NODES[class_type].outputs)
    return result[0]


def draw(context: RecordingContext, latent: Latent | None = None, **changes: object) -> Latent:
    """KSampler with ComfyUI's defaults, but for the changes."""
    clip, model = Handle("tiny", "clip"), Handle("tiny", "model")
    inputs: dict[str, object] = {
        "model": model,
        "seed": 5,
        "steps": 4,
        "cfg": 8.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "positive": call(context, "CLIPTextEncode", text="a red circle", clip=clip),
        "negative": call(context, "CLIPTextEncode", text="", clip=clip),
        "latent_image": latent or call(context, "EmptyLatentImage", width=64, height=64, batch_size=1),
        "denoise": 1.0,
    }
    return cast("Latent", call(context, "KSampler", **{**inputs, **changes}))


def differ(first: torch.Tensor, second: torch.Tensor) -> float:
    """The largest difference, in the latents' standard deviation: an untrained model does not bring it down to 1."""
    return float((first - second).abs().max() / first.std())


def decode(context: RecordingContext, latent: Latent) -> NDArray[np.float32]:
    return cast("NDArray[np.float32]", call(context, "VAEDecode", samples=latent, vae=Handle("tiny", "vae")))


def test_the_shipped_workflow_fits_the_declarations() -> None:
    for node in read_default_workflow().values():
        if node["class_type"] in NODES:
            assert set(node["inputs"]) == set(NODES[node["class_type"]].required)


def test_a_workflow_by_hand_draws_a_picture(context: RecordingContext, models: Models) -> None:
    model, _, _ = NODES["CheckpointLoaderSimple"].function(context, ckpt_name="tiny")
    picture = decode(context, draw(context, model=model))
    assert picture.shape == (1, 64, 64, 3)
    assert picture.dtype == np.float32
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert picture.std() > 0.02, "neither black nor gray"


def test_progress_and_previews_come_at_each_step(context: RecordingContext) -> None:
    draw(context, steps=3, sampler_name="heun")
    assert [(value, maximum) for value, maximum, _ in context.reports] == [(1, 3), (2, 3), (3, 3)]
    for _, _, preview in context.reports:
        assert preview is not None
        assert preview.format == "jpeg"
        assert Image.open(io.BytesIO(preview.data)).size == (512, 512)


@pytest.mark.parametrize("steps", [4, 9])
def test_who_is_told_late_has_no_previews_of_steps_that_others_have_followed(
    device: Device, models: Models, steps: int
) -> None:
    context = SlowContext(device, models)
    draw(context, steps=steps)
    assert [value for value, _, _ in context.reports] == [*range(1, steps + 1)]
    # The end waits to be told as the steps do.
    late = [preview is None for _, _, preview in context.reports[1:]]
    assert late == [steps - number + 1 > 4 for number in range(2, steps + 1)]


def test_nothing_is_previewed_for_nobody(context: RecordingContext) -> None:
    context.previews = False
    draw(context, steps=2)
    assert context.reports == [(1, 2, None), (2, 2, None)]


@pytest.mark.parametrize(
    ("sampler", "levels"), [("euler", [999, 749, 499, 249]), *((each, [999, 799, 599, 399]) for each in SKIPPING)]
)
def test_the_model_is_asked_at_the_levels_of_comfyui(
    device: Device, models: Models, sampler: str, levels: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some samplers take the steps of a run that is longer by one, and leave out the one before its end."""
    begun: list[tuple[int, float]] = []
    follow = device.follow

    def note(course: Any, hear: Any) -> Any:
        def tell(work: Prediction, answer: torch.Tensor) -> None:
            if not begun or begun[-1][0] != work.evaluation.step:  # a step may ask twice
                begun.append((work.evaluation.step, work.evaluation.sigma))
            hear(work, answer)

        return follow(course, tell)

    monkeypatch.setattr(device, "follow", note)
    context = RecordingContext(device, models)
    empty = call(context, "EmptyLatentImage", width=64, height=64, batch_size=1)
    draw(context, empty, steps=4, sampler_name=sampler, scheduler="simple")
    draw_part(context, empty, steps=4, sampler_name=sampler, scheduler="simple")
    expected = models.denoiser(Handle("tiny", "model")).schedule.sigmas[levels]
    assert [sigma for _, sigma in begun] == pytest.approx([*expected, *expected])


def test_the_same_seed_draws_the_same_picture(context: RecordingContext) -> None:
    first, second, other = draw(context), draw(context), draw(context, seed=6)
    assert torch.equal(first.samples, second.samples)
    assert float((first.samples - other.samples).abs().mean()) > 0.1


def test_what_is_asked_for_matters(context: RecordingContext) -> None:
    clip = Handle("tiny", "clip")
    first = draw(context)
    other = draw(context, positive=call(context, "CLIPTextEncode", text="blue", clip=clip))
    unguided = draw(context, cfg=1.0)
    assert float((first.samples - other.samples).abs().max()) > 1e-3
    assert float((first.samples - unguided.samples).abs().max()) > 1e-3
    without_negative = draw(context, cfg=1.0, negative=call(context, "CLIPTextEncode", text="blue", clip=clip))
    assert torch.equal(unguided.samples, without_negative.samples)


def test_sides_of_different_length_meet(context: RecordingContext) -> None:
    long = call(context, "CLIPTextEncode", text="a " * 100, clip=Handle("tiny", "clip"))
    assert long.cues[0].embedding.shape[1] == 2 * 77
    assert torch.isfinite(draw(context, positive=long).samples).all()


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m"])
def test_an_item_of_a_batch_is_the_item_alone(context: RecordingContext, sampler: str) -> None:
    empty = call(context, "EmptyLatentImage", width=64, height=64, batch_size=3)
    together = draw(context, empty, sampler_name=sampler)
    pictures = decode(context, together)
    for index in range(3):
        alone = draw(context, seed=5 + index, sampler_name=sampler)
        assert differ(together.samples[index], alone.samples[0]) <= 1e-4
        assert np.mean(np.abs(pictures[index] - decode(context, alone)[0]) <= 1 / 255) >= 0.999


def test_a_repeated_batch_has_noise_of_its_own(context: RecordingContext) -> None:
    empty = call(context, "EmptyLatentImage", width=64, height=64, batch_size=2)
    repeated = call(context, "RepeatLatentBatch", samples=empty, amount=2)
    assert list(repeated.indices) == [0, 1, 2, 3]
    assert repeated.samples.shape == (4, 4, 8, 8)
    drawn = draw(context, repeated, steps=2).samples
    assert len({tuple(item.flatten().tolist()) for item in drawn}) == 4


def test_an_interrupted_run_asks_for_no_further_step(checkpoints: Path) -> None:
    with CountingDevice() as device:
        context = CountingContext(device, Models(device, checkpoints.parent), interrupt_at=3)
        context.device = device
        with pytest.raises(InterruptError):
            draw(context, steps=500)
    assert 3 <= device.predictions <= context.noted + 1, "the evaluation under way, and no other"
    assert context.noted < 500


def draw_part(context: RecordingContext, latent: Latent, **changes: object) -> Latent:
    """KSamplerAdvanced on what `draw` draws."""
    node = NODES["KSamplerAdvanced"]
    defaults = {name: node.required[name].options.get("default") for name in ("start_at_step", "end_at_step")}
    inputs = {"add_noise": "enable", "noise_seed": 5, "return_with_leftover_noise": "disable", **defaults}
    common = {
        "model": Handle("tiny", "model"),
        "steps": 6,
        "cfg": 8.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "positive": call(context, "CLIPTextEncode", text="a red circle", clip=Handle("tiny", "clip")),
        "negative": call(context, "CLIPTextEncode", text="", clip=Handle("tiny", "clip")),
        "latent_image": latent,
    }
    return cast("Latent", call(context, "KSamplerAdvanced", **{**common, **inputs, **changes}))


@pytest.mark.parametrize("middle", [1, 4])
@pytest.mark.parametrize("scheduler", ["normal", "karras"])
def test_two_parts_of_a_run_draw_what_the_whole_draws(context: RecordingContext, scheduler: str, middle: int) -> None:
    empty = call(context, "EmptyLatentImage", width=64, height=64, batch_size=2)
    whole = draw(context, empty, steps=6, scheduler=scheduler)
    context.reports.clear()
    first = draw_part(
        context, empty, scheduler=scheduler, end_at_step=middle, return_with_leftover_noise="enable", add_noise="enable"
    )
    assert [value for value, _, _ in context.reports] == list(range(1, middle + 1))
    second = draw_part(context, first, scheduler=scheduler, start_at_step=middle, add_noise="disable", noise_seed=77)
    assert differ(second.samples, whole.samples) <= 1e-4
    assert list(second.indices) == [0, 1]


def test_a_whole_run_in_one_part_is_a_run(context: RecordingContext) -> None:
    empty = call(context, "EmptyLatentImage", width=64, height=64, batch_size=1)
    for sampler in ("dpmpp_2m", "dpm_2", "euler_ancestral"):
        drawn, part = (
            draw(context, empty, steps=6, sampler_name=sampler),
            draw_part(context, empty, sampler_name=sampler),
        )
        assert torch.equal(drawn.samples, part.samples)


def test_a_part_that_ends_early_without_leftover_noise_goes_all_the_way_in_its_last_step(
    context: RecordingContext,
) -> None:
    empty = call(context, "EmptyLatentImage", width=64, height=64, batch_size=1)
    part = draw_part(context, empty, scheduler="simple", end_at_step=1)
    assert torch.equal(part.samples, draw(context, empty, scheduler="simple", steps=1).samples)


def test_a_part_beyond_the_last_step_leaves_the_latent_as_it_is(context: RecordingContext) -> None:
    latent = Latent.of(torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)))
    for start, end in ((6, 10000), (3, 2)):
        part = draw_part(context, latent, start_at_step=start, end_at_step=end)
        assert torch.allclose(part.samples, latent.samples)


def test_the_lower_denoise_the_more_of_a_picture_is_kept(context: RecordingContext) -> None:
    picture = np.random.default_rng(0).random((1, 64, 64, 3), dtype=np.float32)
    latent = call(context, "VAEEncode", pixels=picture, vae=Handle("tiny", "vae"))
    kept = [draw(context, latent, denoise=denoise, steps=8) for denoise in (0.0, 0.1, 0.4, 1.0)]
    changes = [float((each.samples - latent.samples).abs().mean()) for each in kept]
    assert changes[0] < 1e-6
    assert changes == sorted(changes)
    assert changes[1] < changes[-1] / 2


def test_pictures_are_cropped_around_their_centre(context: RecordingContext) -> None:
    picture = np.random.default_rng(0).random((1, 70, 67, 4), dtype=np.float32)
    vae = Handle("tiny", "vae")
    latent = call(context, "VAEEncode", pixels=picture, vae=vae)
    assert latent.samples.shape == (1, 4, 8, 8)
    inner = call(context, "VAEEncode", pixels=picture[:, 3:67, 1:65, :3], vae=vae)
    assert torch.equal(latent.samples, inner.samples)


def test_prompts_side_by_side_draw_what_they_draw_alone(device: Device, models: Models) -> None:
    def draw_seed(seed: int) -> torch.Tensor:
        return draw(RecordingContext(device, models), seed=seed).samples

    alone = [draw_seed(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for expected, found in zip(alone, pool.map(draw_seed, range(4)), strict=True):
            assert differ(expected, found) <= 1e-4


def test_a_latent_of_other_channels_is_refused(context: RecordingContext) -> None:
    with pytest.raises(ValueError, match="the latent has 16 channels and the model needs 4"):
        draw(context, Latent.of(torch.ones(1, 16, 8, 8)))


def test_an_empty_latent_fits_any_model(context: RecordingContext) -> None:
    found, expected = (draw(context, Latent.of(torch.zeros(1, channels, 8, 8))) for channels in (16, 4))
    assert torch.equal(found.samples, expected.samples)


def test_a_latent_that_is_no_number_is_refused(context: RecordingContext) -> None:
    with pytest.raises(FloatingPointError, match="step 1 is not finite"):
        draw(context, Latent.of(torch.full((1, 4, 8, 8), float("nan"))))


def test_choices_of_checkpoints_are_those_on_disk_and_the_one_that_ships(checkpoints: Path, tmp_path: Path) -> None:
    chosen = NODES["CheckpointLoaderSimple"].required["ckpt_name"]
    (tmp_path / "checkpoints").symlink_to(checkpoints)
    assert chosen.listed(Folders(tmp_path, tmp_path, tmp_path, tmp_path)) == ["demo", "tiny"]
    assert chosen.listed(Folders(tmp_path / "none", tmp_path, tmp_path, tmp_path)) == ["demo"]


def limits(node: Node, name: str) -> tuple[object, ...]:
    options = node.required[name].options
    return tuple(options.get(key) for key in ("default", "min", "max", "step"))


def test_limits_are_comfyuis() -> None:
    sampler, empty = NODES["KSampler"], NODES["EmptyLatentImage"]
    assert limits(sampler, "seed") == (0, 0, 2**64 - 1, None)
    assert limits(sampler, "steps") == (20, 1, 10000, None)
    assert limits(sampler, "cfg") == (8.0, 0.0, 100.0, 0.1)
    assert limits(sampler, "denoise") == (1.0, 0.0, 1.0, 0.01)
    advanced = NODES["KSamplerAdvanced"]
    assert limits(advanced, "noise_seed") == (0, 0, 2**64 - 1, None)
    assert limits(advanced, "start_at_step") == (0, 0, 10000, None)
    assert limits(advanced, "end_at_step") == (10000, 0, 10000, None)
    assert limits(empty, "width") == limits(empty, "height") == (512, 16, 16384, 8)
    assert limits(empty, "batch_size") == (1, 1, 4096, None)
    assert limits(NODES["RepeatLatentBatch"], "amount") == (1, 1, 64, None)


def test_declaring_nodes_takes_no_torch() -> None:
    program = (
        "import sys\n"
        "from engine.nodes import conditioning, latents, loaders, sampling\n"
        "import engine.device, engine.models\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)


@pytest.mark.parametrize(("message", "doubts"), [("CUDA error: misaligned address", 1), ("no", 0)])
def test_whoever_sees_first_that_the_accelerator_is_lost_has_the_device_look(
    message: str, doubts: int, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubted: list[int] = []

    def fail(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        raise RuntimeError(message)

    monkeypatch.setattr("engine.transfer.fetch_all", fail)
    with Device() as device:
        monkeypatch.setattr(device, "doubt", lambda: doubted.append(1))
        with pytest.raises(RuntimeError, match=message):
            draw(RecordingContext(device, models))
    assert len(doubted) == doubts
