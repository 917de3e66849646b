"""Formats are told by how they begin: by Pillow's own files, and by the patterns of those that Pillow can't write."""

import io
import wave

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from converter.core.signatures import SNIFFED, sniff


def picture(form: str) -> bytes:
    """A small picture as Pillow writes it."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, form)
    return file.getvalue()


def sound() -> bytes:
    """A short sound."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes(bytes(16))
    return file.getvalue()


def boxes(major: bytes, *compatible: bytes) -> bytes:
    """The beginning of an ISO base media file."""
    brands = b"".join(compatible)
    return (16 + len(brands)).to_bytes(4, "big") + b"ftyp" + major + bytes(4) + brands + b"\0\0\0\x08mdat"


@pytest.mark.parametrize(
    ("form", "content_type", "extension"),
    [
        ("PNG", "image/png", ".png"),
        ("JPEG", "image/jpeg", ".jpg"),
        ("GIF", "image/gif", ".gif"),
        ("WEBP", "image/webp", ".webp"),
        ("BMP", "image/bmp", ".bmp"),
        ("TIFF", "image/tiff", ".tiff"),
    ],
)
def test_pictures_as_pillow_writes_them(form: str, content_type: str, extension: str) -> None:
    assert sniff(picture(form)) == (content_type, extension)


def test_a_sound_as_python_writes_it() -> None:
    assert sniff(sound()) == ("audio/wav", ".wav")


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b"MM\0*\0\0\0\x08", "image/tiff"),
        (boxes(b"avif", b"mif1", b"miaf"), "image/avif"),
        (boxes(b"mif1", b"avif", b"heic"), "image/avif"),
        (boxes(b"heic", b"mif1"), "image/heic"),
        (boxes(b"msf1"), "image/heic"),
        (boxes(b"isom", b"iso2", b"avc1", b"mp41"), "video/mp4"),
        (boxes(b"odd ", b"mp42"), "video/mp4"),
        (boxes(b"qt  "), "video/quicktime"),
        (boxes(b"M4A ", b"mp42", b"isom"), "audio/mp4"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\x82\x84webm", "video/webm"),
        (b"\x1a\x45\xdf\xa3\xa3\x42\x82\x88matroska", "video/x-matroska"),
        (b"ID3\x04\0", "audio/mpeg"),
        (b"\xff\xfb\x90\x64", "audio/mpeg"),
        (b"fLaC\0\0\0\x22", "audio/flac"),
        (b"OggS\0\x02", "audio/ogg"),
    ],
)
def test_other_formats(data: bytes, content_type: str) -> None:
    found = sniff(data)
    assert found is not None
    assert found.content_type == content_type


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        b"PK\x03\x04",
        b"BMW is a car, and no picture",
        b"RIFF\0\0\0\0AVI ",
        b"\x89PN",
        b"\xff\xfe\x41\0",
        b"\xff\xfb\x00\0",
        b"\xff\xfb\xf0\0",
        b"\xff\xfb\x9c\0",
        boxes(b"none", b"such"),
        boxes(b"none") + b"isom" * 4,
        b"\x1a\x45\xdf\xa3\x00\x42\x82\x84cats",
        b"x" * 8 + b"\x89PNG\r\n\x1a\n",
    ],
)
def test_what_is_no_known_format(data: bytes) -> None:
    assert sniff(data) is None


beginnings = st.sampled_from([picture("PNG"), picture("WEBP"), boxes(b"isom"), b"\x1a\x45\xdf\xa3", b"\xff\xfb", b""])


@given(beginnings, st.integers(0, 40), st.binary(max_size=2 * SNIFFED))
def test_only_the_beginning_counts(beginning: bytes, kept: int, rest: bytes) -> None:
    data = beginning[:kept] + rest
    assert sniff(data) == sniff(data[:SNIFFED])
