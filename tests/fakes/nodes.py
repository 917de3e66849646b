"""ComfyUI's own node classes, as far as the fake engine has them: inputs and limits of 0.3.64, and what they do
instead.

A sampler draws nothing: it derives a colour from its seed. `mischief` has the classes that fail on purpose.
"""

import json
import random
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from tests.fakes.declarations import ANYTHING, Done, InputConfig, NodeClass, Stage, each_time, number, real
from tests.fakes.folders import Folders
from tests.fakes.pictures import encode, solid


async def empty_image(inputs: dict[str, Any], stage: Stage) -> Done:
    return Done((solid(inputs["color"], inputs["width"], inputs["height"], inputs["batch_size"]),))


async def load_image(inputs: dict[str, Any], stage: Stage) -> Done:
    with Image.open(stage.folders.annotated(inputs["image"])) as picture:
        return Done(([ImageOps.exif_transpose(picture).convert("RGB")], None))


async def scale_image(inputs: dict[str, Any], stage: Stage) -> Done:
    size = (inputs["width"], inputs["height"])
    return Done(([picture.resize(size) for picture in inputs["image"]],))


async def invert_image(inputs: dict[str, Any], stage: Stage) -> Done:
    return Done(([ImageOps.invert(picture) for picture in inputs["image"]],))


async def join_batch(inputs: dict[str, Any], stage: Stage) -> Done:
    return Done(([*inputs["image1"], *inputs["image2"]],))


async def measure_image(inputs: dict[str, Any], stage: Stage) -> Done:
    (width, height), batch = inputs["image"][0].size, len(inputs["image"])
    stage.text(f"width: {width}, height: {height}\n batch size: {batch}")
    return Done((width, height, batch))


def metadata(stage: Stage) -> PngInfo:
    """The text chunks that SaveImage writes: the prompt, and what the client gave as `extra_pnginfo`."""
    chunks = PngInfo()
    chunks.add_text("prompt", json.dumps(stage.prompt))
    for key, value in (stage.extra_data.get("extra_pnginfo") or {}).items():
        chunks.add_text(key, json.dumps(value))
    return chunks


def write_images(pictures: Any, prefix: str, kind: str, stage: Stage) -> Done:
    if not isinstance(pictures, list):  # a constant in place of a link passes ComfyUI's validation and fails here
        raise AttributeError(f"'{type(pictures).__name__}' object has no attribute 'shape'")
    images = []
    names = stage.folders.next_names(prefix, len(pictures), pictures[0].size, kind)
    for picture, (name, subfolder) in zip(pictures, names, strict=True):
        path = stage.folders.locate(name, kind=kind, subfolder=subfolder)
        path.write_bytes(encode(picture, pnginfo=metadata(stage)))
        images.append({"filename": name, "subfolder": subfolder, "type": kind})
    return Done((), {"images": images})


async def save_image(inputs: dict[str, Any], stage: Stage) -> Done:
    return write_images(inputs["images"], inputs["filename_prefix"], "output", stage)


async def preview_image(inputs: dict[str, Any], stage: Stage) -> Done:
    letters = "".join(random.choices("abcdefghijklmnopqrstupvxyz", k=5))
    return write_images(inputs["images"], f"ComfyUI_temp_{letters}", "temp", stage)


async def save_image_websocket(inputs: dict[str, Any], stage: Stage) -> Done:
    for index, picture in enumerate(inputs["images"]):
        await stage.progress(index, len(inputs["images"]), encode(picture), "png")
    return Done(())


async def save_animation(inputs: dict[str, Any], stage: Stage) -> Done:
    first, *rest = inputs["images"]
    [(name, subfolder)] = stage.folders.next_names(inputs["filename_prefix"], 1, first.size, "output", ".webp")
    path = stage.folders.locate(name, subfolder=subfolder)
    path.write_bytes(encode(first, "WEBP", save_all=True, append_images=rest, duration=int(1000 / inputs["fps"])))
    return Done((), {"images": [{"filename": name, "subfolder": subfolder, "type": "output"}], "animated": [True]})


async def preview_any(inputs: dict[str, Any], stage: Stage) -> Done:
    source = inputs["source"]
    return Done((), {"text": [source if isinstance(source, str) else str(source)]})


async def empty_latent(inputs: dict[str, Any], stage: Stage) -> Done:
    return Done(({"seed": 0, "size": (inputs["width"], inputs["height"]), "batch": inputs["batch_size"]},))


async def save_latent(inputs: dict[str, Any], stage: Stage) -> Done:
    size = inputs["samples"]["size"]
    [(name, subfolder)] = stage.folders.next_names(inputs["filename_prefix"], 1, size, "output", ".latent")
    stage.folders.locate(name, subfolder=subfolder).write_bytes(b"latent")
    return Done((), {"latents": [{"filename": name, "subfolder": subfolder, "type": "output"}]})


async def load_checkpoint(inputs: dict[str, Any], stage: Stage) -> Done:
    return Done(("model", "clip", "vae"))


async def encode_text(inputs: dict[str, Any], stage: Stage) -> Done:
    return Done((inputs["text"],))


async def sample(inputs: dict[str, Any], stage: Stage) -> Done:
    latent = {**inputs["latent_image"], "seed": inputs["seed"]}
    for step in range(1, inputs["steps"] + 1):
        await stage.progress(step, inputs["steps"], encode(solid(inputs["seed"])[0], "JPEG", quality=95))
    return Done((latent,))


async def decode_latent(inputs: dict[str, Any], stage: Stage) -> Done:
    latent = inputs["samples"]
    width, height = latent["size"]
    return Done((solid(latent["seed"] & 0xFFFFFF, width, height, latent["batch"]),))


async def encode_latent(inputs: dict[str, Any], stage: Stage) -> Done:
    return Done(({"seed": 0, "size": inputs["pixels"][0].size, "batch": len(inputs["pixels"])},))


def image_missing(inputs: dict[str, Any], folders: Folders) -> dict[str, str]:
    """Messages for an `image` that names no file."""
    name = inputs["image"]
    try:
        found = isinstance(name, str) and folders.annotated(name).is_file()
    except PermissionError:
        found = False
    return {} if found else {"image": f"Invalid image file: {name}"}


def file_bytes(inputs: dict[str, Any], folders: Folders) -> bytes:
    path: Path = folders.annotated(inputs["image"])
    return path.read_bytes() if path.is_file() else b""


IMAGE: InputConfig = ("IMAGE", {})
LATENT: InputConfig = ("LATENT", {})
SIZE = {"width": number(512, 1), "height": number(512, 1)}
PREFIX: InputConfig = ("STRING", {"default": "ComfyUI"})
SAMPLERS = ["euler", "euler_ancestral", "heun", "dpm_2", "dpmpp_2m", "dpmpp_sde", "ddim", "uni_pc", "lms", "lcm"]
SAMPLERS += [f"sampler_{index}" for index in range(42 - len(SAMPLERS))]  # as many as ComfyUI has: too many to be listed
SCHEDULERS = ["normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta"]
METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]

CORE: dict[str, NodeClass] = {
    "EmptyImage": NodeClass(
        empty_image,
        {
            **SIZE,
            "batch_size": number(1, 1, 4096),
            "color": ("INT", {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}),
        },
        returns=("IMAGE",),
    ),
    "LoadImage": NodeClass(
        load_image,
        {"image": (["example.png"], {"image_upload": True})},
        returns=("IMAGE", "MASK"),
        fingerprint=file_bytes,
        reject=image_missing,
        checks=("image",),
    ),
    "ImageScale": NodeClass(
        scale_image,
        {
            "image": IMAGE,
            "upscale_method": (METHODS, {}),
            "width": number(512),
            "height": number(512),
            "crop": (["disabled", "center"], {}),
        },
        returns=("IMAGE",),
    ),
    "ImageInvert": NodeClass(invert_image, {"image": IMAGE}, returns=("IMAGE",)),
    "ImageBatch": NodeClass(join_batch, {"image1": IMAGE, "image2": IMAGE}, returns=("IMAGE",)),
    "GetImageSize": NodeClass(measure_image, {"image": IMAGE}, returns=("INT", "INT", "INT")),
    "SaveImage": NodeClass(save_image, {"images": IMAGE, "filename_prefix": PREFIX}, output=True),
    "PreviewImage": NodeClass(preview_image, {"images": IMAGE}, output=True),
    "SaveImageWebsocket": NodeClass(save_image_websocket, {"images": IMAGE}, output=True, fingerprint=each_time),
    "SaveAnimatedWEBP": NodeClass(
        save_animation,
        {
            "images": IMAGE,
            "filename_prefix": PREFIX,
            "fps": real(6.0, 0.01, 1000.0),
            "lossless": ("BOOLEAN", {"default": True}),
            "quality": number(80, 0, 100),
            "method": (["default", "fastest", "slowest"], {}),
        },
        output=True,
    ),
    "PreviewAny": NodeClass(preview_any, {"source": ANYTHING}, output=True),
    "EmptyLatentImage": NodeClass(
        empty_latent,
        {"width": number(512, 16, 16384, 8), "height": number(512, 16, 16384, 8), "batch_size": number(1, 1, 4096)},
        returns=("LATENT",),
    ),
    "SaveLatent": NodeClass(
        save_latent,
        {"samples": LATENT, "filename_prefix": ("STRING", {"default": "latents/ComfyUI"})},
        output=True,
    ),
    "CheckpointLoaderSimple": NodeClass(
        load_checkpoint,
        {"ckpt_name": (["sd15-random.safetensors", "sd15-tiny.safetensors"], {})},
        returns=("MODEL", "CLIP", "VAE"),
    ),
    "CLIPTextEncode": NodeClass(
        encode_text, {"text": ("STRING", {"multiline": True}), "clip": ("CLIP", {})}, returns=("CONDITIONING",)
    ),
    "KSampler": NodeClass(
        sample,
        {
            "model": ("MODEL", {}),
            "seed": number(0, 0, 0xFFFFFFFFFFFFFFFF),
            "steps": number(20, 1, 10000),
            "cfg": real(8.0, 0.0, 100.0),
            "sampler_name": (SAMPLERS, {}),
            "scheduler": (SCHEDULERS, {}),
            "positive": ("CONDITIONING", {}),
            "negative": ("CONDITIONING", {}),
            "latent_image": LATENT,
            "denoise": real(1.0, 0.0, 1.0),
        },
        returns=("LATENT",),
    ),
    "VAEDecode": NodeClass(decode_latent, {"samples": LATENT, "vae": ("VAE", {})}, returns=("IMAGE",)),
    "VAEEncode": NodeClass(encode_latent, {"pixels": IMAGE, "vae": ("VAE", {})}, returns=("LATENT",)),
}
