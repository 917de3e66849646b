"""What kind of media some bytes are, by how they begin.

For: telling pictures, video and audio apart without trusting a name or a declared type. Leaves it to the decoders
whether the rest is sound.

Invariant: the answer depends on the first SNIFFED bytes only. The patterns are those of WHATWG MIME Sniffing section 6
(images, audio and video), and where it has none those of the formats: TIFF 6.0 section 2, HEIF (ISO/IEC 23008-12
annex B), FLAC (RFC 9639 section 6), MPEG audio frames (ISO/IEC 11172-3 section 2.4.1.3).
"""

import re
from typing import NamedTuple

SNIFFED = 512
"""Bytes that are looked at."""


class MediaType(NamedTuple):
    """A media type (RFC 6838) and the suffix that its files usually have, with its dot."""

    content_type: str
    extension: str


_PATTERNS: tuple[tuple[re.Pattern[bytes], MediaType], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), MediaType("image/png", ".png")),
    (re.compile(rb"\xff\xd8\xff"), MediaType("image/jpeg", ".jpg")),
    (re.compile(rb"GIF8[79]a"), MediaType("image/gif", ".gif")),
    (re.compile(rb"RIFF.{4}WEBPVP", re.DOTALL), MediaType("image/webp", ".webp")),
    # Two letters are little: the reserved fields after the size are 0 as well.
    (re.compile(rb"BM.{4}\0{4}", re.DOTALL), MediaType("image/bmp", ".bmp")),
    (re.compile(rb"II\*\0|MM\0\*"), MediaType("image/tiff", ".tiff")),
    (re.compile(rb"RIFF.{4}WAVE", re.DOTALL), MediaType("audio/wav", ".wav")),
    (re.compile(rb"fLaC"), MediaType("audio/flac", ".flac")),
    (re.compile(rb"OggS\0"), MediaType("audio/ogg", ".ogg")),
    (re.compile(rb"ID3"), MediaType("audio/mpeg", ".mp3")),
)

_BRANDS: tuple[tuple[re.Pattern[bytes], MediaType], ...] = (
    (re.compile(rb"avi[fs]"), MediaType("image/avif", ".avif")),
    (re.compile(rb"hei[cxms]|hev[cxms]|mif1|msf1"), MediaType("image/heic", ".heic")),
    (re.compile(rb"M4[AB] "), MediaType("audio/mp4", ".m4a")),
    (re.compile(rb"qt  "), MediaType("video/quicktime", ".mov")),
    (re.compile(rb"mp4.|iso.|M4V |avc1|dash|mmp4", re.DOTALL), MediaType("video/mp4", ".mp4")),
)
"""Brands of ISO base media files (ISO/IEC 14496-12 section 4.3), the most telling first."""


def sniff(data: bytes) -> MediaType | None:
    """The media type of `data`, of which the first SNIFFED bytes are enough; None for none that is known."""
    head = data[:SNIFFED]
    for pattern, media_type in _PATTERNS:
        if pattern.match(head):
            return media_type
    return _sniff_boxes(head) or _sniff_ebml(head) or _sniff_frame(head)


def _sniff_boxes(head: bytes) -> MediaType | None:
    """ISO base media: an `ftyp` box of a major brand, a version, and compatible brands of four bytes each."""
    if head[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]
    return next((found for pattern, found in _BRANDS if any(map(pattern.fullmatch, brands))), None)


def _sniff_ebml(head: bytes) -> MediaType | None:
    """EBML (RFC 8794): the document type, element 0x4282, tells WebM from other Matroska files."""
    document = re.match(rb"\x1a\x45\xdf\xa3.{0,40}?\x42\x82[\x84-\x88]\0*(webm|matroska)", head, re.DOTALL)
    if document is None:
        return None
    return MediaType("video/webm", ".webm") if document[1] == b"webm" else MediaType("video/x-matroska", ".mkv")


def _sniff_frame(head: bytes) -> MediaType | None:
    """An MPEG audio frame of layer III without metadata before it: a bit rate neither free nor bad, a sample rate."""
    if not re.match(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb].", head, re.DOTALL):
        return None
    bit_rate, sample_rate = head[2] >> 4, head[2] >> 2 & 3
    return MediaType("audio/mpeg", ".mp3") if 0 < bit_rate < 15 and sample_rate < 3 else None
