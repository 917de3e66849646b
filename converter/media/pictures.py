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
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as picture:
            if getattr(picture, "is_animated", False):
                return Converted(data, None, "the picture is animated and was left as it is")
            picture.load()
            flat, warning = _flatten(picture) if wanted == "jpeg" else (picture, None)
            buffer = io.BytesIO()
            flat.save(buffer, wanted, **({} if wanted == "png" else {"quality": quality}))
            return Converted(buffer.getvalue(), wanted, warning)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        return Converted(data, None, "the picture can't be read and was left as it is")


def _flatten(picture: "Image") -> "tuple[Image, str | None]":
    """JPEG has no transparency: what shines through is white."""
    from PIL import Image

    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture.convert("RGB"), None
    ground = Image.new("RGBA", picture.size, "white")
    ground.alpha_composite(picture.convert("RGBA"))
    return ground.convert("RGB"), "transparent parts were laid on white, since jpeg has no transparency"
