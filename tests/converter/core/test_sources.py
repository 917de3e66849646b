"""Objects are found under the operator's places and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.address import Refused
from converter.core.sources import Source, find_source, parse_sources

SOURCES = (Source("s3://photos/in"), Source("s3://photos/in/deep/"), Source("gs://all"), Source("az://box/a"))


@pytest.mark.parametrize(
    ("url", "number", "key"),
    [
        ("s3://photos/in/a.png", 0, "a.png"),
        ("S3://photos/in/b/ü c%20.png", 0, "b/ü c%20.png"),
        ("s3://photos/in/deep/a.png", 1, "a.png"),
        ("s3://photos/in/deeper/a.png", 0, "deeper/a.png"),
        ("s3://photos/in/deep", 0, "deep"),
        ("gs://all/a?b#c", 2, "a?b#c"),
        ("az://box/a/x", 3, "x"),
    ],
)
def test_an_object_is_found_in_the_nearest_place(url: str, number: int, key: str) -> None:
    assert find_source(url, SOURCES) == (number, key)


@pytest.mark.parametrize(
    "url",
    [
        "s3://photos/in",
        "s3://photos/in/",
        "s3://photos/inside/a.png",
        "s3://photos/a.png",
        "s3://Photos/in/a.png",
        "gs://photos/in/a.png",
        "s3://photos/in/../a.png",
        "s3://photos/in/./a.png",
        "s3://photos/in//a.png",
        "s3://photos//in/a.png",
        "s3://photos/in/a\n.png",
        "s3://all/a",
        "s3://",
        "s3:///photos/in/a.png",
        "s3://user@photos/in/a.png",
        "gs://all",
        "gs://all/" + "a" * 1024,
    ],
)
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        find_source(url, SOURCES)


def test_without_places_it_is_said_that_there_are_none() -> None:
    with pytest.raises(Refused, match="there is none here"):
        find_source("s3://photos/in/a.png", ())


@given(st.text(alphabet="s3g://./photsinae?#%", max_size=30))
def test_what_is_found_lies_under_its_place(text: str) -> None:
    url = f"s3://photos/{text}"
    try:
        number, key = find_source(url, SOURCES)
    except Refused:
        return
    assert url == f"{SOURCES[number].url.rstrip('/')}/{key}"
    assert not {"", ".", ".."} & set(key.split("/"))


def test_sources_are_read_from_a_document() -> None:
    document = {"photos": {"url": "s3://photos/in", "options": {"region": "x"}}, "all": {"url": "GS://all"}}
    assert parse_sources(document) == {"photos": Source("s3://photos/in", {"region": "x"}), "all": Source("GS://all")}
    assert "region" not in repr(parse_sources(document))


def test_everything_that_is_wrong_with_a_document_is_said_at_once() -> None:
    document = {
        "a": 1,
        "b": {"url": "http://host/x", "key": "x"},
        "c": {"options": {"secret": 1}},
        "d": {"url": "s3://bucket/../x", "options": "hidden"},
    }
    with pytest.raises(ValueError, match="table with a url") as raised:
        parse_sources(document)
    said = str(raised.value)
    assert [said.count(f"{name}: ") for name in "abcd"] == [1, 2, 2, 2]
    assert "hidden" not in said
