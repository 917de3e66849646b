"""Files over HTTP: looking at them and uploading them.

For: /view, /upload/image, /upload/mask, with the answers of ComfyUI 0.3.64. Leaves routing to `server`.
Invariant: no path that a caller names leaves the folder it was named in.
"""

from __future__ import annotations

import asyncio
import io
import json
import mimetypes
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from aiohttp import web
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engine.errors import ForbiddenPathError
from engine.nodes.spec import Folders
from engine.paths import pick_folder, resolve, split_annotation

_ACTIVE_TYPES = {"text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "text/css"}
_DEFAULT_QUALITY = 90


async def view(request: web.Request, folders: Folders) -> web.StreamResponse:
    """GET /view: a file as it is (Range and conditional requests work), recoded (`preview`) or by `channel`."""
    name = request.query.get("filename")
    if not name:
        return web.Response(status=404)
    name, kind = split_annotation(name)
    if name.startswith("/") or ".." in name:
        return web.Response(status=400)
    folder = pick_folder(folders, kind or request.query.get("type", "output"))
    if folder is None:
        return web.Response(status=400)
    try:
        path = resolve(folder, request.query.get("subfolder", ""), PurePosixPath(name).name)
    except ForbiddenPathError:
        return web.Response(status=403)
    if not path.is_file():
        return web.Response(status=404)
    disposition = {"Content-Disposition": f'filename="{_quote(path.name)}"'}
    try:
        if "preview" in request.query:
            kind, body = await asyncio.to_thread(_recode, path, request.query["preview"])
            return web.Response(body=body, content_type=kind, headers=disposition)
        if request.query.get("channel") in ("rgb", "a"):
            body = await asyncio.to_thread(_take_channel, path, request.query["channel"])
            return web.Response(body=body, content_type="image/png", headers=disposition)
    except (OSError, ValueError, Image.DecompressionBombError):
        # Not a picture: there is nothing to recode.
        return web.Response(status=400)
    content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    if content_type in _ACTIVE_TYPES:
        content_type = "application/octet-stream"
    return web.FileResponse(path, headers=disposition | {"Content-Type": content_type})


def _quote(name: str) -> str:
    return re.sub(r'[\x00-\x1f"\\]', "_", name)


def _recode(path: Path, wish: str) -> tuple[str, bytes]:
    """As webp or jpeg; the wish is "format;quality"."""
    wanted, _, quality = wish.partition(";")
    jpeg = wanted == "jpeg"
    with Image.open(path) as image:
        coded = image.convert("RGB") if jpeg and image.mode not in ("RGB", "L") else image
        buffer = io.BytesIO()
        level = min(100, int(quality)) if quality.isascii() and quality.isdigit() else _DEFAULT_QUALITY
        coded.save(buffer, "jpeg" if jpeg else "webp", quality=level)
    return ("image/jpeg" if jpeg else "image/webp"), buffer.getvalue()


def _take_channel(path: Path, channel: str) -> bytes:
    """A PNG of the colours without alpha, or of the alpha alone; without the text of the original."""
    with Image.open(path) as image:
        if channel == "rgb":
            taken = image.convert("RGB")
        else:
            alpha = image.convert("RGBA").getchannel("A")
            taken = Image.new("RGBA", image.size)
            taken.putalpha(alpha)
        taken.info = {}
        buffer = io.BytesIO()
        taken.save(buffer, "png")
    return buffer.getvalue()


async def upload_image(request: web.Request, folders: Folders) -> web.Response:
    """POST /upload/image, multipart: image, overwrite, type, subfolder."""
    return await _upload(request, folders, lambda form, content: content)


async def upload_mask(request: web.Request, folders: Folders) -> web.Response:
    """POST /upload/mask: as an image, but only its alpha is taken, and put onto the picture that `original_ref` names.

    A missing original, or one outside the folders, is answered as if all were well, with nothing written, as ComfyUI
    0.3.64 does.
    """
    return await _upload(request, folders, lambda form, content: _mask_original(folders, form, content))


async def _upload(
    request: web.Request, folders: Folders, prepare: Callable[[Any, bytes], bytes | None]
) -> web.Response:
    if not request.content_type.startswith("multipart/"):
        return web.Response(status=400)
    form = await request.post()
    part = form.get("image")
    if not isinstance(part, web.FileField):
        return web.Response(status=400)
    kind = form.get("type", "input")
    folder = pick_folder(folders, kind)
    if folder is None or not part.filename:
        raise web.HTTPInternalServerError
    subfolder = str(form.get("subfolder", ""))
    # A separator in a file name cannot make a folder: clients send it quoted, and what is not quoted loses the folder.
    name = PurePosixPath(part.filename).name
    try:
        target = resolve(folder, subfolder, name)
    except ForbiddenPathError:
        return web.Response(status=400)
    if name in ("", ".", "..") or target == folder.resolve():
        return web.Response(status=400)
    overwrite = form.get("overwrite") in ("true", "1")

    def store() -> str:
        content = prepare(form, part.file.read())
        return name if content is None else _store(target, content, overwrite)

    stored = await asyncio.to_thread(store)
    return web.json_response({"name": stored, "subfolder": subfolder, "type": kind})


def _store(target: Path, content: bytes, overwrite: bool) -> str:
    """Write a file, under "name (1).ext" and so on if another one has the name. Returns the name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    path, count = target, 0
    while True:
        try:
            with path.open("wb" if overwrite else "xb") as file:
                file.write(content)
            return path.name
        except FileExistsError:
            if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
                return path.name
        count += 1
        path = target.with_name(f"{target.stem} ({count}){target.suffix}")


def _mask_original(folders: Folders, form: Any, content: bytes) -> bytes | None:
    """The original's colours and texts with the upload's alpha, as PNG; None when there is no original."""
    reference = json.loads(form["original_ref"])
    folder = pick_folder(folders, reference.get("type", "output"))
    if folder is None:
        return None
    try:
        path = resolve(folder, reference.get("subfolder", ""), reference["filename"])
    except ForbiddenPathError:
        return None
    if not path.is_file():
        return None
    with Image.open(path) as original, Image.open(io.BytesIO(content)) as mask:
        info = PngInfo()
        for key, text in getattr(original, "text", {}).items():
            info.add_text(key, text)
        masked = original.convert("RGBA")
        masked.putalpha(mask.convert("RGBA").getchannel("A"))
        buffer = io.BytesIO()
        masked.save(buffer, "png", compress_level=4, pnginfo=info)
    return buffer.getvalue()
