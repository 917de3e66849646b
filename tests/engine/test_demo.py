"""The demo checkpoint: made once, at one stroke, and never a reason for an engine not to start."""

from pathlib import Path

import pytest

from engine import tiny
from engine.device import Device
from engine.models import Models
from engine.shelves import list_checkpoints
from engine.tiny import provide_demo


def test_demo_is_made_once_and_can_be_loaded(tmp_path: Path, device: Device) -> None:
    said: list[str] = []
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    provide_demo(checkpoints, said.append)
    assert len(said) == 1
    assert [path.name for path in checkpoints.iterdir()] == ["demo"]
    Models(device, tmp_path).load("demo")
    provide_demo(checkpoints, said.append)
    assert len(said) == 1


def test_demo_that_breaks_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_half(folder: Path) -> None:
        (folder / "unet").mkdir(parents=True)
        raise OSError("the disk is full")

    monkeypatch.setattr(tiny, "build_tiny", fill_half)
    said: list[str] = []
    provide_demo(tmp_path, said.append)
    assert said[1:] == [f"has no checkpoint {tmp_path / 'demo'}: the disk is full"]
    assert list(tmp_path.iterdir()) == []


def test_demo_of_a_quicker_engine_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def be_overtaken(folder: Path) -> None:
        for demo in (folder, tmp_path / "demo"):
            demo.mkdir()
            (demo / "model_index.json").touch()

    monkeypatch.setattr(tiny, "build_tiny", be_overtaken)
    said: list[str] = []
    provide_demo(tmp_path, said.append)
    assert len(said) == 1
    assert list_checkpoints(tmp_path) == ["demo"]
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
