"""Where outputs go, and that nothing is overwritten which was not named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.caller.files import _own_name, choose, write
from converter.client import Output


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(name: str | None, data: bytes | None = b"new", text: str | None = None) -> Output:
    return Output(node_id="9", name=name, kind="image", content_type="image/png", size=3, data=data, text=text)


def written(outputs: list[Output], path: str | None) -> list[str]:
    return [str(path) for path in write(outputs, choose(path))]


def test_without_a_path_outputs_keep_their_names_in_the_current_folder() -> None:
    assert written([picture("a.png"), picture("b.png")], None) == ["a.png", "b.png"]
    assert Path("a.png").read_bytes() == b"new"


def test_a_name_that_is_taken_gets_a_number() -> None:
    Path("a.png").write_bytes(b"old")
    assert written([picture("a.png"), picture("a.png")], None) == ["a-2.png", "a-3.png"]
    assert Path("a.png").read_bytes() == b"old"


def test_a_folder_gets_them_under_their_names() -> None:
    Path("out").mkdir()
    assert written([picture("a.png")], "out") == ["out/a.png"]
    assert written([picture("a.png")], "out/") == ["out/a-2.png"]


def test_a_file_that_was_named_is_replaced() -> None:
    Path("mine.png").write_bytes(b"an older and longer one")
    assert written([picture("a.png")], "mine.png") == ["mine.png"]
    assert Path("mine.png").read_bytes() == b"new"


def test_several_outputs_are_numbered_after_the_file_that_was_named() -> None:
    Path("mine-1.png").write_bytes(b"old")
    assert written([picture("a.png"), picture("b.png")], "mine.png") == ["mine-1-2.png", "mine-2.png"]
    assert Path("mine-1.png").read_bytes() == b"old"


def test_text_is_written_as_it_is() -> None:
    assert written([picture("text_00001.txt", None, "grüße")], None) == ["text_00001.txt"]
    assert Path("text_00001.txt").read_text(encoding="utf-8") == "grüße"


@pytest.mark.parametrize("path", ["nowhere/", "nowhere/a.png"])
def test_a_place_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="there is no folder nowhere"):
        choose(path)


def test_standard_output_is_refused() -> None:
    with pytest.raises(ValueError, match="standard output"):
        choose("-")
    assert written([picture("a.png")], "./-") == ["-"]


def test_an_output_without_contents_is_refused() -> None:
    with pytest.raises(ValueError, match="node 9"):
        written([picture("a.png", None)], None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\pictures\\a.png", "a.png"),
        (".bashrc", "bashrc"),
        ("a\x1b[2J\n.png", "a__2J_.png"),
        ("", "output-9.png"),
        ("..", "output-9.png"),
        (None, "output-9.png"),
    ],
)
def test_a_name_from_the_service_chooses_no_place(name: str | None, expected: str) -> None:
    assert written([picture(name)], None) == [expected]


@given(st.text(), st.text(), st.text())
def test_any_name_is_one_visible_file_of_the_folder(name: str, node_id: str, content_type: str) -> None:
    made = _own_name(Output(node_id=node_id, name=name, kind="file", content_type=content_type, size=0))
    assert Path("folder", made).parent == Path("folder")
    assert made
    assert made.isprintable()
    assert not made.startswith(".")
