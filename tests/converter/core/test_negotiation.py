"""What `Accept` and `Prefer` mean: by the standards' rules, by what clients send, and under any junk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.negotiation import Form, Preference, Range, Shape, Wish, read_accept, read_prefer

JSON, RAW, STREAM = Shape.JSON, Shape.RAW, Shape.STREAM


def wish(header: str | None) -> Wish:
    found = read_accept(header)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("header", "shape"),
    [
        (None, JSON),
        ("", JSON),
        ("  ", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/json", JSON),
        ("Application/JSON", JSON),
        ("application/json; charset=utf-8", JSON),
        ("application/json, text/plain, */*", JSON),  # axios
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", RAW),  # Java's HttpURLConnection
        ("image/png", RAW),
        ("image/*", RAW),
        ("video/mp4", RAW),
        ("audio/*;q=0.3", RAW),
        ("application/octet-stream", RAW),
        ("application/zip", RAW),
        ("multipart/mixed", RAW),
        ("image/png, */*;q=0.8", RAW),
        ("image/png;q=0.8, */*", JSON),
        ("text/event-stream", STREAM),
        ("text/event-stream, application/json;q=0.9", STREAM),
        ("text/event-stream;q=0.9, application/json", JSON),
    ],
)
def test_a_header_asks_for_one_shape(header: str | None, shape: Shape) -> None:
    assert wish(header).shape is shape


@pytest.mark.parametrize(
    "header", ["text/html", "font/woff", "application/json;q=0", "image/png;q=0.000", "text/plain"]
)
def test_there_may_be_no_shape_that_a_caller_takes(header: str) -> None:
    assert read_accept(header) is None


def test_json_is_preferred_to_a_stream_and_a_stream_to_bytes_that_are_wanted_as_much() -> None:
    assert wish("image/png, text/event-stream, application/json").shape is JSON
    assert wish("image/png, text/event-stream").shape is STREAM


def test_the_most_specific_range_decides_and_not_the_first() -> None:
    assert wish("*/*, application/json;q=0.1, image/png;q=0.5").shape is RAW
    assert wish("*/*, application/json;q=0").shape is RAW, "anything but JSON"
    assert read_accept("application/*, application/json;q=0") is None
    assert not wish("image/*, image/png;q=0").takes("image/png")
    assert wish("image/*;q=0.1, image/png").takes("image/webp")
    assert not wish("image/*").takes("video/mp4")


@pytest.mark.parametrize(
    ("weight", "quality"),
    [
        ("q=0.5", 0.5),
        ("Q=0.5", 0.5),
        ("q = 0.5", 0.5),
        ("level=1;q=0.25", 0.25),
        ("q=7", 1.0),
        ("q=-1", 0.0),
        ("", 1.0),
    ],
)
def test_weights_are_read_and_kept_within_bounds(weight: str, quality: float) -> None:
    assert wish(f"image/png;{weight}, */*").ranges == (Range("image", "png", quality), Range("*", "*", 1.0))


@pytest.mark.parametrize(
    "item", ["image/png;q=high", "image/png;q=", "image/png;q=nan", "image", "/", "image/", "/png", ";"]
)
def test_what_cannot_be_read_is_not_there(item: str) -> None:
    assert wish(f"{item}, video/mp4").ranges == (Range("video", "mp4", 1.0),)
    assert wish(item).ranges == (Range("*", "*", 1.0),)


def test_a_quoted_string_is_one_piece() -> None:
    header = r'application/json;profile="a, image/png;q=1, \" b";q=0.5, video/mp4;q=0.4'
    assert wish(header).ranges == (Range("application", "json", 0.5), Range("video", "mp4", 0.4))


def test_several_outputs_at_once_must_be_asked_for_by_name() -> None:
    assert wish("multipart/mixed").several == "multipart"
    assert wish("multipart/*, image/png").several == "multipart"
    assert wish("multipart/mixed;q=0, image/png").several is None
    assert wish("multipart/form-data, */*").several is None
    assert wish("*/*").several is None
    assert wish("image/png, application/zip").several == "zip"
    assert wish("application/zip, multipart/mixed").several == "multipart"
    assert wish("application/zip, multipart/mixed;q=0.5").several == "zip"
    assert wish("application/zip;q=0, image/png").several is None


@pytest.mark.parametrize(
    ("header", "form", "ranges"),
    [
        (None, "raw", "*/*"),
        ("application/json, image/webp", "raw", "image/webp"),
        ("application/json, */*;q=0.1", "raw", "*/*;q=0.1"),
        ("application/json", "raw", None),
        ("image/png;q=0, application/json", "raw", None),
        (None, "zip", "application/zip"),
        ("application/*;q=0.5", "zip", "application/zip;q=0.5"),
        ("image/png", "zip", None),
        (None, "multipart", "multipart/mixed"),
        ("multipart/*", "multipart", "multipart/mixed"),
        ("text/event-stream", "multipart", None),
    ],
)
def test_a_form_beside_the_header_narrows_it(header: str | None, form: Form, ranges: str | None) -> None:
    narrowed = wish(header).narrowed(form)
    assert narrowed == (None if ranges is None else Wish(RAW, wish(ranges).ranges))


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("image/webp", "webp"),
        ("image/jpeg, video/mp4", "jpeg"),
        ("image/*, image/png;q=0, image/jpeg;q=0, image/avif;q=0", "webp"),
        ("image/png, image/webp", None),
        ("image/*", None),
        ("image/avif", "avif"),
        ("image/jxl", None),
    ],
)
def test_a_format_is_chosen_only_where_one_is_left(header: str, chosen: str | None) -> None:
    assert wish(header).format == chosen


@pytest.mark.parametrize(
    ("headers", "preference", "applied"),
    [
        ([], Preference(), ""),
        (["respond-async"], Preference(True), "respond-async"),
        (["Respond-Async, WAIT=10"], Preference(True, 10.0), "respond-async, wait=10"),
        (["wait=10", "respond-async"], Preference(True, 10.0), "respond-async, wait=10"),
        (['wait="10"'], Preference(False, 10.0), "wait=10"),
        (["wait = 3; foo=bar"], Preference(False, 3.0), "wait=3"),
        (["wait=0"], Preference(False, 0.0), "wait=0"),
        (["wait=1, wait=2"], Preference(False, 1.0), "wait=1"),
        (["handling=lenient, return=minimal"], Preference(), ""),
        (['note="later, wait=5", wait=7'], Preference(False, 7.0), "wait=7"),
    ],
)
def test_preferences_are_read_from_all_headers(headers: list[str], preference: Preference, applied: str) -> None:
    assert read_prefer(headers) == preference
    assert preference.applied == applied


@pytest.mark.parametrize("value", ["", "-1", "1.5", "soon", "1e3", "²", "٣", "9999999999"])
def test_a_wait_that_is_no_number_of_seconds_is_ignored(value: str) -> None:
    assert read_prefer([f"wait={value}"]) == Preference()


PIECES = st.sampled_from(
    [*'*/,;="\\ qé', "0.5", "1", "nan", "inf", "image", "png", "application", "json", "text", "event-stream"]
)
JUNK = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=40).map("".join))


@given(JUNK)
def test_no_accept_header_raises(header: str) -> None:
    found = read_accept(header)
    if found is not None:
        assert len(found.ranges) <= 64
        assert all(0.0 <= r.quality <= 1.0 for r in found.ranges)
        assert found.format in (None, "png", "jpeg", "webp", "avif")
        assert found.several in (None, "multipart", "zip")
        if found.shape is JSON:
            assert found.takes("application/json")


@given(st.lists(JUNK, max_size=4))
def test_no_prefer_header_raises(headers: list[str]) -> None:
    preference = read_prefer(headers)
    assert preference.wait is None or 0 <= preference.wait < 1e9
    assert isinstance(preference.applied, str)


def test_long_headers_are_bounded() -> None:
    assert len(wish("image/png," * 1000).ranges) == 64
    assert read_prefer(["a," * 64 + "wait=1"]) == Preference()
