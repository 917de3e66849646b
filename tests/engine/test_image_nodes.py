"""Nodes of pictures, called as the engine calls them."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from engine.nodes import images
from engine.nodes.inputs import list_files
from engine.nodes.numbering import Numbering
from engine.nodes.resize import resize
from engine.nodes.spec import Folders, Result
from engine.nodes.text import show
from tests.engine.contexts import RecordingContext
from tests.engine.graphs import make_folders


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    context = RecordingContext(Numbering())
    context.folders = make_folders(tmp_path)
    context.prompt_text = '{"1": "é"}'
    return context


def shown(result: Result) -> list[dict[str, str]]:
    assert result.ui is not None
    entries = list(result.ui["images"])
    assert all(isinstance(entry, dict) for entry in entries)
    return [dict(entry) for entry in entries if isinstance(entry, dict)]


def put(folders: Folders, name: str, image: Image.Image, **options: Any) -> None:
    image.save(folders.input / name, **options)


def test_an_empty_image_has_its_colour(context: RecordingContext) -> None:
    [picture] = images.make_empty(context, 3, 2, 4, 0xFF8000)
    assert picture.shape == (4, 2, 3, 3)
    assert picture.dtype == np.float32
    np.testing.assert_allclose(picture[3, 1, 2], [1, 128 / 255, 0], atol=1e-7)


def test_what_is_saved_is_loaded(context: RecordingContext, monkeypatch: pytest.MonkeyPatch) -> None:
    [picture] = images.make_empty(context, 5, 4, 2, 0x102030)
    monkeypatch.setattr(context, "extra_pnginfo", {"workflow": {"a": "é"}, "other": [1]})
    entries = shown(images.save(context, picture, "sub/name"))
    assert entries == [{"filename": f"name_0000{n}_.png", "subfolder": "sub", "type": "output"} for n in (1, 2)]
    path = context.folders.output / "sub" / "name_00001_.png"
    with Image.open(path) as file:
        assert isinstance(file, PngImagePlugin.PngImageFile)
        assert (file.mode, file.size) == ("RGB", (5, 4))
        assert file.text == {"prompt": '{"1": "é"}', "workflow": json.dumps({"a": "é"}), "other": "[1]"}
    loaded, mask = images.load(context, "sub/name_00001_.png [output]")
    np.testing.assert_allclose(loaded, picture[:1], atol=1e-6)
    assert mask.shape == (1, 64, 64)
    assert not mask.any()


def test_a_preview_is_temporary(context: RecordingContext) -> None:
    [entry] = shown(images.preview(context, np.zeros((1, 2, 2, 3), np.float32)))
    assert entry["type"] == "temp"
    assert (context.folders.temp / entry["filename"]).is_file()


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_channels_and_rounding(channels: int, mode: str) -> None:
    picture = np.array([-1.0, 0.999, 2.0, 0.5], np.float32)[:channels].reshape(1, 1, channels)
    image = images.encode(picture)
    assert image.mode == mode
    assert np.asarray(image).reshape(-1).tolist() == [0, 254, 255, 127][:channels]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_not_saved(context: RecordingContext, value: float) -> None:
    with pytest.raises(ValueError, match="no numbers"):
        images.save(context, np.full((1, 2, 2, 3), value, np.float32))
    assert list(context.folders.output.iterdir()) == []


def test_a_mask_is_where_the_picture_is_transparent(context: RecordingContext) -> None:
    put(context.folders, "alpha.png", Image.new("RGBA", (2, 2), (255, 0, 0, 51)))
    picture, mask = images.load(context, "alpha.png")
    assert picture.shape == (1, 2, 2, 3)
    np.testing.assert_allclose(mask, np.full((1, 2, 2), 0.8), atol=1e-6)
    palette = Image.new("P", (2, 2))
    palette.putpalette([0, 0, 0, 255, 255, 255])
    put(context.folders, "palette.png", palette, transparency=0)
    assert images.load(context, "palette.png")[1].min() == 1


def test_rotation_and_depth(context: RecordingContext) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    put(context.folders, "turned.jpg", Image.new("RGB", (4, 2)), exif=exif)
    assert images.load(context, "turned.jpg")[0].shape == (1, 4, 2, 3)
    put(context.folders, "deep.png", Image.fromarray(np.full((2, 2), 0x8000, np.uint16)))
    np.testing.assert_allclose(images.load(context, "deep.png")[0], 0x8000 / 0xFFFF, atol=1e-6)


def test_frames_of_one_size_are_a_batch(context: RecordingContext) -> None:
    frames = [Image.new("RGB", (3, 3), color) for color in ("red", "lime", "blue")]
    frames[0].save(context.folders.input / "moving.gif", save_all=True, append_images=frames[1:])
    picture, mask = images.load(context, "moving.gif")
    assert picture.shape == (3, 3, 3, 3)
    assert len(mask) == 3


def test_names_that_can_be_loaded(context: RecordingContext) -> None:
    folders = context.folders
    (folders.input / "sub").mkdir()
    put(folders, "b.png", Image.new("RGB", (1, 1)))
    put(folders, "sub/a.png", Image.new("RGB", (1, 1)))
    assert list_files(folders) == ["b.png"]
    assert images.check_image_name(folders, "b.png") is None
    assert images.check_image_name(folders, "sub/a.png") is None
    for wrong in ("c.png", "sub", "../x", "b.png [output]", 5, None, "\0"):
        assert images.check_image_name(folders, wrong) == f"Invalid image file: {wrong}"
    content = (folders.input / "b.png").read_bytes()
    assert images.hash_image(folders, {"image": "b.png"}) == hashlib.sha256(content).hexdigest()
    assert list_files(Folders(*(Path("/nowhere"),) * 4)) == []


def test_scaling(context: RecordingContext) -> None:
    [picture] = images.make_empty(context, 8, 4, 1, 0xFFFFFF)
    assert images.scale(context, picture, "bilinear", 0, 0, "disabled")[0] is picture
    assert images.scale(context, picture, "area", 4, 0, "disabled")[0].shape == (1, 2, 4, 3)
    assert images.scale(context, picture, "bicubic", 0, 8, "disabled")[0].shape == (1, 8, 16, 3)
    picture = np.concatenate([np.zeros((1, 4, 2, 3), np.float32), picture[:, :, :4], picture[:, :, :2] * 0], axis=2)
    assert images.scale(context, picture, "nearest-exact", 4, 4, "center")[0].min() == 1


def test_scaling_by_a_factor(context: RecordingContext) -> None:
    picture = np.random.default_rng(0).random((2, 5, 7, 3), np.float32)
    [larger] = images.scale_by(context, picture, "bicubic", 1.5)
    np.testing.assert_array_equal(larger, resize(picture, 10, 8, "bicubic"))  # Python rounds 7.5 to 8
    assert images.scale_by(context, picture, "area", 0.01)[0].shape == (2, 1, 1, 3)
    assert images.scale_by(context, picture, "lanczos", 1.0)[0] is picture


@given(
    sides=st.tuples(*[st.integers(1, 9)] * 2),
    wanted=st.tuples(*[st.integers(1, 12)] * 2),
    at=st.tuples(*[st.integers(0, 12)] * 2),
)
def test_cropping_stays_inside(sides: tuple[int, int], wanted: tuple[int, int], at: tuple[int, int]) -> None:
    (rows, columns), (height, width), (y, x) = sides, wanted, at
    picture = np.arange(rows * columns, dtype=np.float32).reshape(1, rows, columns, 1)
    [part] = images.crop(RecordingContext(), picture, width, height, x, y)
    lines = [line for line in range(rows) if y <= line < y + height] or [rows - 1]
    places = [place for place in range(columns) if x <= place < x + width] or [columns - 1]
    np.testing.assert_array_equal(part, picture[np.ix_([0], lines, places, [0])])


def test_batches_and_inversion(context: RecordingContext) -> None:
    [small] = images.make_empty(context, 4, 4, 1, 0)
    [large] = images.make_empty(context, 8, 6, 2, 0xFFFFFF)
    [both] = images.join(context, small, large)
    assert both.shape == (3, 4, 4, 3)
    assert images.join(context, small, small)[0].shape == (2, 4, 4, 3)
    np.testing.assert_allclose(images.invert(context, both)[0], 1 - both)


def test_pictures_over_the_websocket(context: RecordingContext) -> None:
    [picture] = images.make_empty(context, 4, 3, 2, 0xFF)
    assert images.send(context, picture).ui is None
    assert [(value, maximum) for value, maximum, _ in context.reports] == [(0, 2), (1, 2)]
    for _, _, sent in context.reports:
        assert sent is not None
        assert sent.result
        with Image.open(io.BytesIO(sent.data)) as image:
            assert (image.format, image.size) == ("PNG", (4, 3))


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", "a"), (5, "5"), (2.5, "2.5"), (True, "True"), (None, "None"), ([1, "a"], '[1, "a"]'), ({1}, "{1}")],
)
def test_any_value_is_shown_as_one_text(context: RecordingContext, value: object, text: str) -> None:
    assert show(context, value).ui == {"text": [text]}
