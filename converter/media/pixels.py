"""How many pixels a picture claims to have, before anybody decodes it.

Pillow reads the header, in a thread. Invariant: no pixel is decoded.
"""

import asyncio
from typing import IO

from converter.core.order import Content

MOST = 178_956_970
"""Pixels above which Pillow itself opens nothing."""


async def count_pixels(content: Content) -> int | None:
    """Width by height by frames; None where Pillow can't read the header, and MOST + 1 for whatever is more."""
    with content.open() as stream:
        return await asyncio.to_thread(_count, stream)


def _count(stream: IO[bytes]) -> int | None:
    from PIL import Image

    try:
        with Image.open(stream) as picture:
            frames = int(getattr(picture, "n_frames", 1))
            return min(picture.width * picture.height * frames, MOST + 1)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return MOST + 1
    except Exception:  # a boundary: what Pillow's readers raise for broken bytes has no common class
        return None
