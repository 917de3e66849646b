"""Emphasis: ComfyUI's notation for weights, total on every text."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.emphasis import Segment, read_emphasis


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a cat", [("a cat", 1.0)]),
        ("a (red) cat", [("a ", 1.0), ("red", 1.1), (" cat", 1.0)]),
        ("(red:1.5)", [("red", 1.5)]),
        ("(red: .5 ) cat", [("red", 0.5), (" cat", 1.0)]),
        ("(red:-1)", [("red", -1.0)]),
        ("((red))", [("red", 1.1 * 1.1)]),
        ("(a (red) cat:0.5)", [("a ", 0.5), ("red", 0.55), (" cat", 0.5)]),
        ("(a (red:1.5) cat)", [("a ", 1.1), ("red", 1.5), (" cat", 1.1)]),
        ("(12:30)", [("12", 30.0)]),
        ("(note: this)", [("note: this", 1.1)]),
        ("(:1.5)", [(":1.5", 1.1)]),
        ("()", []),
        (r"a \(real\) cat", [("a (real) cat", 1.0)]),
        (r"(a \) b:2)", [("a ) b", 2.0)]),
        ("smile :)", [("smile :)", 1.0)]),
        ("(half", [("(half", 1.0)]),
        ("(a (b)", [("(a ", 1.0), ("b", 1.1)]),
    ],
)
def test_texts_and_their_weights(text: str, expected: list[tuple[str, float]]) -> None:
    segments = read_emphasis(text)
    assert [segment.text for segment in segments] == [part for part, _ in expected]
    assert [segment.weight for segment in segments] == pytest.approx([weight for _, weight in expected])


@given(st.text(alphabet="ab():\\1.", max_size=60))
@example("(" * 5000 + ")" * 5000)
@example("\\")
def test_every_text_has_segments_that_lose_nothing_but_notation(text: str) -> None:
    segments = read_emphasis(text)
    assert all(segment.text for segment in segments)
    letters = "".join(segment.text for segment in segments)
    assert [letter for letter in letters if letter in "ab"] == [letter for letter in text if letter in "ab"]


@given(st.text(alphabet=st.characters(exclude_characters="()\\")))
def test_a_text_without_parentheses_is_taken_as_it_is(text: str) -> None:
    assert read_emphasis(text) == ([Segment(text, 1.0)] if text else [])
