"""Nodes of masks, called as the engine calls them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.nodes import images, masks
from engine.nodes.spec import Folders
from tests.engine.contexts import RecordingContext
from tests.engine.graphs import make_folders, node
from tests.engine.running import run_graph

CONTEXT = RecordingContext()
CHANNELS = ("red", "green", "blue", "alpha")


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    context = RecordingContext()
    context.folders = make_folders(tmp_path)
    return context


def put(folders: Folders, name: str, image: Image.Image, **options: Any) -> None:
    image.save(folders.input / name, **options)


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "L", "LA", "P"])
@pytest.mark.parametrize("channel", CHANNELS)
def test_a_channel_is_what_pillow_has_there(context: RecordingContext, mode: str, channel: str) -> None:
    drawn = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)).convert(mode)
    put(context.folders, "drawn.png", drawn)
    [mask] = masks.load(context, "drawn.png", channel)
    values = np.asarray(drawn.convert("RGBA").getchannel(CHANNELS.index(channel)), np.float32) / 255
    assert mask.dtype == np.float32
    np.testing.assert_allclose(mask, (1 - values if channel == "alpha" else values)[np.newaxis], atol=1e-6)


def test_what_is_transparent_in_a_palette(context: RecordingContext) -> None:
    palette = Image.new("P", (3, 2))
    palette.putpalette([0, 0, 0, 255, 255, 255])
    put(context.folders, "palette.png", palette, transparency=0)
    assert masks.load(context, "palette.png", "alpha")[0].tolist() == np.ones((1, 2, 3)).tolist()


def test_rotation_and_depth(context: RecordingContext) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    put(context.folders, "turned.jpg", Image.new("RGB", (4, 2)), exif=exif)
    assert masks.load(context, "turned.jpg", "alpha")[0].shape == (1, 4, 2)
    put(context.folders, "deep.png", Image.fromarray(np.full((2, 2), 0x8000, np.uint16)))
    np.testing.assert_allclose(masks.load(context, "deep.png", "green")[0], 0x8000 / 0xFFFF, atol=1e-6)
    assert not masks.load(context, "deep.png", "alpha")[0].any()


def test_a_mask_as_a_picture_and_back() -> None:
    mask = np.random.default_rng(0).random((2, 3, 4), np.float32)
    [picture] = masks.to_image(CONTEXT, mask)
    assert picture.shape == (2, 3, 4, 3)
    for channel in CHANNELS[:3]:
        np.testing.assert_array_equal(masks.from_image(CONTEXT, picture, channel)[0], mask)


def test_each_channel_of_a_picture() -> None:
    picture = np.random.default_rng(0).random((2, 3, 5, 4), np.float32)
    for index, channel in enumerate(CHANNELS):
        np.testing.assert_array_equal(masks.from_image(CONTEXT, picture, channel)[0], picture[:, :, :, index])
    with pytest.raises(ValueError, match="the picture has no alpha channel"):
        masks.from_image(CONTEXT, picture[..., :3], "alpha")


@given(value=st.floats(0, 1, width=32), width=st.integers(1, 20), height=st.integers(1, 20))
def test_a_plain_mask_and_its_opposite(value: float, width: int, height: int) -> None:
    [mask] = masks.make_solid(CONTEXT, value, width, height)
    assert mask.shape == (1, height, width)
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) == {np.float32(value)}
    np.testing.assert_allclose(masks.invert(CONTEXT, mask)[0], np.full((1, height, width), 1 - value), atol=1e-6)


def test_masks_in_a_row_in_the_engine(context: RecordingContext) -> None:
    put(context.folders, "hole.png", Image.new("RGBA", (6, 4), (10, 20, 30, 51)))
    graph = {
        "1": node("LoadImageMask", image="hole.png", channel="alpha"),
        "2": node("InvertMask", mask=["1", 0]),
        "3": node("MaskToImage", mask=["2", 0]),
        "4": node("ImageToMask", image=["3", 0], channel="blue"),
        "5": node("MaskToImage", mask=["4", 0]),
        "6": node("SaveImage", images=["5", 0], filename_prefix="mask"),
        "7": node("SolidMask", value=1.0, width=3, height=2),
        "8": node("MaskToImage", mask=["7", 0]),
        "9": node("SaveImage", images=["8", 0], filename_prefix="solid"),
    }
    assert run_graph(graph, context.folders)["status"]["status_str"] == "success"
    with Image.open(context.folders.output / "mask_00001_.png") as saved:
        np.testing.assert_allclose(np.asarray(saved), np.full((4, 6, 3), 51), atol=1)
    with Image.open(context.folders.output / "solid_00001_.png") as saved:
        assert np.asarray(saved).tolist() == np.full((2, 3, 3), 255).tolist()


def test_a_changed_file_is_loaded_again(context: RecordingContext) -> None:
    ask = {declared.class_type: declared.is_changed for declared in masks.NODES}["LoadImageMask"]
    assert ask is images.hash_image
    put(context.folders, "a.png", Image.new("RGB", (1, 1), "red"))
    first = ask(context.folders, {"image": "a.png", "channel": "red"})
    put(context.folders, "a.png", Image.new("RGB", (1, 1), "blue"))
    assert ask(context.folders, {"image": "a.png", "channel": "red"}) != first
