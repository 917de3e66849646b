"""Latents in files, read and written by safetensors itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from engine.errors import ForbiddenPathError
from engine.latents import Latent
from engine.nodes import latent_files
from engine.nodes.numbering import Numbering
from tests.engine.contexts import RecordingContext
from tests.engine.graphs import make_folders, node
from tests.engine.running import run_graph

VERSION = {"latent_format_version_0": torch.tensor([])}


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    context = RecordingContext(Numbering())
    context.folders = make_folders(tmp_path)
    context.prompt_text = '{"1": "a"}'
    return context


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_what_is_saved_is_what_comfyui_reads(context: RecordingContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "extra_pnginfo", {"workflow": {"a": "é"}})
    samples = draw(2, 4, 3, 5)
    shown = latent_files.save(context, Latent.of(samples), "latents/ComfyUI").ui
    assert shown == {"latents": [{"filename": "ComfyUI_00001_.latent", "subfolder": "latents", "type": "output"}]}
    with safe_open(context.folders.output / "latents/ComfyUI_00001_.latent", "pt") as file:
        assert set(file.keys()) == {"latent_tensor", "latent_format_version_0"}
        assert torch.equal(file.get_tensor("latent_tensor"), samples)
        assert file.get_tensor("latent_format_version_0").shape == (0,)
        assert file.metadata() == {"prompt": '{"1": "a"}', "workflow": json.dumps({"a": "é"})}


def test_a_batch_that_shares_its_memory_is_saved_whole(context: RecordingContext) -> None:
    latent_files.save(context, Latent.of(torch.zeros(1, 4, 2, 2).expand(3, -1, -1, -1)), "a")
    [loaded] = latent_files.load(context, "a_00001_.latent [output]")
    assert loaded.samples.shape == (3, 4, 2, 2)
    assert list(loaded.indices) == [0, 1, 2]


def test_files_of_comfyui_are_read(context: RecordingContext) -> None:
    samples = draw(1, 4, 3, 5)
    save_file({"latent_tensor": samples, **VERSION}, context.folders.input / "new.latent")
    save_file({"latent_tensor": samples}, context.folders.input / "old.latent")
    save_file({"latent_tensor": samples.half(), **VERSION}, context.folders.input / "half.latent")
    assert torch.equal(latent_files.load(context, "new.latent")[0].samples, samples)
    old, half = (latent_files.load(context, f"{name}.latent")[0].samples for name in ("old", "half"))
    torch.testing.assert_close(old, samples / 0.18215)
    assert torch.equal(half, samples.half().float())


def test_what_was_loaded_outlives_its_file(context: RecordingContext) -> None:
    path = context.folders.input / "a.latent"
    samples = draw(1, 4, 64, 64)
    save_file({"latent_tensor": samples, **VERSION}, path)
    [loaded] = latent_files.load(context, "a.latent")
    path.write_bytes(b"")
    assert torch.equal(loaded.samples, samples)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "x.latent is no file of latents"),
        (b"junk" * 100, "x.latent is no file of latents"),
        (b"\xff" * 8 + b"{}", "x.latent is no file of latents"),
        ({"other": draw(1)}, "it holds no latent_tensor"),
        ({"latent_tensor": draw(4, 3, 5)}, r"shape \[4, 3, 5\]"),
        ({"latent_tensor": draw(1, 4, 2, 3, 5)}, r"shape \[1, 4, 2, 3, 5\]"),
        ({"latent_tensor": draw(0, 4, 3, 5)}, r"shape \[0, 4, 3, 5\]"),
    ],
)
def test_junk_is_refused_clearly(
    context: RecordingContext, content: bytes | dict[str, torch.Tensor], complaint: str
) -> None:
    path = context.folders.input / "x.latent"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_file(content, path)
    with pytest.raises(ValueError, match=complaint):
        latent_files.load(context, "x.latent")


def test_names_that_can_be_loaded(context: RecordingContext) -> None:
    folders = context.folders
    (folders.input / "sub").mkdir()
    for name in ("b.latent", "a.latent", "picture.png", "sub/c.latent"):
        (folders.input / name).touch()
    (folders.output / "o.latent").touch()
    declared = {each.class_type: each for each in latent_files.NODES}["LoadLatent"]
    assert declared.required["latent"].listed(folders) == ["a.latent", "b.latent"]
    for right in ("a.latent", "sub/c.latent", "o.latent [output]"):
        assert latent_files.check_name(folders, right) is None
    for wrong in ("o.latent", "../output/o.latent", None, 5):
        assert latent_files.check_name(folders, wrong) == f"Invalid latent file: {wrong}"
    with pytest.raises(ForbiddenPathError):
        latent_files.load(context, "../output/o.latent")


def test_a_prefix_stays_in_its_folder(context: RecordingContext) -> None:
    with pytest.raises(ForbiddenPathError):
        latent_files.save(context, Latent.of(draw(1, 4, 1, 1)), "../x")


def test_saving_and_loading_in_the_engine(context: RecordingContext) -> None:
    graph = {
        "1": node("EmptyLatentImage", width=64, height=32, batch_size=2),
        "2": node("LatentUpscaleBy", samples=["1", 0], upscale_method="bislerp", scale_by=1.5),
        "3": node("SaveLatent", samples=["2", 0], filename_prefix="latents/t02"),
    }
    shown = run_graph(graph, context.folders)["outputs"]["3"]
    assert shown == {"latents": [{"filename": "t02_00001_.latent", "subfolder": "latents", "type": "output"}]}
    again = {
        "1": node("LoadLatent", latent="latents/t02_00001_.latent [output]"),
        "2": node("SaveLatent", samples=["1", 0], filename_prefix="again"),
    }
    assert run_graph(again, context.folders)["status"]["status_str"] == "success"
    with safe_open(context.folders.output / "again_00001_.latent", "pt") as file:
        assert file.get_tensor("latent_tensor").shape == (2, 4, 6, 12)
        assert json.loads(file.metadata()["prompt"]) == again
    (context.folders.input / "junk.latent").write_bytes(b"junk")
    record = run_graph({**again, "1": node("LoadLatent", latent="junk.latent")}, context.folders)
    kind, data = record["status"]["messages"][-1]
    assert (kind, data["node_type"]) == ("execution_error", "LoadLatent")
    assert "junk.latent is no file of latents" in data["exception_message"]
