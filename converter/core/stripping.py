"""Pictures without what they tell of how they were made: metadata taken out of a file, whose pixels stay untouched.

PNG (third edition, section 11.3), JPEG (ITU-T T.81 annex B; T.871 and T.872 for APP segments) and WebP (RFC 9649).
Colour profiles stay. Invariant: any bytes make an answer; what comes out is never longer, and stripped again it is the
same.
"""

from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_TELLING_CHUNKS = frozenset((b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME"))

_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_APPLICATION = range(0xE0, 0xF0)
_KEPT_SEGMENTS = {0xE0: b"", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}
"""APP segments that decoders need, and how they begin."""

_TELLING_WEBP = frozenset((b"EXIF", b"XMP "))
_WEBP_FLAGS = 0x08 | 0x04
"""Of VP8X: there is EXIF, there is XMP."""


def strip(data: bytes) -> bytes | None:
    """The same picture without metadata; None for what is no PNG, JPEG or WebP, or is broken."""
    if data.startswith(_PNG):
        return _join(_PNG, _strip_png(data))
    if data.startswith(bytes((0xFF, _SOI))):
        return _join(data[:2], _strip_jpeg(data))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        body = _join(b"WEBP", _strip_webp(data))
        return None if body is None else b"RIFF" + len(body).to_bytes(4, "little") + body
    return None


def _join(head: bytes, pieces: Iterator[bytes | None]) -> bytes | None:
    """The pieces after their head; None if one of them is, which stands for bytes that can't be read."""
    found = list(pieces)
    return None if None in found else head + b"".join(piece for piece in found if piece is not None)


def _strip_png(data: bytes) -> Iterator[bytes | None]:
    """Chunks of length, type, content and checksum, up to IEND; what follows it belongs to no picture."""
    place = len(_PNG)
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        kind = data[place + 4 : place + 8]
        if end > len(data):
            break
        if kind not in _TELLING_CHUNKS:
            yield data[place:end]
        if kind == b"IEND":
            return
        place = end
    yield None


def _strip_jpeg(data: bytes) -> Iterator[bytes | None]:
    """Segments up to the first scan; from there on all is picture."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == _SOS:
            yield data[place:]
            return
        if marker in (0xFF, _EOI) or marker < 0xC0:
            break
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        end = place + 2 + length
        if length < 2 or end > len(data):
            break
        needed = _KEPT_SEGMENTS.get(marker)
        telling = marker == _COM or marker in _APPLICATION
        if not telling or (needed is not None and data[place + 4 : end].startswith(needed)):
            yield data[place:end]
        place = end
    yield None


def _strip_webp(data: bytes) -> Iterator[bytes | None]:
    """Chunks of type, length and content, which is filled up to an even number of bytes."""
    place, whole = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while place + 8 <= whole:
        kind, length = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        end = place + 8 + length + length % 2
        if end > whole:
            yield None
        if kind == b"VP8X" and length:
            flags = data[place + 8] & ~_WEBP_FLAGS
            yield data[place : place + 8] + bytes((flags,)) + data[place + 9 : end]
        elif kind not in _TELLING_WEBP:
            yield data[place:end]
        place = end
