"""Whatever the engine prints becomes bounded, readable lines, however it is cut into chunks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.link.lines import Lines


def read(data: bytes, *, limit: int = 100) -> list[str]:
    lines = Lines(limit)
    return lines.feed(data) + lines.end()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"no line feed at the end", ["no line feed at the end"]),
        (b"\n\n  \none\n", ["one"]),
        (b" 10%|#    |\r 50%|###  |\r100%|#####|\ndone\n", ["100%|#####|", "done"]),
        (b"\x1b[32m[INFO]\x1b[0m ready\x07\n", ["[INFO] ready"]),
        (b"a\tb\n", ["a\tb"]),
        ("grün".encode() + b"\xff\n", ["grün\ufffd"]),
        (b"x" * 250 + b"\nnext\n", ["x" * 100 + " ...", "next"]),
        (b"x" * 250 + b"\rshort\n", ["short"]),
        (b"x" * 100 + b"\n", ["x" * 100]),
    ],
)
def test_lines(data: bytes, expected: list[str]) -> None:
    assert read(data) == expected


@given(st.lists(st.sampled_from([b"ab", b"\r", b"\n", b"x" * 7, b"\x1b[31m", "ü".encode(), b""])), st.data())
def test_cuts_between_chunks_do_not_show(pieces: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(pieces)
    at = data.draw(st.integers(min_value=0, max_value=len(whole)))
    lines = Lines(limit=10)
    assert lines.feed(whole[:at]) + lines.feed(whole[at:]) + lines.end() == read(whole, limit=10)


@given(st.lists(st.binary(max_size=50)))
def test_lines_are_bounded_and_printable(chunks: list[bytes]) -> None:
    lines = Lines(limit=10)
    found = [line for chunk in chunks for line in lines.feed(chunk)] + lines.end()
    for line in found:
        assert 0 < len(line) <= 10 + len(" ...")
        assert line.replace("\t", " ").replace("\ufffd", "?").isprintable() or not line.isascii()
