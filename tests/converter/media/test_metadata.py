"""What pictures tell of how they were made goes along into formats that have a place for it, or is taken out."""

import io
import json
from typing import Any

import pytest
from PIL import Image, features
from PIL.PngImagePlugin import PngInfo

from converter.core.order import Format
from converter.media.metadata import LOST
from converter.media.pictures import UNSTRIPPED, bare_of_metadata, convert

PROMPT = {"3": {"class_type": "KSampler", "inputs": {"seed": 7, "text": "größe"}}}
WORKFLOW: dict[str, Any] = {"nodes": [], "links": []}
OTHERS: tuple[Format, ...] = ("jpeg", "webp", "avif")


def made(**texts: Any) -> bytes:
    """A picture as ComfyUI's SaveImage writes it."""
    info = PngInfo()
    for key, value in texts.items():
        info.add_text(key, value if isinstance(value, str) else json.dumps(value))
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def fields(data: bytes) -> dict[int, Any]:
    with Image.open(io.BytesIO(data)) as picture:
        return dict(picture.getexif())


def texts(data: bytes) -> dict[str, Any]:
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        return {key: json.loads(value) for key, value in getattr(picture, "text", {}).items()}


def test_pillow_has_all_formats_here() -> None:
    assert features.check("avif")
    assert features.check("webp")


@pytest.mark.parametrize("wanted", OTHERS)
async def test_a_workflow_lies_where_comfyui_looks_for_it_and_comes_back(wanted: Format) -> None:
    converted = await convert(made(prompt=PROMPT, workflow=WORKFLOW), wanted, None)
    assert (converted.format, converted.warning) == (wanted, None)
    assert fields(converted.data) == {
        0x0110: f"prompt:{json.dumps(PROMPT)}",
        0x010F: f"workflow:{json.dumps(WORKFLOW)}",
    }
    back = await convert(converted.data, "png", None)
    assert back.warning is None
    assert texts(back.data) == {"prompt": PROMPT, "workflow": WORKFLOW}


@pytest.mark.parametrize("wanted", ["webp", "png"])
async def test_letters_beyond_ascii_survive(wanted: Format) -> None:
    first = await convert(made(prompt='"größe 猫"'), "webp", None)
    again = await convert(first.data, "png", None)
    assert texts(again.data) == {"prompt": "größe 猫"}


async def test_what_a_camera_tells_goes_along() -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x8298] = "Camera", 6, "me"
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(buffer, "JPEG", exif=exif)
    converted = await convert(buffer.getvalue(), "webp", None)
    assert fields(converted.data) == {0x010F: "Camera", 0x8298: "me"}, "it is upright by now"
    with Image.open(io.BytesIO(converted.data)) as picture:
        assert picture.size == (10, 20)
    assert fields((await convert(converted.data, "png", None)).data) == {0x010F: "Camera", 0x8298: "me"}


async def test_what_does_not_fit_is_said_to_be_lost() -> None:
    large = made(prompt={"x": "y" * 70_000})
    converted = await convert(large, "jpeg", None)
    assert (converted.format, converted.warning, fields(converted.data)) == ("jpeg", LOST, {})
    assert (await convert(large, "webp", None)).warning is None
    many = await convert(made(prompt=PROMPT, a="1", b="2", c="3", d="4"), "webp", None)
    assert (many.warning, len(fields(many.data))) == (LOST, 4)
    odd = await convert(made(**{"a:b c": "1"}), "webp", None)
    assert (odd.warning, fields(odd.data)) == (LOST, {})


@pytest.mark.parametrize("wanted", ["png", *OTHERS])
async def test_stripped_is_bare(wanted: Format) -> None:
    source = made(prompt=PROMPT, workflow=WORKFLOW)
    if wanted == "png":
        source = (await convert(source, "webp", 90)).data
    converted = await convert(source, wanted, None, "strip")
    assert (converted.format, converted.warning) == (wanted, None)
    assert b"KSampler" not in converted.data
    assert not fields(converted.data)


async def test_a_comment_does_not_stay_in_a_jpeg() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "GIF", comment=b"words")
    assert b"words" not in (await convert(buffer.getvalue(), "jpeg", None, "strip")).data


async def test_without_a_conversion_pixels_stay_as_they_are() -> None:
    data = made(prompt=PROMPT)
    bare = await bare_of_metadata(data)
    assert (bare.format, bare.warning, texts(bare.data)) == (None, None, {})
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(bare.data)) as after:
        assert before.tobytes() == after.tobytes()


async def test_a_picture_that_its_metadata_turned_is_turned_for_good() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(buffer, "JPEG", exif=exif)
    bare = await bare_of_metadata(buffer.getvalue())
    with Image.open(io.BytesIO(bare.data)) as picture:
        assert (picture.size, picture.format, dict(picture.getexif())) == ((10, 20), "JPEG", {})


async def test_what_moves_is_left_and_bare() -> None:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    exif = Image.Exif()
    exif[0x0110] = "prompt:words"
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], exif=exif)
    converted = await convert(buffer.getvalue(), "png", None, "strip")
    assert converted.format is None
    assert converted.warning == "the picture is animated and was left as it is"
    assert b"words" not in converted.data


async def test_what_can_not_be_stripped_is_said() -> None:
    assert (await bare_of_metadata(b"GIF89a")).warning == UNSTRIPPED
