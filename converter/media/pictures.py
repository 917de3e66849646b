"""Conversion of pictures into the format that a caller asked for.

Pillow does the work, in a thread. Invariant: a picture that can't be converted without loss of meaning (animated,
not readable) comes back as it was, with a sentence that says why.
"""

import asyncio
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converter.core.order import Format

if TYPE_CHECKING:  # Pillow takes 40 ms to import, which a start does not need
    from PIL.Image import Image

DEFAULT_QUALITY = 90
"""Of jpeg and webp, as ComfyUI's `/view` has it."""


@dataclass(frozen=True, slots=True)
class Converted:
    """`warning` says what the caller would not expect; `format` is None where the picture was left as it was."""

    data: bytes
    format: Format | None
    warning: str | None = None


async def convert(data: bytes, wanted: Format, quality: int | None) -> Converted:
    """The picture in another format. `quality` is 1 to 100 and has no meaning for png."""
    return await asyncio.to_thread(_convert, data, wanted, DEFAULT_QUALITY if quality is None else quality)


def _convert(data: bytes, wanted: Format, quality: int) -> Converted:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data)) as picture:
            if getattr(picture, "is_animated", False):
                return Converted(data, None, "the picture is animated and was left as it is")
            fitting, warning = _fit(ImageOps.exif_transpose(picture), wanted)
            buffer = io.BytesIO()
            fitting.save(buffer, wanted, **({} if wanted == "png" else {"quality": quality}))
            return Converted(buffer.getvalue(), wanted, warning)
    except Exception:  # a boundary: what Pillow's readers raise for broken bytes has no common class
        return Converted(data, None, "the picture can't be converted and was left as it is")


def _fit(picture: "Image", wanted: Format) -> "tuple[Image, str | None]":
    """The picture in a mode that the format has, and what was lost."""
    if picture.mode.startswith("I;16"):
        if wanted == "png":
            return picture, None
        # Pillow's own conversion does not scale: everything above 255 would be white.
        return picture.point(lambda value: value / 256).convert("L"), "16 bits a channel were made 8"
    if picture.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        picture.info.pop("icc_profile", None)  # it describes the channels that are given up
        return picture.convert("RGB"), None
    if wanted != "jpeg" or not picture.has_transparency_data:
        return (picture.convert("RGB") if wanted == "jpeg" else picture), None
    return _flatten(picture), "transparent parts were laid on white, since jpeg has no transparency"


def _flatten(picture: "Image") -> "Image":
    """JPEG has no transparency: what shines through is white."""
    from PIL import Image

    ground = Image.new("RGBA", picture.size, "white")
    ground.alpha_composite(picture.convert("RGBA"))
    return ground.convert("RGB")
