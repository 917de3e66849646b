"""Latents: nodes that make them, repeat them, and turn them into pictures and back.

For: ComfyUI's EmptyLatentImage, RepeatLatentBatch, VAEDecode, VAEDecodeTiled and VAEEncode. Leaves the networks to
`pipelines`.
Invariant: a picture's side is 8 times its latent's.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.latents import FACTOR, Latent
from engine.models import Handle, Models
from engine.nodes.asking import ask
from engine.nodes.spec import MAX_RESOLUTION, Context, Input, Node, Output, measure
from engine.tiling import blend_tiles, cut

if TYPE_CHECKING:
    from torch import Tensor

_CHANNELS = 4  # of Stable Diffusion 1, 2 and XL


def make_empty(context: Context, width: int, height: int, batch_size: int) -> tuple[object, ...]:
    """Latents of nothing, for pictures of `width` times `height`."""
    import torch

    # One item's memory whatever the size of the batch: nobody writes into a latent.
    nothing = torch.zeros(1, _CHANNELS, height // FACTOR, width // FACTOR)
    return (Latent.of(nothing.expand(batch_size, -1, -1, -1)),)


def repeat_batch(context: Context, samples: Latent, amount: int) -> tuple[object, ...]:
    """The batch `amount` times over."""
    context.claim(samples.size * amount)
    return (samples.repeat(amount),)


def decode(context: Context, samples: Latent, vae: Handle) -> tuple[object, ...]:
    """Pictures of latents, one at a time, so that an interrupt comes through and others get their turn between two."""
    from engine.pipelines import Decoding

    _claim_pictures(context, samples)
    autoencoder = context.service(Models).autoencoder(vae)
    pictures = [ask(context, Decoding(autoencoder, latent[None])).numpy() for latent in samples.samples]
    return (np.concatenate(pictures),)


def decode_tiled(
    context: Context,
    samples: Latent,
    vae: Handle,
    tile_size: int,
    overlap: int,
    temporal_size: int,
    temporal_overlap: int,
) -> tuple[object, ...]:
    """Pictures of latents, decoded in tiles of `tile_size` pixels, so that the device needs memory for one at a time.

    Tiles overlap by `overlap` pixels, a quarter of a tile at most. What is temporal is of videos.
    """
    from engine.pipelines import Decoding

    _claim_pictures(context, samples)
    autoencoder = context.service(Models).autoencoder(vae)
    tile, lap = tile_size // FACTOR, min(overlap, tile_size // 4) // FACTOR
    height, width = samples.samples.shape[2:]
    total = len(samples.samples) * sum(1 for _ in cut(height, width, tile, lap))
    done = 0

    def paint(latent: "Tensor", rows: slice, columns: slice) -> NDArray[np.float32]:
        nonlocal done
        part: NDArray[np.float32] = ask(context, Decoding(autoencoder, latent[None, :, rows, columns]))[0].numpy()
        done += 1
        context.progress(done, total)
        return part

    pictures = [blend_tiles(height, width, tile, lap, FACTOR, partial(paint, latent)) for latent in samples.samples]
    return (np.stack(pictures),)


def _claim_pictures(context: Context, latent: Latent) -> None:
    rows, columns = latent.samples.shape[2:]
    context.claim(measure(len(latent.samples), rows * FACTOR, columns * FACTOR))


def encode(context: Context, pixels: NDArray[np.float32], vae: Handle) -> tuple[Latent]:
    """Latents of pictures, whose sides are cropped to multiples of 8 around the centre, as ComfyUI does."""
    import torch

    from engine.pipelines import Encoding

    autoencoder = context.service(Models).autoencoder(vae)
    pictures = torch.from_numpy(np.array(crop(pixels)))
    latents = [ask(context, Encoding(autoencoder, picture[None])) for picture in pictures]
    return (Latent.of(torch.cat(latents)),)


def crop(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The middle of pictures [batch, height, width, channels] whose sides are multiples of 8, without alpha."""
    height, width = pixels.shape[1:3]
    top, left = height % FACTOR // 2, width % FACTOR // 2
    bottom, right = top + height // FACTOR * FACTOR, left + width // FACTOR * FACTOR
    return pixels[:, top:bottom, left:right, :3]


def _make_side(tooltip: str) -> Input:
    return Input("INT", {"default": 512, "min": 16, "max": MAX_RESOLUTION, "step": 8, "tooltip": tooltip})


NODES = (
    Node(
        class_type="EmptyLatentImage",
        function=make_empty,
        category="latent",
        required={
            "width": _make_side("Width of the pictures, in pixels."),
            "height": _make_side("Height of the pictures, in pixels."),
            "batch_size": Input("INT", {"default": 1, "min": 1, "max": 4096, "tooltip": "How many pictures."}),
        },
        outputs=(Output("LATENT", tooltip="Latents of nothing."),),
        display_name="Empty Latent Image",
        description="Makes a batch of empty latents, to be filled by a sampler.",
    ),
    Node(
        class_type="RepeatLatentBatch",
        function=repeat_batch,
        category="latent/batch",
        required={"samples": Input("LATENT"), "amount": Input("INT", {"default": 1, "min": 1, "max": 64})},
        outputs=(Output("LATENT"),),
        display_name="Repeat Latent Batch",
        description="Repeats a batch of latents, each time with noise of its own.",
    ),
    Node(
        class_type="VAEDecode",
        function=decode,
        category="latent",
        required={
            "samples": Input("LATENT", {"tooltip": "The latents to decode."}),
            "vae": Input("VAE", {"tooltip": "The autoencoder to decode with."}),
        },
        outputs=(Output("IMAGE", tooltip="The decoded pictures."),),
        display_name="VAE Decode",
        description="Turns latents into pictures.",
    ),
    Node(
        class_type="VAEDecodeTiled",
        function=decode_tiled,
        category="_for_testing",
        required={
            "samples": Input("LATENT"),
            "vae": Input("VAE"),
            "tile_size": Input("INT", {"default": 512, "min": 64, "max": 4096, "step": 32}),
            "overlap": Input("INT", {"default": 64, "min": 0, "max": 4096, "step": 32}),
            "temporal_size": Input(
                "INT", {"default": 64, "min": 8, "max": 4096, "step": 4, "tooltip": "For videos; unused."}
            ),
            "temporal_overlap": Input(
                "INT", {"default": 8, "min": 4, "max": 4096, "step": 4, "tooltip": "For videos; unused."}
            ),
        },
        outputs=(Output("IMAGE"),),
        display_name="VAE Decode (Tiled)",
        description="Turns latents into pictures in tiles, which takes less memory.",
    ),
    Node(
        class_type="VAEEncode",
        function=encode,
        category="latent",
        required={"pixels": Input("IMAGE"), "vae": Input("VAE")},
        outputs=(Output("LATENT"),),
        display_name="VAE Encode",
        description="Turns pictures into latents.",
    ),
)
