"""Names of saved files."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.errors import ForbiddenPathError
from engine.nodes.numbering import Numbering, fill_prefix, find_latest


def save(numbering: Numbering, folder: Path, prefix: str, index: int = 0) -> str:
    """Creates a file and returns its path inside the folder."""
    with numbering.create(folder, prefix, 64, 32, index) as (file, subfolder, name):
        file.write(b"x")
    return f"{subfolder}/{name}" if subfolder else name


def test_counting_goes_on_from_what_is_there(tmp_path: Path) -> None:
    for name in ("a_00003_.png", "a_00010_.webp", "ab_00050_.png", "a_x_.png", "a_00004.txt"):
        (tmp_path / name).touch()
    numbering = Numbering()
    assert [save(numbering, tmp_path, "a") for _ in range(2)] == ["a_00011_.png", "a_00012_.png"]
    assert save(numbering, tmp_path, "ab") == "ab_00051_.png"
    (tmp_path / "big_99999_.png").touch()
    assert save(numbering, tmp_path, "big") == "big_100000_.png"


def test_what_somebody_else_wrote_is_not_overwritten(tmp_path: Path) -> None:
    numbering = Numbering()
    save(numbering, tmp_path, "a")
    for number in (2, 3):
        (tmp_path / f"a_{number:05}_.png").write_bytes(b"theirs")
    assert save(numbering, tmp_path, "a") == "a_00004_.png"
    assert (tmp_path / "a_00002_.png").read_bytes() == b"theirs"


def test_places_in_a_batch_and_subfolders(tmp_path: Path) -> None:
    numbering = Numbering()
    names = [save(numbering, tmp_path, "s/d/%width%x%height%_b%batch_num%", index) for index in range(2)]
    assert names == ["s/d/64x32_b0_00001_.png", "s/d/64x32_b1_00002_.png"]
    assert save(Numbering(), tmp_path, "s/d/64x32_b%batch_num%", 0) == "s/d/64x32_b0_00003_.png"
    assert save(numbering, tmp_path, "") == "_00001_.png"
    assert save(numbering, tmp_path, "s/") == "s/_00001_.png"


@pytest.mark.parametrize("prefix", ["../x", "/elsewhere/x", "a/../../x", "a\0b/x"])
def test_a_prefix_stays_in_its_folder(tmp_path: Path, prefix: str) -> None:
    folder = tmp_path / "output"
    folder.mkdir()
    with pytest.raises(ForbiddenPathError):
        save(Numbering(), folder, prefix)


def test_a_file_that_could_not_be_written_is_removed(tmp_path: Path) -> None:
    def fail() -> None:
        with Numbering().create(tmp_path, "a", 1, 1, 0) as (file, _, _):
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_many_at_once(tmp_path: Path) -> None:
    numbering = Numbering()
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: save(numbering, tmp_path, "a"), range(100)))
    assert sorted(names) == [f"a_{number:05}_.png" for number in range(1, 101)]


def test_engines_that_share_a_folder_never_overwrite(tmp_path: Path) -> None:
    """Counters of their own, so that they meet at the same numbers all the time, with files of several kinds."""
    kinds = ("png", "webp", "latent")

    def save_some(worker: int) -> list[str]:
        numbering, names = Numbering(), []
        for turn in range(20):
            text = f"{worker}/{turn}".encode()
            with numbering.create(tmp_path, "a", 1, 1, 0, kinds[turn % 3]) as (file, _, name):
                file.write(text)
            names.append(name)
            assert (tmp_path / name).read_bytes() == text
        return names

    with ThreadPoolExecutor(8) as pool:
        names = [name for names in pool.map(save_some, range(8)) for name in names]
    assert len(set(names)) == len(names) == len(list(tmp_path.iterdir())) == 160
    texts = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(texts) == 160


def test_parts_of_the_date() -> None:
    moment = time.strptime("2026-03-04 05:06:07", "%Y-%m-%d %H:%M:%S")
    filled = fill_prefix("%year%-%month%-%day%_%hour%.%minute%.%second%_%other%", 1, 2, moment)
    assert filled == "2026-03-04_05.06.07_%other%"
    assert fill_prefix("plain", 1, 2, moment) == "plain"


def test_counters_are_forgotten_when_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.nodes.numbering._REMEMBERED", 2)
    numbering = Numbering()
    for name in "abcabc":
        save(numbering, tmp_path, name)
    assert [find_latest(tmp_path, name) for name in "abc"] == [2, 2, 2]
