"""Pictures become what was asked for, look as they did, or are left alone with a reason."""

import io
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from converter.core.order import Format
from converter.media.pictures import Converted, convert, show_transparency
from converter.media.spool import hold

FORMATS: tuple[Format, ...] = ("png", "jpeg", "webp")


def encode(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def pixel(data: bytes, place: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    with Image.open(io.BytesIO(data)) as picture:
        value = picture.convert("RGBA").getpixel(place)
    assert isinstance(value, tuple)
    return tuple(int(part) for part in value)


def looks(data: bytes, color: tuple[int, int, int], tolerance: int = 6) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(pixel(data), color, strict=False))


def check_format(converted: Converted, wanted: Format) -> None:
    assert converted.format == wanted
    with Image.open(io.BytesIO(converted.data)) as picture:
        assert picture.format == wanted.upper()


@pytest.mark.parametrize("wanted", FORMATS)
@pytest.mark.parametrize("source", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
async def test_every_format_becomes_every_other(source: str, wanted: Format) -> None:
    converted = await convert(encode(Image.new("RGB", (9, 7), (200, 30, 90)), source, quality=95), wanted, 95)
    check_format(converted, wanted)
    assert converted.warning is None
    assert looks(converted.data, (200, 30, 90), 12)


@pytest.mark.parametrize("wanted", FORMATS)
@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB"])
async def test_every_mode_looks_as_it_did(mode: str, wanted: Format) -> None:
    picture = (
        Image.new("RGB", (8, 8), "white").convert(mode) if mode != "LAB" else Image.new("LAB", (8, 8), (255, 128, 128))
    )
    converted = await convert(encode(picture, "TIFF"), wanted, None)
    check_format(converted, wanted)
    assert looks(converted.data, (255, 255, 255))


@pytest.mark.parametrize("wanted", FORMATS)
async def test_sixteen_bits_are_scaled_and_not_cut(wanted: Format) -> None:
    converted = await convert(encode(Image.new("I;16", (8, 8), 32768)), wanted, 95)
    check_format(converted, wanted)
    with Image.open(io.BytesIO(converted.data)) as picture:
        if wanted == "png":
            assert picture.getpixel((0, 0)) == 32768
            assert converted.warning is None
        else:
            assert looks(converted.data, (128, 128, 128))
            assert converted.warning is not None
            assert "16 bits" in converted.warning


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
async def test_what_shines_through_a_jpeg_is_white_and_said(mode: str) -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    picture = clear.quantize(4) if mode == "P" else clear.convert(mode)
    converted = await convert(encode(picture), "jpeg", None)
    check_format(converted, "jpeg")
    assert looks(converted.data, (255, 255, 255))
    assert converted.warning is not None
    assert "white" in converted.warning


@pytest.mark.parametrize("wanted", ["png", "webp"])
async def test_transparency_is_kept_where_the_format_has_it(wanted: Format) -> None:
    converted = await convert(encode(Image.new("RGBA", (8, 8), (255, 0, 0, 128))), wanted, 100)
    assert converted.warning is None
    assert pixel(converted.data)[3] == 128


async def test_a_turned_photograph_stays_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    data = encode(Image.new("RGB", (20, 10), "red"), "JPEG", exif=exif)
    converted = await convert(data, "png", None)
    with Image.open(io.BytesIO(converted.data)) as picture:
        assert picture.size == (10, 20)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize("wanted", FORMATS)
async def test_what_moves_is_left_alone(form: str, wanted: Format) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    data = encode(frames[0], form, save_all=True, append_images=frames[1:])
    assert await convert(data, wanted, None) == Converted(data, None, "the picture is animated and was left as it is")


async def test_quality_makes_a_difference() -> None:
    picture = Image.radial_gradient("L").convert("RGB")
    sizes = [len((await convert(encode(picture), "jpeg", quality)).data) for quality in (1, 50, 90, 100)]
    assert sizes == sorted(sizes)
    assert len((await convert(encode(picture), "jpeg", None)).data) == sizes[2]


@pytest.mark.parametrize("data", [b"", b"junk", b"\x89PNG\r\n\x1a\n", encode(Image.new("RGB", (64, 64)))[:60]])
@pytest.mark.parametrize("wanted", FORMATS)
async def test_junk_is_left_alone(data: bytes, wanted: Format) -> None:
    converted = await convert(data, wanted, None)
    assert (converted.data, converted.format) == (data, None)
    assert converted.warning == "the picture can't be converted and was left as it is"


async def test_too_large_for_the_format_is_left_alone() -> None:
    data = encode(Image.new("1", (20_000, 1)))
    converted = await convert(data, "webp", None)
    assert (converted.data, converted.format) == (data, None)
    assert converted.warning is not None


GOOD = {
    form: encode(Image.radial_gradient("L").resize((16, 16)).convert("RGB"), form)
    for form in ("PNG", "JPEG", "WEBP", "GIF", "TIFF")
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(form=st.sampled_from(sorted(GOOD)), wanted=st.sampled_from(FORMATS), data=st.data())
async def test_broken_bytes_never_raise(form: str, wanted: Format, data: st.DataObject) -> None:
    broken = bytearray(GOOD[form])
    for place in data.draw(st.lists(st.integers(0, len(broken) - 1), min_size=1, max_size=8)):
        broken[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(broken)))
    given_bytes = bytes(broken[: cut or None])
    converted = await convert(given_bytes, wanted, None)
    assert converted.format == wanted or converted.data == given_bytes


async def test_transparency_is_shown_as_white() -> None:
    picture = Image.new("RGBA", (2, 1), (9, 9, 9, 255))
    picture.putpixel((1, 0), (9, 9, 9, 0))
    for data in (encode(picture), encode(picture, "WEBP", lossless=True), encode(picture.convert("P"), "PNG")):
        shown = await show_transparency(hold(data))
        assert shown is not None
        assert (pixel(shown, (0, 0)), pixel(shown, (1, 0))) == ((0, 0, 0, 255), (255, 255, 255, 255))


async def test_what_can_not_be_transparent_shows_nothing() -> None:
    opaque = encode(Image.new("RGB", (2, 1)))
    assert await show_transparency(hold(opaque)) is None
    assert await show_transparency(hold(opaque[:20])) is None
