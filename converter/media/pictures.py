"""Pictures in the format that a caller asked for, with or without what they tell of how they were made.

Pillow does the work, in a thread. Invariant: a picture that can't be converted without loss of meaning (animated,
not readable) comes back as it was, with a sentence that says why.
"""

import asyncio
import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from converter.core.order import Content, Format, Metadata
from converter.core.stripping import strip
from converter.media.metadata import ORIENTATION, carry

if TYPE_CHECKING:  # Pillow takes 40 ms to import, which a start does not need
    from PIL.Image import Image

DEFAULT_QUALITY = 90
"""Of jpeg, webp and avif, as ComfyUI's `/view` has it."""

BEST_QUALITY = 95
"""For pictures that are encoded anew without having been asked for in another format."""

UNSTRIPPED = "metadata is taken out of png, jpeg and webp alone: this may have some"


@dataclass(frozen=True, slots=True)
class Converted:
    """`warning` says what the caller would not expect; `format` is None where the picture was left as it was."""

    data: bytes
    format: Format | None
    warning: str | None = None


async def convert(data: bytes, wanted: Format, quality: int | None, metadata: Metadata = "keep") -> Converted:
    """The picture in another format. `quality` is 1 to 100 and has no meaning for png."""
    converted = await asyncio.to_thread(_convert, data, wanted, quality or DEFAULT_QUALITY, metadata)
    if metadata == "keep" or converted.format == "avif":  # into which nothing gets that was not carried
        return converted
    bare = await bare_of_metadata(converted.data)
    return replace(bare, format=converted.format, warning=_join(converted.warning, bare.warning))


async def bare_of_metadata(data: bytes) -> Converted:
    """The picture as it is, without metadata, or with a warning that it may have some."""
    return await asyncio.to_thread(_bare, data)


def _bare(data: bytes) -> Converted:
    stripped = strip(data)
    if stripped is None:
        return Converted(data, None, UNSTRIPPED)
    if len(stripped) < len(data) and (form := _turned(data)) is not None:
        turned = _convert(data, form, BEST_QUALITY, "strip")
        return Converted(strip(turned.data) or data, None, turned.warning)
    return Converted(stripped, None)


def _turned(data: bytes) -> Format | None:
    """The format of a picture that only its metadata turns upright."""
    from PIL import Image

    forms: dict[str | None, Format] = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp"}
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return forms.get(picture.format) if picture.getexif().get(ORIENTATION, 1) != 1 else None
    except Exception:  # a boundary, as in `_convert`: what can't be read isn't turned either
        return None


def _convert(data: bytes, wanted: Format, quality: int, metadata: Metadata) -> Converted:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data)) as picture:
            if getattr(picture, "is_animated", False):
                return Converted(data, None, "the picture is animated and was left as it is")
            upright = ImageOps.exif_transpose(picture)
            carried, lost = ({}, None) if metadata == "strip" else carry(picture, wanted)
            fitting, warning = _fit(upright, wanted)
            buffer = io.BytesIO()
            fitting.save(buffer, wanted, **carried, **({} if wanted == "png" else {"quality": quality}))
            return Converted(buffer.getvalue(), wanted, _join(warning, lost))
    except Exception:  # a boundary: what Pillow's readers raise for broken bytes has no common class
        return Converted(data, None, "the picture can't be converted and was left as it is")


def _join(*warnings: str | None) -> str | None:
    return "; ".join(filter(None, warnings)) or None


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


async def show_transparency(content: Content) -> bytes | None:
    """A PNG that is white where the picture is transparent, and black where it is not; None where nothing in it can be
    transparent, or it can't be read.
    """
    return await asyncio.to_thread(_show_transparency, content)


def _show_transparency(content: Content) -> bytes | None:
    from PIL import Image, ImageOps

    try:
        with content.open() as stream, Image.open(stream) as picture:
            if not picture.has_transparency_data:
                return None
            buffer = io.BytesIO()
            ImageOps.invert(ImageOps.exif_transpose(picture).convert("RGBA").getchannel("A")).save(buffer, "png")
            return buffer.getvalue()
    except Exception:  # a boundary: what Pillow's readers raise for broken bytes has no common class
        return None
