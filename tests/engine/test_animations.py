"""Moving pictures, read back by Pillow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from engine.nodes import animations
from engine.nodes.images import Picture
from engine.nodes.numbering import Numbering
from tests.engine.contexts import RecordingContext
from tests.engine.graphs import make_folders, node
from tests.engine.running import run_graph


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    context = RecordingContext(Numbering())
    context.folders = make_folders(tmp_path)
    context.prompt_text = '{"1": "a"}'
    return context


def draw(frames: int) -> Picture:
    return np.random.default_rng(0).integers(0, 256, (frames, 12, 16, 3)).astype(np.float32) / np.float32(255)


def save(context: RecordingContext, pictures: Picture, **changes: Any) -> tuple[Any, Path]:
    """What is shown, and the file."""
    inputs = {"filename_prefix": "moving", "fps": 8.0, "lossless": True, "quality": 80, "method": "fastest"}
    ui: Any = animations.save(context, pictures, **{**inputs, **changes}).ui
    [entry] = ui["images"]
    assert entry["type"] == "output"
    return ui, context.folders.output / entry["subfolder"] / entry["filename"]


def test_every_picture_is_a_frame(context: RecordingContext) -> None:
    pictures = draw(3)
    ui, path = save(context, pictures, filename_prefix="sub/%width%x%height%")
    assert ui == {
        "images": [{"filename": "16x12_00001_.webp", "subfolder": "sub", "type": "output"}],
        "animated": (True,),
    }
    with Image.open(path) as file:
        assert file.format == "WEBP"
        frames, durations = [], []
        for frame in ImageSequence.Iterator(file):
            frames.append(np.asarray(frame.convert("RGB"), np.float32) / 255)
            durations.append(frame.info["duration"])
    assert durations == [125, 125, 125]
    np.testing.assert_allclose(np.stack(frames), pictures, atol=1.1 / 255)


def test_one_picture_stands_still(context: RecordingContext) -> None:
    ui, path = save(context, draw(1))
    assert ui["animated"] == (False,)
    with Image.open(path) as file:
        assert getattr(file, "n_frames", 1) == 1


def test_quality_and_method_matter(context: RecordingContext) -> None:
    pictures = np.repeat(np.linspace(0, 1, 16 * 12 * 3, dtype=np.float32).reshape(1, 12, 16, 3), 2, axis=0)
    pictures[1] = 1 - pictures[1]
    lossy = [save(context, pictures, lossless=False, quality=quality)[1] for quality in (1, 100)]
    sizes = [path.stat().st_size for path in lossy]
    assert sizes[0] < sizes[1]
    assert len({save(context, draw(2), method=method)[1].stat().st_size for method in animations.METHODS}) > 1
    assert len(list(context.folders.output.iterdir())) == 5


def test_the_workflow_is_in_the_file(context: RecordingContext, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"workflow": {"a": "é"}, **{f"more{index}": index for index in range(20)}}
    monkeypatch.setattr(context, "extra_pnginfo", extra)
    _, path = save(context, draw(2))
    with Image.open(path) as file:
        texts = dict(file.getexif())
    assert texts[0x0110] == 'prompt:{"1": "a"}'
    assert texts[0x010F] == f"workflow:{json.dumps(extra['workflow'])}"
    assert texts[0x010E] == "more0:0"
    assert {text.partition(":")[0] for text in texts.values()} == {"prompt", *extra}


def test_what_webp_cannot_hold_leaves_no_file(context: RecordingContext) -> None:
    with pytest.raises(ValueError, match="no numbers"):
        save(context, np.full((1, 2, 2, 3), np.nan, np.float32))
    with pytest.raises(ValueError, match="16383"):
        save(context, np.zeros((1, 1, 16384, 3), np.float32))
    assert list(context.folders.output.iterdir()) == []


def test_it_is_shown_as_comfyui_shows_it(context: RecordingContext) -> None:
    graph = {
        "1": node("EmptyImage", width=16, height=16, batch_size=3, color=3),
        "2": node(
            "SaveAnimatedWEBP",
            images=["1", 0],
            filename_prefix="t18k",
            fps=6.0,
            lossless=True,
            quality=80,
            method="default",
        ),
    }
    record = run_graph(graph, context.folders, extra_data={"extra_pnginfo": {"workflow": {"id": 1}}})
    shown = {"images": [{"filename": "t18k_00001_.webp", "subfolder": "", "type": "output"}], "animated": [True]}
    assert record["outputs"] == {"2": shown}
    with Image.open(context.folders.output / "t18k_00001_.webp") as file:
        texts = file.getexif()
        assert json.loads(texts[0x0110].removeprefix("prompt:")) == graph
        assert texts[0x010F] == 'workflow:{"id": 1}'
