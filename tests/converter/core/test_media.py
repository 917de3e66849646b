"""Media are found only where media belong, and their text decodes to what was encoded or is refused with its place."""

import base64
import json
from typing import Any, get_args
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.media import (
    FOLDERS,
    LOADERS,
    MAX_LIST,
    MAX_NAME,
    MAX_PATH,
    Kind,
    MediaInput,
    decode,
    fill_parts,
    identify,
    media_inputs,
)
from converter.core.workflow import check
from converter.errors import InvalidInput, InvalidWorkflow
from tests.converter.core.documents import drafts, graphs

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xdb"


def text(data: bytes) -> str:
    """Base64."""
    return base64.b64encode(data).decode()


def load(value: object, class_type: str = "LoadImage", name: str = "image") -> dict[str, Any]:
    """A graph of one loader."""
    return {"7": {"class_type": class_type, "inputs": {name: value}}}


def given_as(kind: Kind, value: str) -> MediaInput:
    """An input of a loader."""
    return MediaInput("7", "LoadImage", "image", kind, value)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"part": "photo"}, "part"),
        (f"data:image/png;base64,{text(PNG)}", "data"),
        ("DATA:,x", "data"),
        (text(PNG), "base64"),
        (text(JPEG), "base64"),
        (text(PNG).rstrip("="), "base64"),
        (base64.encodebytes(PNG * 3).decode(), "base64"),
        ("x" * (MAX_PATH + 1), "base64"),
        ("x" * (MAX_NAME + 1), "base64"),
        ("folder/" + "é" * (MAX_NAME // 2 + 1), "base64"),
        ("https://host.example/a.png", "url"),
        ("HTTP://host.example", "url"),
        ("s3://bucket/key.png", "object"),
        ("GS://bucket/key.png", "object"),
        ("az://container/key.png", "object"),
        ("file:///etc/passwd", "scheme"),
        ("s3x://bucket/key.png", "scheme"),
        ("/etc/passwd", "path"),
        ("\\\\server\\share\\a.png", "path"),
        ("C:\\a.png", "path"),
        ("sub/../../a.png", "path"),
        ("..", "path"),
        ({"__value__": "/etc/passwd"}, "path"),
    ],
)
def test_what_is_staged_or_refused(value: object, kind: Kind) -> None:
    [media] = media_inputs(load(value))
    assert (media.node_id, media.class_type, media.input_name, media.kind) == ("7", "LoadImage", "image", kind)


@pytest.mark.parametrize(
    "value",
    [
        "example.png",
        "sub/example.png",
        "clipspace/x.png [input]",
        "a..b.png",
        "",
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "iVBORw0KGgo",
        "x" * MAX_NAME + "/" + "x" * MAX_NAME,
        "data",
        ["5", 0],
        5,
        None,
        {"part": 5},
        {"part": "x", "more": 1},
    ],
)
def test_names_of_files_are_left_alone(value: object) -> None:
    assert media_inputs(load(value)) == ()


@pytest.mark.parametrize(
    "value", ["https://host.example/a.png", f"data:image/png;base64,{text(PNG)}", text(PNG), "/etc"]
)
@pytest.mark.parametrize(
    ("class_type", "name"), [("CLIPTextEncode", "text"), ("LoadImage", "upload"), ("Odd", "image")]
)
def test_a_text_that_looks_like_media_is_never_touched(value: str, class_type: str, name: str) -> None:
    assert media_inputs(load(value, class_type, name)) == ()


def test_a_part_is_found_anywhere() -> None:
    [media] = media_inputs(load({"part": "mask"}, "AnyCustomNode", "whatever"))
    assert (media.kind, media.value) == ("part", "mask")


def test_parts_of_the_request_are_found_within_values() -> None:
    value = {"files": [{"part": "a"}, {"part": "b"}, {"part": "a"}], "text": "a", "other": {"part": "c"}}
    found = media_inputs(load(value, "AnyCustomNode", "whatever"), parts={"a", "b"})
    assert [(media.kind, media.value, media.nested) for media in found] == [("part", "a", True), ("part", "b", True)]
    filled = {"files": ["1.png", "2.png", "1.png"], "text": "a", "other": {"part": "c"}}
    assert fill_parts(value, {"a": "1.png", "b": "2.png"}) == filled
    assert media_inputs(load(value, "AnyCustomNode", "whatever")) == ()


@pytest.mark.parametrize("value", [{"part": 3}, {"part": "a", "more": 1}, [{"part": ["a"]}], ["a"], "a", None])
def test_what_only_looks_like_a_part_stays(value: Any) -> None:
    assert media_inputs(load([value], "AnyCustomNode", "whatever"), parts={"a"}) == ()
    assert fill_parts(value, {"a": "1.png"}) == value


def test_a_template_marks_further_places() -> None:
    graph = load(text(PNG), "CustomLoader", "picture") | {"8": {"class_type": "X", "inputs": {"picture": text(PNG)}}}
    [media] = media_inputs(graph, {("7", "picture")})
    assert (media.node_id, media.kind) == ("7", "base64")


@pytest.mark.parametrize(("class_type", "name"), sorted(LOADERS | FOLDERS))
def test_the_usual_loaders_are_known(class_type: str, name: str) -> None:
    assert len(media_inputs(load("data:,x", class_type, name))) == 1


def test_what_the_engine_declares_as_an_upload_is_one() -> None:
    graph = load("https://host.example/a.mp4", "CustomVideo", "clip")
    assert media_inputs(graph, declared={("CustomVideo", "other"), ("Other", "clip")}) == ()
    [media] = media_inputs(graph, declared={("CustomVideo", "clip")})
    assert (media.kind, media.position) == ("url", None)


def test_the_pictures_of_a_folder_come_as_a_list_or_alone() -> None:
    pictures = ["data:,x", {"part": "a"}, text(PNG), "https://host.example/a.png", "mine.png", ["5", 0], "../x", 7]
    found = media_inputs(load(pictures, "VHS_LoadImages", "directory"))
    kinds: list[Kind] = ["data", "part", "base64", "url", "name", "name", "path", "name"]
    assert [(media.kind, media.position) for media in found] == list(zip(kinds, range(8), strict=True))
    [alone] = media_inputs(load({"part": "a"}, "VHS_LoadImages", "directory"))
    assert (alone.kind, alone.position) == ("part", 0)
    assert media_inputs(load({"__value__": ["data:,x"]}, "VHS_LoadImages", "directory"))[0].kind == "data"


@pytest.mark.parametrize("value", ["my pictures", "sub/folder", ["5", 0], 5, None, []])
def test_the_name_of_a_folder_is_left_alone(value: object) -> None:
    assert media_inputs(load(value, "VHS_LoadImages", "directory")) == ()


def test_a_list_elsewhere_is_never_touched() -> None:
    assert media_inputs(load(["data:,x", "data:,y"])) == ()


def test_a_list_has_a_bound() -> None:
    found = media_inputs(load(["data:,x"] * (MAX_LIST + 5), "VHS_LoadImages", "directory"))
    assert len(found) == MAX_LIST + 1
    with pytest.raises(InvalidInput, match=f"Picture {MAX_LIST + 1} of input directory .* more than the {MAX_LIST}"):
        decode(found[-1])


def test_a_folder_of_pictures_takes_nothing_else() -> None:
    [media] = media_inputs(load({"part": "a"}, "VHS_LoadImages", "directory"))
    assert identify(media, PNG).content_type == "image/png"
    with pytest.raises(InvalidInput, match="must have pictures only, and has audio/flac"):
        identify(media, b"fLaC")


def test_media_come_in_the_order_of_the_workflow() -> None:
    node = {"class_type": "LoadImage", "inputs": {"other": {"part": "b"}, "image": {"part": "a"}}}
    found = media_inputs({"10": node, "2": node})
    assert [(media.node_id, media.value) for media in found] == [("10", "b"), ("10", "a"), ("2", "b"), ("2", "a")]


def test_the_value_is_not_shown() -> None:
    assert "secret" not in repr(given_as("data", "data:,secret"))


@given(graphs | drafts)
def test_finding_never_fails(document: dict[str, Any]) -> None:
    try:
        graph = check(document)
    except InvalidWorkflow:
        return
    for media in media_inputs(graph, {("1", "text")}):
        place = (media.class_type, media.input_name)
        assert media.kind == "part" or place in LOADERS | FOLDERS or media.input_name == "text"


# Decoding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("base64", text(PNG)),
        ("base64", text(PNG).rstrip("=")),
        ("base64", base64.encodebytes(PNG).decode().replace("\n", "\r\n \t")),
        ("data", f"data:image/png;base64,{text(PNG)}"),
        ("data", f"data:image/png;charset=x;BASE64 ,{text(PNG)}"),
        ("data", f"data:;base64,{text(PNG).replace('+', '%2B').replace('=', '%3d')}"),
        ("data", f"data:text/plain,{quote_from_bytes(PNG)}"),
        ("data", f"data:,{quote_from_bytes(PNG, safe='')}"),
    ],
)
def test_media_decode_to_what_was_encoded(kind: Kind, value: str) -> None:
    assert decode(given_as(kind, value)) == PNG


@given(st.binary(max_size=200), st.booleans(), st.integers(1, 80))
def test_any_picture_survives_encoding(rest: bytes, padded: bool, width: int) -> None:
    encoded = text(PNG + rest) if padded else text(PNG + rest).rstrip("=")
    wrapped = "\n".join(encoded[at : at + width] for at in range(0, len(encoded), width))
    [media] = media_inputs(load(wrapped))
    assert decode(media) == PNG + rest


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("base64", text(PNG)[:44] + "=", "is not valid base64"),
        ("base64", text(PNG)[:40] + "!" + text(PNG)[41:], "is not valid base64"),
        ("base64", text(PNG)[:46] + "=", "is not valid base64"),
        ("base64", text(PNG)[:20] + "=" + text(PNG)[21:], "is not valid base64"),
        ("base64", text(PNG)[:45], "is not valid base64"),
        ("base64", text(PNG) + "é", "is not valid base64"),
        ("base64", text(PNG) + "====", "is not valid base64"),
        ("base64", "x" * 5000, "is in no known format"),
        ("base64", "", "is empty"),
        ("data", "data:image/png;base64,", "is empty"),
        ("data", "data:image/png;base64", "is a data: URI without the comma"),
        ("data", "data:image/png;base64,\ud800", "is not valid base64"),
        ("data", "data:image/png,\ud800", "is in no known format"),
        ("data", "data:image/svg+xml,<svg/>", "is in no known format"),
        ("data", f"data:image/png,{text(PNG)}", "is in no known format"),
        ("url", "https://host.example/a.png", "is a URL, whose bytes are not in the request"),
        ("scheme", "ftp://host.example/a.png", "is a URL of a scheme that is not supported"),
        ("path", "/etc/passwd", "is a path outside"),
        ("part", "photo", 'refers to the part "photo", which the request does not have'),
    ],
)
def test_what_can_not_be_decoded_is_refused_with_its_place(kind: Kind, value: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(given_as(kind, value))
    assert caught.value.detail.startswith(f"Input image of node 7 (LoadImage) {reason}")
    assert caught.value.extensions == {"node_id": "7", "class_type": "LoadImage", "input_name": "image"}


def test_bytes_of_a_part_are_identified() -> None:
    assert identify(given_as("part", "photo"), PNG) == ("image/png", ".png")
    with pytest.raises(InvalidInput, match="is empty"):
        identify(given_as("part", "photo"), b"")


@given(st.sampled_from(get_args(Kind)), st.text() | st.just("\ud800,"), st.text())
def test_decoding_never_fails_otherwise(kind: Kind, value: str, name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(MediaInput(name, name, name, kind, value))
    json.dumps(caught.value.problem())
    caught.value.detail.encode()
