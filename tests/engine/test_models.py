"""Checkpoints and what is kept of them: read by components, bounded by bytes, and refused with a reason."""

import gc
import json
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from engine.checkpoints import Part, Placement, read_part, read_schedule
from engine.device import Device, Place
from engine.errors import ModelError
from engine.latents import Scale
from engine.memory import OutOfMemoryError
from engine.models import Handle, Models
from engine.pipelines import Autoencoder, Denoiser
from engine.shelves import Source, list_checkpoints
from engine.texts import TextEncoder
from engine.tiny import build_tiny

CPU = Place(torch.device("cpu"), torch.float32)


def test_a_checkpoint_is_a_folder_with_an_index(checkpoints: Path, tmp_path: Path) -> None:
    assert list_checkpoints(checkpoints) == ["tiny"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.ckpt").touch()
    assert list_checkpoints(tmp_path) == []
    assert list_checkpoints(tmp_path / "missing") == []


def test_loading_gives_handles_to_three_parts(models: Models) -> None:
    model, clip, vae = models.load("tiny")
    assert isinstance(models.denoiser(model), Denoiser)
    assert isinstance(models.text_encoder(clip), TextEncoder)
    assert isinstance(models.autoencoder(vae), Autoencoder)
    assert models.denoiser(model) is models.denoiser(Handle("tiny", "model"))
    assert 1_000_000 < models.size < 10_000_000


def test_parts_know_their_numbers(models: Models) -> None:
    model, _, vae = models.load("tiny")
    denoiser = models.denoiser(model)
    assert denoiser.prediction_type == "epsilon"
    assert denoiser.channels == models.autoencoder(vae).channels == 4
    assert denoiser.scale == models.autoencoder(vae).scale == Scale(0.18215)
    assert denoiser.schedule.sigmas[-1] == pytest.approx(14.6146, abs=1e-3)


def test_parts_beyond_the_bound_are_evicted_and_read_again(device: Device, checkpoints: Path) -> None:
    models = Models(device, checkpoints.parent, max_bytes=1_000_000)  # the UNet has 3 MB
    model, clip, _ = models.load("tiny")
    assert models.size < 1_000_000
    encoder = models.text_encoder(clip)
    first = models.denoiser(model)
    assert models.size > 1_000_000, "a part that is larger than the bound is kept alone"
    assert models.text_encoder(clip) is not encoder
    assert models.size < 1_000_000
    assert models.denoiser(model) is not first


@dataclass
class Crowd:
    """The models `tiny` and `other` on an accelerator with `room` bytes of memory, which is made up."""

    models: Models
    room: int
    placed: list[tuple[weakref.ref[torch.nn.Module], int]] = field(default_factory=list)

    def take(self, part: Part, size: int) -> None:
        network = part.network.module if isinstance(part, Denoiser) else getattr(part, "vae", None)
        network = network or cast("TextEncoder", part).towers[0].model
        others = sum(size for held, size in self.placed if held() not in (None, network))
        if others + size > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.placed.append((weakref.ref(network), size))


@pytest.fixture
def crowd(checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crowd]:
    (tmp_path / "checkpoints").mkdir()
    for name in ("tiny", "other"):
        (tmp_path / "checkpoints" / name).symlink_to(checkpoints / "tiny")
    place = Placement.perform

    def perform(placement: Placement, where: Place) -> int:
        size = place(placement, where)
        made.take(placement.part, size)
        return size

    with Device() as device:
        made = Crowd(Models(device, tmp_path), room=1 << 30)
        device.make_room = made.models.make_room
        monkeypatch.setattr(Placement, "perform", perform)
        yield made


def test_what_was_used_longest_ago_makes_room_on_a_full_accelerator(crowd: Crowd) -> None:
    model, clip, vae = crowd.models.load("tiny")
    crowd.room = crowd.models.size
    encoder, autoencoder = id(crowd.models.text_encoder(clip)), id(crowd.models.autoencoder(vae))
    first = weakref.ref(crowd.models.denoiser(model))
    crowd.models.text_encoder(clip)
    crowd.models.autoencoder(vae)
    crowd.models.text_encoder(Handle("other", "clip"))
    assert first() is None
    assert (id(crowd.models.text_encoder(clip)), id(crowd.models.autoencoder(vae))) == (encoder, autoencoder)
    crowd.models.load("other")
    assert crowd.models.size <= crowd.room


def test_what_is_used_makes_no_room(crowd: Crowd) -> None:
    model, clip, _ = crowd.models.load("tiny")
    crowd.room = crowd.models.size
    used = crowd.models.denoiser(model)
    encoder = weakref.ref(crowd.models.text_encoder(clip))
    with pytest.raises(OutOfMemoryError, match="CUDA out of memory"):
        crowd.models.denoiser(Handle("other", "model"))
    assert encoder() is None
    assert crowd.models.denoiser(model) is used
    del used
    assert crowd.models.denoiser(Handle("other", "model")).channels == 4


def test_what_does_not_fit_alone_runs_out_of_memory_and_nothing_else_does(crowd: Crowd) -> None:
    crowd.models.load("tiny")
    crowd.room = crowd.models.size // 2
    with pytest.raises(OutOfMemoryError):
        crowd.models.denoiser(Handle("other", "model"))
    assert crowd.models.size == 0
    assert len(crowd.models.text_encoder(Handle("tiny", "clip")).towers) == 1


def test_unloading_forgets_all_and_handles_stay_good(device: Device, checkpoints: Path) -> None:
    models = Models(device, checkpoints.parent)
    _, clip, _ = models.load("tiny")
    encoder = models.text_encoder(clip)
    models.unload()
    assert models.size == 0
    assert models.text_encoder(clip) is not encoder


def test_many_threads_read_a_part_once(device: Device, checkpoints: Path) -> None:
    models = Models(device, checkpoints.parent)
    found: list[Denoiser] = []
    threads = [
        threading.Thread(target=lambda: found.append(models.denoiser(Handle("tiny", "model")))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    assert len({id(denoiser) for denoiser in found}) == 1


@pytest.mark.parametrize("name", ["missing", "", "..", "../tiny", "tiny/unet"])
def test_a_name_that_is_no_checkpoint_is_refused(models: Models, name: str) -> None:
    with pytest.raises(ModelError, match="there is no checkpoint"):
        models.load(name)


def _remove_unet_weights(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()


def _break_unet_weights(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"junk" * 100)


def _break_scheduler(folder: Path) -> None:
    (folder / "scheduler" / "scheduler_config.json").write_text("{")


def _name_other_unet(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index["unet"] = ["diffusers", "SuperNet"]
    (folder / "model_index.json").write_text(json.dumps(index))


def _forget_unet(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    del index["unet"]
    (folder / "model_index.json").write_text(json.dumps(index))


def _predict_samples(folder: Path) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "sample"}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_remove_unet_weights, "its unet cannot be read"),
        (_break_unet_weights, "its unet cannot be read"),
        (_break_scheduler, "scheduler_config.json cannot be read"),
        (_name_other_unet, "diffusers.SuperNet, which this engine does not run"),
        (_forget_unet, "has no unet"),
        (_predict_samples, "models that predict 'sample' are not run"),
    ],
)
def test_a_broken_checkpoint_is_refused_with_a_reason(
    device: Device, checkpoints: Path, tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    shutil.copytree(checkpoints / "tiny", tmp_path / "checkpoints" / "broken")
    damage(tmp_path / "checkpoints" / "broken")
    with pytest.raises(ModelError, match=reason) as refused:
        Models(device, tmp_path).load("broken")
    assert "broken" in str(refused.value)
    assert str(tmp_path) not in str(refused.value), "paths of the server are not told"


def test_weights_in_half_precision_are_found(device: Device, checkpoints: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoints / "tiny", tmp_path / "checkpoints" / "half")
    for weights in (tmp_path / "checkpoints" / "half").glob("*/*.safetensors"):
        weights.rename(weights.with_suffix(".fp16.safetensors"))
    models = Models(device, tmp_path)
    models.load("half")
    assert models.size > 1_000_000


def test_the_same_seed_makes_the_same_checkpoint(checkpoints: Path, tmp_path: Path) -> None:
    build_tiny(tmp_path / "again")
    build_tiny(tmp_path / "other", seed=1)
    size = 0
    for path in sorted((checkpoints / "tiny").rglob("*")):
        if path.is_file():
            again = tmp_path / "again" / path.relative_to(checkpoints / "tiny")
            assert path.read_bytes() == again.read_bytes(), path.name
            size += path.stat().st_size
    assert size < 10_000_000
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() != (tmp_path / "other" / weights).read_bytes()


def test_levels_of_other_schedules_are_read() -> None:
    linear = read_schedule({"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "steps_offset": 1})
    betas = np.linspace(0.0001, 0.02, 1000)
    assert linear.alphas_cumprod == pytest.approx(np.cumprod(1 - betas), rel=1e-3)
    without_signal = read_schedule({"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True})
    assert without_signal.sigmas[-1] > 1000


def test_a_placed_part_is_ready_to_run(checkpoints: Path) -> None:
    part = read_part(Source("tiny", checkpoints / "tiny"), "model")
    assert isinstance(part, Denoiser)
    size = Placement(part).perform(CPU)
    assert size == sum(parameter.numel() * 4 for parameter in part.network.module.parameters())
    assert not part.network.module.training
    assert not any(parameter.requires_grad for parameter in part.network.module.parameters())


def test_an_autoencoder_is_laid_out_as_processors_like_it(checkpoints: Path) -> None:
    part = read_part(Source("tiny", checkpoints / "tiny"), "vae")
    assert isinstance(part, Autoencoder)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = part.decode(CPU, latents, 1)
        Placement(part).perform(CPU)
        assert float((part.decode(CPU, latents, 1) - before).abs().max()) < 1e-5
    assert part.vae.decoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_models_that_are_warm_have_the_one_that_ships_at_hand(device: Device, tmp_path: Path) -> None:
    models = Models(device, tmp_path)
    models.warm_up()
    size = models.size
    assert size > 20_000_000
    models.projection(models.load("demo")[0])
    assert models.size == size


def test_nothing_is_read_while_the_packages_are_imported(
    device: Device, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = Models(device, checkpoints.parent)
    reading, early = threading.Event(), []
    caller = threading.Thread(target=models.load, args=("tiny",))

    def note(*arguments: Any) -> Part:
        reading.set()
        return read_part(*arguments)

    def import_slowly(name: str) -> None:
        if caller.ident is None:
            caller.start()
            early.append(reading.wait(0.5))

    monkeypatch.setattr("engine.checkpoints.read_part", note)
    monkeypatch.setattr("engine.models.import_module", import_slowly)
    models.warm_up()
    caller.join()
    assert early == [False]
    assert reading.is_set()


def test_a_model_that_cannot_be_warmed_up_is_left_cold(
    device: Device, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = tmp_path / "checkpoints" / "demo"
    own.mkdir(parents=True)
    (own / "model_index.json").write_text("{}", encoding="utf-8")
    models = Models(device, tmp_path)
    models.warm_up()
    assert models.size == 0
    assert "demo is not at hand" in caplog.text
    closed = Device()
    with closed:
        pass
    Models(closed, tmp_path).warm_up()


def test_what_others_make_while_models_are_warmed_up_is_collected(tmp_path: Path) -> None:
    class Knot:
        """Refers to itself, so that only the collector lets go of it."""

        def __init__(self) -> None:
            self.knot = self

    knot = Knot()
    seen = weakref.ref(knot)
    with Device("cpu") as device:
        Models(device, tmp_path).warm_up()
    assert gc.isenabled()
    del knot
    gc.collect()
    assert seen() is None


def test_everything_that_a_checkpoint_needs_can_be_imported_before(checkpoints: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from engine.models import Preload
Preload().perform(None)
before = set(sys.modules)
from engine.checkpoints import read_part
from engine.shelves import Source
for part in ("model", "clip", "vae"):
    read_part(Source("tiny", Path({str(checkpoints / "tiny")!r})), part)
late = {{name for name in set(sys.modules) - before if name.startswith(("diffusers.models", "transformers.models"))}}
assert not late, late
"""
    subprocess.run([sys.executable, "-c", program], timeout=120, check=True)
