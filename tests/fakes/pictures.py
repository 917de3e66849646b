"""Pictures of one colour, so that a test can tell by pixels which prompt a file came from."""

from io import BytesIO
from typing import Any

from PIL import Image

Pictures = list[Image.Image]


def solid(color: int, width: int = 64, height: int = 64, batch: int = 1) -> Pictures:
    """Pictures of one colour, 0xRRGGBB."""
    rgb = (color >> 16 & 255, color >> 8 & 255, color & 255)
    return [Image.new("RGB", (width, height), rgb)] * batch  # one and the same: no node changes a picture


def encode(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def color_of(data: bytes) -> int:
    """The colour 0xRRGGBB of an encoded picture's first pixel, for a test that wants to know whose picture it got."""
    with Image.open(BytesIO(data)) as picture:
        pixel = picture.convert("RGB").getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return int(pixel[0]) << 16 | int(pixel[1]) << 8 | int(pixel[2])
