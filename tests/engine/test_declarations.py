"""Declarations of nodes that need no model, against those of ComfyUI 0.3.64, written down apart from them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.catalog import describe_node
from engine.nodes.registry import list_nodes
from tests.engine.graphs import make_folders

Inputs = dict[str, list[Any]]

PICTURES = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
LATENTS = [*PICTURES[:4], "bislerp"]
CROP = ["disabled", "center"]


def number(default: int, least: int, most: int, step: int = 1) -> list[Any]:
    return ["INT", {"default": default, "min": least, "max": most, "step": step}]


def real(default: float, least: float, most: float, step: float = 0.01) -> list[Any]:
    return ["FLOAT", {"default": default, "min": least, "max": most, "step": step}]


IMAGE, MASK, LATENT = ["IMAGE", {}], ["MASK", {}], ["LATENT", {}]
WIDE = {"min": -sys.maxsize, "max": sys.maxsize}

DECLARED: dict[str, tuple[str, Inputs, list[str]]] = {
    "ImageScaleBy": (
        "image/upscaling",
        {"image": IMAGE, "upscale_method": [PICTURES, {}], "scale_by": real(1.0, 0.01, 8.0)},
        ["IMAGE"],
    ),
    "ImageCrop": (
        "image/transform",
        {
            "image": IMAGE,
            "width": number(512, 1, 16384),
            "height": number(512, 1, 16384),
            "x": number(0, 0, 16384),
            "y": number(0, 0, 16384),
        },
        ["IMAGE"],
    ),
    "ImageBlend": (
        "image/postprocessing",
        {
            "image1": IMAGE,
            "image2": IMAGE,
            "blend_factor": real(0.5, 0.0, 1.0),
            "blend_mode": [["normal", "multiply", "screen", "overlay", "soft_light", "difference"], {}],
        },
        ["IMAGE"],
    ),
    "ImageBlur": (
        "image/postprocessing",
        {"image": IMAGE, "blur_radius": number(1, 1, 31), "sigma": real(1.0, 0.1, 10.0, 0.1)},
        ["IMAGE"],
    ),
    "ImageQuantize": (
        "image/postprocessing",
        {
            "image": IMAGE,
            "colors": number(256, 1, 256),
            "dither": [["none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16"], {}],
        },
        ["IMAGE"],
    ),
    "ImageSharpen": (
        "image/postprocessing",
        {
            "image": IMAGE,
            "sharpen_radius": number(1, 1, 31),
            "sigma": real(1.0, 0.1, 10.0),
            "alpha": real(1.0, 0.0, 5.0),
        },
        ["IMAGE"],
    ),
    "LoadImageMask": (
        "mask",
        {"image": [[], {"image_upload": True}], "channel": [["alpha", "red", "green", "blue"], {}]},
        ["MASK"],
    ),
    "MaskToImage": ("mask", {"mask": MASK}, ["IMAGE"]),
    "ImageToMask": ("mask", {"image": IMAGE, "channel": [["red", "green", "blue", "alpha"], {}]}, ["MASK"]),
    "InvertMask": ("mask", {"mask": MASK}, ["MASK"]),
    "SolidMask": (
        "mask",
        {"value": real(1.0, 0.0, 1.0), "width": number(512, 1, 16384), "height": number(512, 1, 16384)},
        ["MASK"],
    ),
    "SaveAnimatedWEBP": (
        "image/animation",
        {
            "images": IMAGE,
            "filename_prefix": ["STRING", {"default": "ComfyUI"}],
            "fps": real(6.0, 0.01, 1000.0),
            "lossless": ["BOOLEAN", {"default": True}],
            "quality": ["INT", {"default": 80, "min": 0, "max": 100}],
            "method": [["default", "fastest", "slowest"], {}],
        },
        [],
    ),
    "PrimitiveString": ("utils/primitive", {"value": ["STRING", {"multiline": False}]}, ["STRING"]),
    "PrimitiveStringMultiline": ("utils/primitive", {"value": ["STRING", {"multiline": True}]}, ["STRING"]),
    "PrimitiveInt": ("utils/primitive", {"value": ["INT", {**WIDE, "control_after_generate": True}]}, ["INT"]),
    "PrimitiveFloat": ("utils/primitive", {"value": ["FLOAT", WIDE]}, ["FLOAT"]),
    "PrimitiveBoolean": ("utils/primitive", {"value": ["BOOLEAN", {}]}, ["BOOLEAN"]),
    "SaveLatent": (
        "_for_testing",
        {"samples": LATENT, "filename_prefix": ["STRING", {"default": "latents/ComfyUI"}]},
        [],
    ),
    "LoadLatent": ("_for_testing", {"latent": [[], {}]}, ["LATENT"]),
    "LatentUpscale": (
        "latent",
        {
            "samples": LATENT,
            "upscale_method": [LATENTS, {}],
            "width": number(512, 0, 16384, 8),
            "height": number(512, 0, 16384, 8),
            "crop": [CROP, {}],
        },
        ["LATENT"],
    ),
    "LatentUpscaleBy": (
        "latent",
        {"samples": LATENT, "upscale_method": [LATENTS, {}], "scale_by": real(1.5, 0.01, 8.0)},
        ["LATENT"],
    ),
}


@pytest.mark.parametrize("name", DECLARED)
def test_a_node_is_declared_as_in_comfyui(name: str, tmp_path: Path) -> None:
    category, inputs, outputs = DECLARED[name]
    info = describe_node(list_nodes()[name], make_folders(tmp_path))
    assert info["input"]["required"] == inputs
    assert info["input_order"] == {"required": list(inputs)} | (
        {"hidden": ["prompt", "extra_pnginfo"]} if info["output_node"] else {}
    )
    assert (info["category"], info["output"], info["output_name"]) == (category, outputs, outputs)
    assert info["output_node"] is (not outputs)


def test_listing_the_nodes_takes_neither_torch_nor_a_server() -> None:
    program = (
        "import sys\n"
        "from engine.nodes.registry import list_nodes\n"
        "list_nodes(tests=True)\n"
        "assert not {'torch', 'diffusers', 'safetensors', 'aiohttp'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)
