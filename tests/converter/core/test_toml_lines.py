"""The line of a key is that on which a person would look for it."""

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from converter.core.toml_lines import MAX_LINES, find_lines

TEXT = '''\
# A comment.
title = """
not = "a key"
"""

[inputs.a]
type = "choice"
choices = [
  "one",   # the first
  "two",
]

[inputs.b]
node = "x" # type = 1
'''


def test_keys_and_tables_are_found() -> None:
    wanted = [("title",), ("inputs",), ("inputs", "a"), ("inputs", "a", "choices"), ("inputs", "b", "node")]
    assert list(find_lines(TEXT, wanted).values()) == [2, 6, 6, 8, 14]


def test_what_is_not_there_is_at_the_table_around_it() -> None:
    assert find_lines(TEXT, [("inputs", "b", "type"), ("inputs", "c"), ("outputs", "x"), (), ("title", "x")]) == {
        ("inputs", "b", "type"): 13,
        ("inputs", "c"): 6,
        ("outputs", "x"): 1,
        (): 1,
        ("title", "x"): 2,
    }


def test_lines_may_end_as_on_windows() -> None:
    assert find_lines(TEXT.replace("\n", "\r\n"), [("inputs", "b", "node")]) == {("inputs", "b", "node"): 14}


def test_a_text_of_any_length_is_no_burden() -> None:
    assert find_lines("a = 1\n" + "\n" * MAX_LINES, [("a",)]) == {("a",): 1}
    assert find_lines("\n" * MAX_LINES + "a = 1\n", [("a",)]) == {("a",): 1}


@given(st.lists(st.from_regex(r"[a-z]{1,5}", fullmatch=True), unique=True, max_size=8), st.data())
def test_every_key_is_on_its_line(keys: list[str], data: st.DataObject) -> None:
    fillers = data.draw(st.lists(st.sampled_from(["", "# note", "  "]), min_size=len(keys), max_size=len(keys)))
    lines = [line for filler, key in zip(fillers, keys, strict=True) for line in (filler, f"{key} = 1")]
    text = "\n".join(lines)
    assert tomllib.loads(text).keys() == set(keys)
    expected = {(key,): 2 * number + 2 for number, key in enumerate(keys)}
    # Blank lines and comments before a key are part of the text before it.
    assert find_lines(text, expected.keys()) == expected
