"""Thumbnails: pictures that come from a service, made small enough to be shown on the way.

Invariant: whatever the bytes are, the outcome is a small PNG or nothing.
"""

import io
import warnings

SIZE = 384
"""Pixels of the longer side."""


def shrink(data: bytes) -> bytes | None:
    """A PNG of at most SIZE x SIZE pixels; None for what is no picture that can be read, or too large a one."""
    from PIL import Image

    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            with Image.open(io.BytesIO(data)) as picture:
                picture.draft("RGB", (SIZE, SIZE))
                small = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
            small.thumbnail((SIZE, SIZE))
            small.save(buffer, "PNG")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombWarning, Image.DecompressionBombError):
        return None
    return buffer.getvalue()
