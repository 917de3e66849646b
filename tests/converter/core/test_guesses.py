"""What was meant by an unknown name: the one that is most like it, or what there is."""

import pytest

from converter.core.guesses import MOST, guess, suggest


@pytest.mark.parametrize(
    ("name", "meant"), [("SaveImge", "SaveImage"), ("saveimage", "SaveImage"), ("Odd", None), ("", None)]
)
def test_the_likeliest_is_meant(name: str, meant: str | None) -> None:
    assert guess(name, {"SaveImage", "LoadImage", "KSampler"}) == meant


def test_where_nothing_is_like_it_it_is_said_what_there_is() -> None:
    assert suggest("promt", ["seed", "prompt"]) == "; did you mean prompt?"
    assert suggest("x" * 10_000, ["seed", "prompt"]) == "; there are seed, prompt"
    assert suggest("x", [str(number) for number in range(MOST + 1)]).endswith(f", {MOST - 1} and more")
    assert suggest("x", []) == ""
