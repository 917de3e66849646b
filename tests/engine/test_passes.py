"""How rows are put through a network: in what parts, and on how many of the processor's threads."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from engine.passes import run_split


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_rows_keep_their_order_whatever_the_parts() -> None:
    parts: list[int] = []

    def double(rows: Tensor, times: Tensor) -> Tensor:
        parts.append(len(rows))
        return 2 * rows + times

    rows, times = torch.arange(5.0), torch.ones(5)
    for limit, expected in ((5, [5]), (2, [2, 2, 1]), (9, [5])):
        parts.clear()
        assert torch.equal(run_split(double, limit, rows, times), 2 * rows + 1)
        assert parts == expected


@pytest.mark.parametrize(
    ("work", "rows", "expected"),
    [(1e6, 1, 1), (2e9, 2, 1), (2e9, 4, 2), (2e9, 6, 3), (2e9, 8, 4), (1e15, 1, 4), (math.inf, 1, 4)],
)
def test_a_part_has_as_many_threads_as_its_work_is_worth(work: float, rows: int, expected: int) -> None:
    seen: list[int] = []

    def look(part: Tensor) -> Tensor:
        seen.append(torch.get_num_threads())
        return part

    run_split(look, 32, torch.zeros(rows), work=work)
    assert seen == [expected]
    assert torch.get_num_threads() == 4


def test_all_threads_are_there_again_after_a_part_that_failed() -> None:
    def fail(part: Tensor) -> Tensor:
        raise ValueError("not these")

    with pytest.raises(ValueError, match="not these"):
        run_split(fail, 32, torch.zeros(1), work=1.0)
    assert torch.get_num_threads() == 4
