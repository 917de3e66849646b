"""What is stripped shows the same pixels and tells nothing; any junk gets an answer."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from converter.core.stripping import strip

WORDS = b"a secret prompt"


def telling(form: str, *, moving: bool = False, profile: bool = False) -> bytes:
    """A picture with metadata of every kind that Pillow writes."""
    exif = Image.Exif()
    exif[0x0110] = "prompt:" + WORDS.decode()
    info = PngInfo()
    info.add_text("prompt", WORDS.decode())
    info.add_itxt("workflow", WORDS.decode())
    info.add_text("zipped", WORDS.decode(), zip=True)
    picture = Image.radial_gradient("L").resize((20, 14)).convert("RGB")
    frames = {"save_all": True, "append_images": [ImageOps.invert(picture)]} if moving else {}
    icc = {"icc_profile": b"colours"} if profile else {}
    buffer = io.BytesIO()
    picture.save(buffer, form, exif=exif, xmp=WORDS, pnginfo=info, comment=WORDS, quality=90, **frames, **icc)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("profile", [False, True])
def test_pixels_and_colours_stay_and_words_go(form: str, profile: bool) -> None:
    data = telling(form, profile=profile)
    assert WORDS in data
    bare = strip(data)
    assert bare is not None
    assert WORDS not in bare
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(bare)) as after:
        assert before.tobytes() == after.tobytes()
        assert not after.getexif()
        assert "xmp" not in after.info
        assert not getattr(after, "text", {})
        assert after.info.get("icc_profile") == (b"colours" if profile else None)
    assert strip(bare) == bare


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_what_moves_goes_on_moving(form: str) -> None:
    data = telling(form, moving=True)
    bare = strip(data)
    assert bare is not None
    assert WORDS not in bare
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(bare)) as after:
        assert getattr(after, "n_frames", 1) == getattr(before, "n_frames", 1) == 2
        before.seek(1)
        after.seek(1)
        assert before.tobytes() == after.tobytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        b"GIF89a" + b"\0" * 30,
        b"\xff\xd8",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xd9\0\0",
        b"\xff\xd8\xff\xe1\0\1\0",
    ],
)
def test_what_is_no_picture_of_these_kinds_is_left(data: bytes) -> None:
    assert strip(data) is None


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_what_is_cut_off_in_its_head_is_broken(form: str) -> None:
    data = telling(form)
    at = data.index(WORDS) + 3
    assert strip(data[:at]) is None


def test_what_follows_a_picture_is_no_part_of_it() -> None:
    for form in ("PNG", "WEBP"):
        assert strip(telling(form) + WORDS) == strip(telling(form))


PICTURES = {form: telling(form) for form in ("PNG", "JPEG", "WEBP")}


@given(st.sampled_from(sorted(PICTURES)), st.data())
def test_broken_bytes_get_an_answer(form: str, data: st.DataObject) -> None:
    broken = bytearray(PICTURES[form])
    for place in data.draw(st.lists(st.integers(0, len(broken) - 1), min_size=1, max_size=8)):
        broken[place] = data.draw(st.integers(0, 255))
    given_bytes = bytes(broken[: data.draw(st.integers(0, len(broken)))])
    bare = strip(given_bytes)
    if bare is not None:
        assert len(bare) <= len(given_bytes)
        assert strip(bare) == bare


@given(st.binary(max_size=80), st.sampled_from([b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF\x50\0\0\0WEBP"]))
def test_junk_behind_a_good_beginning_gets_an_answer(junk: bytes, head: bytes) -> None:
    bare = strip(head + junk)
    assert bare is None or len(bare) <= len(head + junk)
