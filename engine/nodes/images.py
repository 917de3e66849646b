"""Nodes of pictures: making, loading, changing and saving them.

For: EmptyImage, LoadImage, ImageScale, ImageScaleBy, ImageCrop, ImageInvert, ImageBatch, SaveImage, PreviewImage and
SaveImageWebsocket, with the names, inputs and limits of ComfyUI 0.3.64. Leaves resampling to `resize`, effects to
`filters` and file names to `numbering`.
Invariant: no file that exists is ever overwritten, and none is written outside its folder.
"""

from __future__ import annotations

import io
import json
import random
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence
from PIL.PngImagePlugin import PngInfo

from engine.nodes.inputs import hash_file, is_file, list_files
from engine.nodes.numbering import Numbering
from engine.nodes.resize import METHODS, crop_to_aspect, resize
from engine.nodes.spec import MAX_RESOLUTION, METADATA, Context, Folders, Input, Node, Output, Preview, Result, measure
from engine.paths import find_annotated

Picture: TypeAlias = NDArray[np.float32]

_LETTERS = 5
_NO_MASK = (64, 64)  # what LoadImage gives as the mask of a picture without alpha


def make_empty(context: Context, width: int, height: int, batch_size: int = 1, color: int = 0) -> tuple[Picture]:
    """Pictures of one colour, 0xRRGGBB."""
    context.claim(measure(batch_size, height, width))
    picture = np.empty((batch_size, height, width, 3), np.float32)
    picture[:] = [(color >> shift & 0xFF) / 0xFF for shift in (16, 8, 0)]
    return (picture,)


def load(context: Context, image: str) -> tuple[Picture, Picture]:
    """IMAGE and MASK of a file; of several frames, those of the first one's size.

    The mask is 1 where the picture is transparent, and 64 x 64 zeros for a picture without alpha.
    """
    pictures: list[Picture] = []
    masks: list[Picture] = []
    with Image.open(find_annotated(context.folders, image)) as file:
        # The further pictures of an MPO file are views of the first for other purposes.
        frames = [file] if file.format == "MPO" else ImageSequence.Iterator(file)
        for frame in frames:
            upright = ImageOps.exif_transpose(frame)
            colours = take_colours(upright)
            if pictures and colours.shape != pictures[0].shape:
                continue
            context.claim(colours.nbytes)
            mask = take_mask(upright)
            pictures.append(colours)
            masks.append(np.zeros(_NO_MASK, np.float32) if mask is None else mask)
    return np.stack(pictures), np.stack(masks)


def take_colours(image: Image.Image) -> Picture:
    """The colours of a picture, [H, W, 3] in 0..1."""
    if image.mode.startswith("I"):
        # Grey of 16 bits, which Pillow would cut off at 255.
        grey = np.asarray(image, np.float32).clip(0, 0xFFFF) / np.float32(0xFFFF)
        return np.repeat(grey[..., np.newaxis], 3, axis=-1)
    if image.mode == "P":
        # Straight to RGB, Pillow would warn of every palette in which a colour is half transparent.
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"), np.float32) / np.float32(0xFF)


def take_mask(image: Image.Image) -> Picture | None:
    """Where a picture is transparent, [H, W]; None for one without alpha."""
    if "A" in image.getbands() or "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A")
        return np.float32(1) - np.asarray(alpha, np.float32) / np.float32(255)
    return None


def check_image_name(folders: Folders, value: object) -> str | None:
    """Whether a LoadImage value names a file."""
    return None if is_file(folders, value) else f"Invalid image file: {value}"


def hash_image(folders: Folders, constants: Mapping[str, object]) -> object:
    """The content of the file that a LoadImage names."""
    return hash_file(folders, constants["image"])


def scale(context: Context, image: Picture, upscale_method: str, width: int, height: int, crop: str) -> tuple[Picture]:
    """Resize to width x height; a side of 0 follows from the other, and 0 x 0 leaves the picture as it is."""
    rows, columns = image.shape[1:3]
    if width == 0 and height == 0:
        return (image,)
    width = width or max(1, round(columns * height / rows))
    height = height or max(1, round(rows * width / columns))
    if crop == "center":
        image = crop_to_aspect(image, width, height)
    context.claim(measure(len(image), height, width, image.shape[-1]))
    return (resize(image, width, height, upscale_method),)


def scale_by(context: Context, image: Picture, upscale_method: str, scale_by: float) -> tuple[Picture]:
    """Resize both sides by a factor."""
    rows, columns = image.shape[1:3]
    width, height = max(1, round(columns * scale_by)), max(1, round(rows * scale_by))
    context.claim(measure(len(image), height, width, image.shape[-1]))
    return (resize(image, width, height, upscale_method),)


def crop(context: Context, image: Picture, width: int, height: int, x: int, y: int) -> tuple[Picture]:
    """The part that begins at x, y; what would lie outside the picture is left out, but for one pixel a side."""
    rows, columns = image.shape[1:3]
    x, y = min(x, columns - 1), min(y, rows - 1)
    return (image[:, y : y + height, x : x + width].copy(),)


def invert(context: Context, image: Picture) -> tuple[Picture]:
    """One minus every value."""
    return (1 - image,)


def join(context: Context, image1: Picture, image2: Picture) -> tuple[Picture]:
    """Both batches in one; pictures of the second are fitted to the size of the first."""
    context.claim(measure(len(image1) + len(image2), *image1.shape[1:]))
    if image1.shape[1:3] != image2.shape[1:3]:
        rows, columns = image1.shape[1:3]
        image2 = resize(crop_to_aspect(image2, columns, rows), columns, rows, "bilinear")
    return (np.concatenate([image1, image2]),)


def save(context: Context, images: Picture, filename_prefix: str = "ComfyUI") -> Result:
    """Write PNGs into output/ with the prompt and the caller's `extra_pnginfo` in them."""
    return _write(context, images, context.folders.output, "output", filename_prefix, compress_level=4)


def preview(context: Context, images: Picture) -> Result:
    """Write PNGs into temp/."""
    name = "ComfyUI_temp_" + "".join(random.choices(string.ascii_lowercase, k=_LETTERS))
    return _write(context, images, context.folders.temp, "temp", name, compress_level=1)


def _write(context: Context, images: Picture, folder: Path, kind: str, prefix: str, *, compress_level: int) -> Result:
    info = PngInfo()
    info.add_text("prompt", context.prompt_text)
    for key, value in (context.extra_pnginfo or {}).items():
        info.add_text(key, json.dumps(value))
    rows, columns = images.shape[1:3]
    numbering = context.service(Numbering)
    entries: list[object] = []
    for index, picture in enumerate(images):
        image = encode(picture)
        with numbering.create(folder, prefix, columns, rows, index) as (file, subfolder, name):
            image.save(file, "png", pnginfo=info, compress_level=compress_level)
        entries.append({"filename": name, "subfolder": subfolder, "type": kind})
    return Result(ui={"images": entries})


def encode(picture: Picture) -> Image.Image:
    """A picture of 8 bits a channel from float [H, W, C]; 255 x, cut off. Raises ValueError for NaN and infinity."""
    scaled = picture * np.float32(255)
    if not np.isfinite(scaled).all():
        raise ValueError("the picture holds values that are no numbers")
    bits = scaled.clip(0, 255).astype(np.uint8)
    return Image.fromarray(bits[..., 0] if bits.shape[-1] == 1 else bits)


def send(context: Context, images: Picture) -> Result:
    """Send PNGs over the websocket, as ComfyUI's SaveImageWebsocket does: nothing is shown in the history."""
    for index, picture in enumerate(images):
        buffer = io.BytesIO()
        encode(picture).save(buffer, "png")
        context.progress(index, len(images), Preview("png", buffer.getvalue(), result=True))
    return Result()


def _never(folders: Folders, constants: Mapping[str, object]) -> object:
    """What was sent is gone: it has to be sent again."""
    return float("nan")


def _side(default: int, minimum: int) -> Input:
    return Input("INT", {"default": default, "min": minimum, "max": MAX_RESOLUTION, "step": 1})


_IMAGE = Input("IMAGE")
_COLOR: dict[str, Any] = {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}

NODES = (
    Node(
        "EmptyImage",
        make_empty,
        "image",
        required={
            "width": _side(512, 1),
            "height": _side(512, 1),
            "batch_size": Input("INT", {"default": 1, "min": 1, "max": 4096}),
            "color": Input("INT", _COLOR),
        },
        outputs=(Output("IMAGE"),),
        description="Makes pictures of one colour.",
    ),
    Node(
        "LoadImage",
        load,
        "image",
        required={"image": Input(choices=list_files, options={"image_upload": True}, check=check_image_name)},
        outputs=(Output("IMAGE"), Output("MASK")),
        display_name="Load Image",
        description="Loads a picture, and where it is transparent as a mask.",
        is_changed=hash_image,
    ),
    Node(
        "ImageScale",
        scale,
        "image/upscaling",
        required={
            "image": _IMAGE,
            "upscale_method": Input(choices=METHODS),
            "width": _side(512, 0),
            "height": _side(512, 0),
            "crop": Input(choices=("disabled", "center")),
        },
        outputs=(Output("IMAGE"),),
        display_name="Upscale Image",
        description="Resizes pictures to a width and a height.",
    ),
    Node(
        "ImageScaleBy",
        scale_by,
        "image/upscaling",
        required={
            "image": _IMAGE,
            "upscale_method": Input(choices=METHODS),
            "scale_by": Input("FLOAT", {"default": 1.0, "min": 0.01, "max": 8.0, "step": 0.01}),
        },
        outputs=(Output("IMAGE"),),
        display_name="Upscale Image By",
        description="Resizes pictures by a factor.",
    ),
    Node(
        "ImageCrop",
        crop,
        "image/transform",
        required={
            "image": _IMAGE,
            "width": _side(512, 1),
            "height": _side(512, 1),
            "x": _side(0, 0),
            "y": _side(0, 0),
        },
        outputs=(Output("IMAGE"),),
        display_name="Image Crop",
        description="Cuts a rectangle out of pictures.",
    ),
    Node(
        "ImageInvert",
        invert,
        "image",
        required={"image": _IMAGE},
        outputs=(Output("IMAGE"),),
        display_name="Invert Image",
        description="Turns each colour into its opposite.",
    ),
    Node(
        "ImageBatch",
        join,
        "image",
        required={"image1": _IMAGE, "image2": _IMAGE},
        outputs=(Output("IMAGE"),),
        display_name="Batch Images",
        description="Joins two batches of pictures into one, in the size of the first.",
    ),
    Node(
        "SaveImage",
        save,
        "image",
        required={
            "images": Input("IMAGE", {"tooltip": "The images to save."}),
            "filename_prefix": Input("STRING", {"default": "ComfyUI", "tooltip": "The name that files begin with."}),
        },
        hidden=METADATA,
        output_node=True,
        display_name="Save Image",
        description="Saves pictures as PNG files, with the workflow in them.",
    ),
    Node(
        "PreviewImage",
        preview,
        "image",
        required={"images": _IMAGE},
        hidden=METADATA,
        output_node=True,
        display_name="Preview Image",
        description="Saves pictures as temporary PNG files.",
    ),
    Node(
        "SaveImageWebsocket",
        send,
        "api/image",
        required={"images": _IMAGE},
        output_node=True,
        description="Sends pictures as PNG over the websocket; no file is written.",
        is_changed=_never,
    ),
)
