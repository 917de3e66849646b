"""A reference stands for what it was made for, until its end, and nothing else passes for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.order import Selection
from converter.core.outputs import FileRef, Output
from converter.core.references import Reference, read_reference, refer, write_reference
from converter.errors import Expired, NotFound

SECRET = b"s" * 32
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)

REFERENCES = st.builds(
    Reference,
    st.integers(1, 2**40),
    NAMES,
    NAMES,
    st.sampled_from(["output", "temp", "input"]),
    st.sampled_from(["image", "video", "file"]),
    NAMES,
    st.sampled_from([None, "png", "avif"]),
    st.none() | st.integers(1, 100),
    st.sampled_from(["keep", "strip"]),
)


@given(REFERENCES, st.binary(min_size=1), st.text("abcXYZ019", min_size=1, max_size=16))
def test_what_was_written_is_read_until_its_end(reference: Reference, secret: bytes, tag: str) -> None:
    text = write_reference(reference, secret, tag)
    assert read_reference(text, secret, tag, reference.expires_at - 1) == reference
    assert text.startswith(f"{tag}-")
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
    with pytest.raises(Expired):
        read_reference(text, secret, tag, reference.expires_at)


@given(REFERENCES, st.data())
def test_no_change_of_a_letter_is_taken(reference: Reference, data: st.DataObject) -> None:
    text = write_reference(reference, SECRET, "a")
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda letter: letter != text[place]))
    with pytest.raises(NotFound):
        read_reference(text[:place] + other + text[place + 1 :], SECRET, "a", 0.0)


@given(st.text())
def test_junk_is_not_found(text: str) -> None:
    with pytest.raises(NotFound):
        read_reference(text, SECRET, "a", 0.0)


@given(REFERENCES)
def test_another_secret_or_replica_knows_nothing_of_it(reference: Reference) -> None:
    text = write_reference(reference, SECRET, "a")
    for secret, tag in ((b"x" * 32, "a"), (SECRET, "b"), (SECRET, "")):
        with pytest.raises(NotFound):
            read_reference(text, secret, tag, 0.0)


def test_a_reference_gives_back_the_output_and_what_is_done_to_it() -> None:
    file = FileRef("a.png", "sub", "output")
    output = Output("9", "SaveImage", "a.png", "image", "image/png", file=file)
    selection = Selection(("9",), "webp", 80, "strip", "url")
    reference = refer(output, file, selection, 5)
    assert reference.output == Output("", None, "a.png", "image", "image/png", file=file)
    assert reference.selection == Selection(None, "webp", 80, "strip")
