"""A ZIP body is as long as it says, and what reads ZIP files finds in it what was put in."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.media import zipped
from converter.media.outputs import Item
from converter.media.zipped import ZipBody
from tests.converter.media.test_deliver import FILES, TEXTS, content_of, item, join, text


@given(st.lists(FILES | st.builds(text, TEXTS), max_size=5))
def test_it_is_exact_and_read_back(items: list[Item]) -> None:
    body = ZipBody(items, "job.zip")
    written = join(body)
    assert len(written) == len(body)
    check(written, items)


def check(written: bytes, items: list[Item]) -> None:
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert len(set(names)) == len(items)
        contents = [archive.read(info) for info in archive.infolist()]
    assert contents == [content_of(each) if each.output.text is None else each.output.text.encode() for each in items]


@pytest.mark.parametrize("limit", [0, 100, 1000, 5000])
def test_it_is_exact_beyond_what_the_old_format_holds(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old format ends at 2 GiB, which is lowered here."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    monkeypatch.setattr(zipped, "ZIP64_LIMIT", limit)
    items = [item("a.png", [b"x" * 700] * count, held=False) for count in (1, 3, 0, 2)]
    body = ZipBody(items, "job.zip")
    written = join(body)
    assert len(written) == len(body)
    check(written, items)


def test_same_names_are_numbered() -> None:
    items = [item("a.png", [b"1"], held=True), item("b", [b"2"], held=True)] * 2
    with zipfile.ZipFile(io.BytesIO(join(ZipBody(items, "job.zip")))) as archive:
        assert archive.namelist() == ["a.png", "b", "a_2.png", "b_2"]


def test_a_length_of_many_gigabytes_costs_nothing() -> None:
    large = [Item(item("a", [], held=False).output, 2**40, b"")]
    assert 0 < len(ZipBody(large, "job.zip")) - 2**40 < 500
