"""Masks: nodes that load them, make them, and turn them into pictures and back.

For: LoadImageMask, MaskToImage, ImageToMask, InvertMask and SolidMask, with the names, inputs and limits of ComfyUI
0.3.64. Leaves opening files to Pillow and their names to `inputs`.
Invariant: a MASK is float32 [B, H, W].
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from engine.nodes.images import Picture, check_image_name, hash_image, take_colours, take_mask
from engine.nodes.inputs import list_files
from engine.nodes.spec import MAX_RESOLUTION, Context, Input, Node, Output, measure
from engine.paths import find_annotated

_COLOURS = ("red", "green", "blue")


def load(context: Context, image: str, channel: str) -> tuple[Picture]:
    """One channel of a file's first picture, [1, H, W]; of alpha what is missing of it, so 0 without alpha."""
    with Image.open(find_annotated(context.folders, image)) as file:
        upright = ImageOps.exif_transpose(file)
        if channel in _COLOURS:
            mask: Picture | None = np.array(take_colours(upright)[..., _COLOURS.index(channel)])
        else:
            mask = take_mask(upright)
        if mask is None:
            mask = np.zeros((upright.height, upright.width), np.float32)
    return (mask[np.newaxis],)


def to_image(context: Context, mask: Picture) -> tuple[Picture]:
    """Grey pictures, [B, H, W, 3]."""
    context.claim(measure(*mask.shape))
    return (np.repeat(mask[..., np.newaxis], 3, axis=-1),)


def from_image(context: Context, image: Picture, channel: str) -> tuple[Picture]:
    """One channel as it is. Raises ValueError for the alpha of pictures without one."""
    index = (*_COLOURS, "alpha").index(channel)
    if index >= image.shape[-1]:
        raise ValueError(f"the picture has no {channel} channel")
    return (image[..., index].copy(),)


def invert(context: Context, mask: Picture) -> tuple[Picture]:
    """One minus every value."""
    return (1 - mask,)


def make_solid(context: Context, value: float, width: int, height: int) -> tuple[Picture]:
    """A mask of one value, [1, height, width]."""
    context.claim(measure(1, height, width, channels=1))
    return (np.full((1, height, width), value, np.float32),)


_MASK = Input("MASK")
_SIDE = Input("INT", {"default": 512, "min": 1, "max": MAX_RESOLUTION, "step": 1})

NODES = (
    Node(
        "LoadImageMask",
        load,
        "mask",
        required={
            "image": Input(choices=list_files, options={"image_upload": True}, check=check_image_name),
            "channel": Input(choices=("alpha", *_COLOURS)),
        },
        outputs=(Output("MASK"),),
        display_name="Load Image (as Mask)",
        description="Loads one channel of a picture as a mask.",
        is_changed=hash_image,
    ),
    Node(
        "MaskToImage",
        to_image,
        "mask",
        required={"mask": _MASK},
        outputs=(Output("IMAGE"),),
        display_name="Convert Mask to Image",
        description="Turns masks into grey pictures.",
    ),
    Node(
        "ImageToMask",
        from_image,
        "mask",
        required={"image": Input("IMAGE"), "channel": Input(choices=(*_COLOURS, "alpha"))},
        outputs=(Output("MASK"),),
        display_name="Convert Image to Mask",
        description="Takes one channel of pictures as masks.",
    ),
    Node(
        "InvertMask",
        invert,
        "mask",
        required={"mask": _MASK},
        outputs=(Output("MASK"),),
        description="Turns masks into their opposites.",
    ),
    Node(
        "SolidMask",
        make_solid,
        "mask",
        required={
            "value": Input("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
            "width": _SIDE,
            "height": _SIDE,
        },
        outputs=(Output("MASK"),),
        description="Makes a mask of one value.",
    ),
)
