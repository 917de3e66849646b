"""What a picture tells of how it was made, carried from one format into another.

ComfyUI writes its prompt and workflow as text chunks into PNG, and as EXIF fields such as `prompt:{...}` into WebP; its
web page reads both back, and the latter from AVIF as well. Invariant: what can't be carried is said, and never keeps a
picture from being converted.
"""

import re
from typing import TYPE_CHECKING, Any

from converter.core.order import Format

if TYPE_CHECKING:
    from PIL.Image import Exif, Image

LOST = "metadata that the format has no place for was left out"

_PROMPT = 0x0110
_OTHERS = (0x010F, 0x010E, 0x010D)
"""EXIF's fields of text as ComfyUI uses them: Model for the prompt; Make, ImageDescription and DocumentName."""

ORIENTATION = 0x0112
"""EXIF's field that says how a picture is to be turned."""

_JPEG_EXIF = 65_533
"""Bytes that a segment holds beside its length (T.81 section B.1.1.4)."""

_NAMED = re.compile(r"(\w+):(.*)", re.DOTALL)


def carry(picture: "Image", wanted: Format) -> tuple[dict[str, Any], str | None]:
    """Options for `Image.save` that put the metadata of an open picture into a format, and what is lost by that."""
    try:
        picture.load()  # text may follow the pixels
        texts, exif = _read(picture)
        return _write_png(texts, exif) if wanted == "png" else _write_exif(texts, exif, wanted)
    except Exception:  # a boundary: metadata that others wrote may break any reader
        return {}, LOST


def _read(picture: "Image") -> tuple[dict[str, str], "Exif"]:
    exif = picture.getexif()
    exif.pop(ORIENTATION, None)  # the picture is turned upright
    texts = {key: str(value) for key, value in getattr(picture, "text", {}).items()}
    for tag in (_PROMPT, *_OTHERS):
        found = _NAMED.fullmatch(_decode(exif.get(tag)))
        if found is not None:
            texts.setdefault(found[1], found[2])
            del exif[tag]
    return texts, exif


def _decode(value: object) -> str:
    """Pillow reads texts of EXIF as Latin-1, where programs write UTF-8."""
    data = value if isinstance(value, bytes) else str(value or "").encode("latin-1", "replace")
    return data.decode(errors="replace")


def _write_png(texts: dict[str, str], exif: "Exif") -> tuple[dict[str, Any], str | None]:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    return {"pnginfo": info} | ({"exif": exif.tobytes()} if len(exif) else {}), None


def _write_exif(texts: dict[str, str], exif: "Exif", wanted: Format) -> tuple[dict[str, Any], str | None]:
    fitting = {key: text for key, text in texts.items() if re.fullmatch(r"\w+", key)}
    places = iter(_OTHERS)
    lost = len(fitting) < len(texts)
    for key, text in fitting.items():
        tag = _PROMPT if key == "prompt" else next(places, None)
        if tag is None or tag in exif:
            lost = True
        else:
            exif[tag] = f"{key}:{text}".encode()
    if not len(exif):
        return {}, LOST if lost else None
    data = exif.tobytes()
    if wanted == "jpeg" and len(data) > _JPEG_EXIF:
        return {}, LOST
    return {"exif": data}, LOST if lost else None
