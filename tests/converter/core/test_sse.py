"""Server-sent events: what is written is read again, however it is cut, and the standard's own examples."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core import sse
from converter.core.sse import Event, Parser

BOUND = 1000

texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\r\n :\0\ufeff"), max_size=30)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1, max_size=10)


def parse(stream: bytes, cuts: list[int] | None = None) -> list[Event]:
    parser = Parser(BOUND)
    edges = [0, *sorted(cuts or []), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]
    return [event for piece in pieces for event in parser.feed(piece)]


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[list[tuple[str, str, str | None]], bytes, list[int]]:
    written = draw(st.lists(st.tuples(names, texts, st.none() | names), max_size=4))
    stream = b"".join(sse.encode(*event) + draw(st.sampled_from([b"", sse.comment()])) for event in written)
    stream = draw(st.sampled_from([b"\n", b"\r\n", b"\r"])).join(stream.split(b"\n"))
    return written, stream, draw(st.lists(st.integers(0, len(stream)), max_size=12))


@given(cut_streams())
def test_what_is_written_is_read_however_it_is_cut(
    case: tuple[list[tuple[str, str, str | None]], bytes, list[int]],
) -> None:
    written, stream, cuts = case
    expected, last_id = [], ""
    for name, data, event_id in written:
        last_id = last_id if event_id is None else event_id
        expected.append(Event(name, data.replace("\r\n", "\n").replace("\r", "\n"), last_id))
    assert parse(stream, cuts) == expected


@given(st.lists(st.sampled_from([b"\r", b"\n", b":", b" ", b"data", b"id", b"event", b"\xef\xbb\xbf", b"\xe2", b"x"])))
def test_cuts_never_change_what_is_read(pieces: list[bytes]) -> None:
    stream = b"".join(pieces)
    assert parse(stream, list(range(len(stream)))) == parse(stream)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [Event("message", "YHOO\n+2\n10", "")]),
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            [
                Event("message", "first event", "1"),
                Event("message", "second event", ""),
                Event("message", " third event", ""),
            ],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [Event("message", "", ""), Event("message", "\n", "")]),
        (b"data:test\n\ndata: test\n\n", [Event("message", "test", ""), Event("message", "test", "")]),
        (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [Event("message", "a", "")]),
        (b"event: lost\n\ndata: a\n\n", [Event("message", "a", "")]),
        (b"id: a\0b\ndata: x\n\n", [Event("message", "x", "")]),
        (b"id: 7\n\ndata: x\n\n", [Event("message", "x", "7")]),
        (b"retry: 10\nnonsense: 1\nDATA: 2\ndata: \xff\n\n", [Event("message", "\ufffd", "")]),
        (b"data: a\r\rdata: b\r\n\r\n", [Event("message", "a", ""), Event("message", "b", "")]),
        (b"", []),
    ],
)
def test_the_standard_is_followed(stream: bytes, events: list[Event]) -> None:
    assert parse(stream) == events


def test_an_event_that_ends_with_cr_is_not_held_back_for_the_lf() -> None:
    parser = Parser(BOUND)
    assert parser.feed(b"data: a\r\r") == [Event("message", "a", "")]
    assert parser.feed(b"") == []
    assert parser.feed(b"\ndata: b\r") == []
    assert parser.feed(b"") == []
    assert parser.feed(b"\ndata: c") == []
    assert parser.feed(b"\r\n\n") == [Event("message", "b\nc", "")]
    assert parser.feed(b"data: b\n\n") == [Event("message", "b", "")]


@pytest.mark.parametrize(
    "flood", [b"data: " + b"x" * BOUND, b":" + b"x" * BOUND + b"\n", b"data: " + b"y" * 90 + b"\n", b"data:\n"]
)
def test_what_has_no_end_is_cut_off_at_the_bound(flood: bytes) -> None:
    parser = Parser(BOUND)
    stream = flood * (BOUND + 1)
    with pytest.raises(sse.TooLong, match="1000 bytes"):
        parser.feed(stream)
    with pytest.raises(sse.TooLong, match="1000 bytes"):
        parse(stream, list(range(0, len(stream), 7)))


def test_the_bound_is_of_one_event_not_of_the_stream() -> None:
    parser = Parser(BOUND)
    event = sse.encode("a", "x" * 900)
    assert sum(len(parser.feed(event)) for _ in range(5)) == 5


@pytest.mark.parametrize(("name", "event_id"), [("", None), ("a\nb", None), ("a", ""), ("a", "1\r"), ("a", "\0")])
def test_names_and_ids_that_would_break_the_stream_are_refused(name: str, event_id: str | None) -> None:
    with pytest.raises(ValueError, match="can't be the name or the id"):
        sse.encode(name, "data", event_id)
