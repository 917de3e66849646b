"""Folders of one prompt alone are found, and removed once nobody needs them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.custody import Custody, own_folders
from converter.core.outputs import FileRef, Folder

TAG = "0b5c"


@pytest.mark.parametrize(
    ("subfolder", "folder", "found"),
    [
        (TAG, "output", {TAG}),
        (f"album/{TAG}", "output", {f"album/{TAG}"}),
        (f"album/{TAG}/deeper", "output", {f"album/{TAG}"}),
        ("album", "output", set()),
        ("", "output", set()),
        (f"{TAG}x", "output", set()),
        (TAG, "temp", set()),
        (TAG, "input", set()),
    ],
)
def test_only_folders_of_the_prompts_own_are_taken(subfolder: str, folder: Folder, found: set[str]) -> None:
    assert own_folders([FileRef("a.png", subfolder, folder)], TAG) == found


def test_a_file_is_found_in_the_folder_that_is_needed() -> None:
    custody = Custody()
    custody.take("album/x")
    assert custody.find(FileRef("a.png", "album/x", "output")) == "album/x"
    assert custody.find(FileRef("a.png", "album/x/deeper", "output")) == "album/x"
    for other in (
        FileRef("a.png", "album", "output"),
        FileRef("a.png", "album/x", "temp"),
        FileRef("a.png", "", "output"),
    ):
        assert custody.find(other) is None
    assert custody.give_back("album/x")
    assert custody.find(FileRef("a.png", "album/x", "output")) is None


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=30), st.randoms())
def test_a_folder_goes_with_the_last_who_needs_it(takes: list[str], chance: random.Random) -> None:
    custody = Custody()
    for folder in takes:
        custody.take(folder)
    backs = list(takes)
    chance.shuffle(backs)
    removed = [folder for folder in backs if custody.give_back(folder)]
    assert sorted(removed) == sorted(set(takes))
