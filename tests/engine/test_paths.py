"""Names that callers give, and where they may lead."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ForbiddenPathError
from engine.paths import find_annotated, pick_folder, resolve, split_annotation
from tests.engine.graphs import make_folders


def test_kinds_of_folders(tmp_path: Path) -> None:
    folders = make_folders(tmp_path)
    known = [pick_folder(folders, kind) for kind in ("output", "input", "temp")]
    assert known == [folders.output, folders.input, folders.temp]
    strange: list[object] = ["models", None, [], 5]
    assert [pick_folder(folders, kind) for kind in strange] == [None] * 4


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("x.png", ("x.png", None)),
        ("x.png [output]", ("x.png", "output")),
        ("a/b c.png [temp]", ("a/b c.png", "temp")),
        ("x.png[input]", ("x.png[input]", None)),
        ("x.png [models]", ("x.png [models]", None)),
        (" [input]", ("", "input")),
    ],
)
def test_annotations(name: str, parts: tuple[str, str | None]) -> None:
    assert split_annotation(name) == parts


@given(st.lists(st.text() | st.sampled_from(["..", "/", "../..", "a", "\0", "x" * 5000]), max_size=4))
def test_no_path_leaves_its_folder(parts: list[str]) -> None:
    folder = Path(__file__).parent
    try:
        path = resolve(folder, *parts)
    except ForbiddenPathError:
        return
    assert path.is_relative_to(folder.resolve())


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    folders = make_folders(tmp_path)
    (folders.input / "link").symlink_to(tmp_path)
    with pytest.raises(ForbiddenPathError):
        resolve(folders.input, "link", "secret.txt")
    (folders.input / "loop").symlink_to(folders.input / "loop")
    with pytest.raises(ForbiddenPathError):
        find_annotated(folders, "../models/x")
    assert find_annotated(folders, "x.png [output]") == folders.output.resolve() / "x.png"
    assert find_annotated(folders, "sub/x.png") == folders.input.resolve() / "sub" / "x.png"


@pytest.mark.parametrize("name", ["x" * 256, "é" * 128, "x/" * 2048 + "x"])
def test_what_is_too_long_to_be_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ForbiddenPathError):
        resolve(tmp_path, name)
