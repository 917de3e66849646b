"""Animations: nodes that save a batch of pictures as one moving picture.

For: SaveAnimatedWEBP, with the inputs, limits and metadata of ComfyUI 0.3.64. Leaves names of files to `numbering`.
Invariant: a batch makes exactly one file, and no file that exists is overwritten.
"""

from __future__ import annotations

import json

from PIL import Image, TiffTags

from engine.nodes.images import Picture, encode
from engine.nodes.numbering import Numbering
from engine.nodes.spec import METADATA, Context, Input, Node, Result

METHODS = {"default": 4, "fastest": 0, "slowest": 6}

_MODEL, _MAKE = 0x0110, 0x010F  # the EXIF tags in which ComfyUI puts the prompt, and what else there is from there down


def save(
    context: Context, images: Picture, filename_prefix: str, fps: float, lossless: bool, quality: int, method: str
) -> Result:
    """Write one WebP into output/, a frame for each picture, all as long as `fps` says, in whole milliseconds.

    Raises ValueError for values that are no numbers, and for sides above WebP's limit of 16383.
    """
    first, *others = [encode(picture) for picture in images]
    metadata = _describe(context)
    numbering = context.service(Numbering)
    names = numbering.create(context.folders.output, filename_prefix, first.width, first.height, 0, "webp")
    with names as (file, subfolder, name):
        first.save(
            file,
            "webp",
            save_all=True,
            append_images=others,
            duration=int(1000 / fps),
            lossless=lossless,
            quality=quality,
            method=METHODS[method],
            exif=metadata,
        )
    entry = {"filename": name, "subfolder": subfolder, "type": "output"}
    return Result(ui={"images": [entry], "animated": (len(images) != 1,)})


def _describe(context: Context) -> Image.Exif:
    """The prompt and the caller's `extra_pnginfo` as texts "name:JSON", one in each tag."""
    metadata = Image.Exif()
    metadata[_MODEL] = f"prompt:{context.prompt_text}"
    # Tags that are numbers by EXIF's definition are passed over: a text in them could not be written.
    tags = (tag for tag in range(_MAKE, 0, -1) if TiffTags.lookup(tag).type in (None, TiffTags.ASCII))
    for tag, (key, value) in zip(tags, (context.extra_pnginfo or {}).items(), strict=False):
        metadata[tag] = f"{key}:{json.dumps(value)}"
    return metadata


NODES = (
    Node(
        "SaveAnimatedWEBP",
        save,
        "image/animation",
        required={
            "images": Input("IMAGE"),
            "filename_prefix": Input("STRING", {"default": "ComfyUI"}),
            "fps": Input("FLOAT", {"default": 6.0, "min": 0.01, "max": 1000.0, "step": 0.01}),
            "lossless": Input("BOOLEAN", {"default": True}),
            "quality": Input("INT", {"default": 80, "min": 0, "max": 100}),
            "method": Input(choices=tuple(METHODS)),
        },
        hidden=METADATA,
        output_node=True,
        description="Saves a batch of pictures as one animated WebP file, with the workflow in it.",
    ),
)
