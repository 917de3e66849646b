"""The queue and the history under any schedule."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.prompts import Prompt, Prompts

IDS = st.sampled_from("abcdefgh")


def make(prompt_id: str, number: float, extra: dict[str, Any] | None = None) -> Prompt:
    return Prompt(number, prompt_id, {}, extra or {}, (), "{}", "[]")


class Schedule(RuleBasedStateMachine):
    """Any order of calls, against three plain collections."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts = Prompts(history_size=4)
        self.pending: dict[str, float] = {}
        self.running: list[str] = []
        self.history: dict[str, str] = {}
        self.count = 0

    @rule(prompt_id=IDS, number=st.integers(-3, 3))
    def put(self, prompt_id: str, number: int) -> None:
        taken = prompt_id in self.pending or prompt_id in self.running
        assert self.prompts.knows(prompt_id) == taken
        if not taken:
            self.prompts.put(make(prompt_id, number))
            self.pending[prompt_id] = number
            self.history.pop(prompt_id, None)

    @rule()
    def take(self) -> None:
        taken = self.prompts.take()
        if not self.pending:
            assert taken is None
            return
        first = min((number, prompt_id) for prompt_id, number in self.pending.items())
        assert taken is not None
        assert (taken.number, taken.id) == first
        del self.pending[taken.id]
        self.running.append(taken.id)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        prompt_id = data.draw(st.sampled_from(self.running))
        self.count += 1
        self.prompts.finish(prompt_id, str(self.count))
        self.running.remove(prompt_id)
        self.history[prompt_id] = str(self.count)
        if len(self.history) > 4:
            del self.history[next(iter(self.history))]

    @rule(prompt_ids=st.lists(IDS, max_size=3))
    def delete(self, prompt_ids: list[str]) -> None:
        gone = {prompt_id for prompt_id in prompt_ids if self.pending.pop(prompt_id, None) is not None}
        assert self.prompts.delete(prompt_ids) == len(gone)

    @rule()
    def clear(self) -> None:
        assert self.prompts.clear() == len(self.pending)
        self.pending.clear()

    @rule(prompt_ids=st.lists(IDS, max_size=3))
    def forget(self, prompt_ids: list[str]) -> None:
        self.prompts.forget(prompt_ids)
        for prompt_id in prompt_ids:
            self.history.pop(prompt_id, None)

    @rule()
    def forget_all(self) -> None:
        self.prompts.forget_all()
        self.history.clear()

    @invariant()
    def everything_is_in_one_place(self) -> None:
        assert [p.id for p in self.prompts.running()] == self.running
        expected = sorted((number, prompt_id) for prompt_id, number in self.pending.items())
        assert [(p.number, p.id) for p in self.prompts.pending()] == expected
        assert self.prompts.records() == list(self.history.items())
        assert self.prompts.remaining == len(self.running) + len(self.pending)
        assert self.prompts.waiting == len(self.pending)
        for prompt_id in "abcdefgh":
            assert self.prompts.record(prompt_id) == self.history.get(prompt_id)
            places = (prompt_id in self.pending, prompt_id in self.running, prompt_id in self.history)
            assert sum(places) <= 1


TestSchedule = Schedule.TestCase


@given(st.lists(st.integers(0, 40), unique=True, max_size=40))
def test_the_heap_does_not_grow_with_what_was_deleted(numbers: list[int]) -> None:
    prompts = Prompts()
    for number in numbers:
        prompts.put(make(f"kept {number}", number))
    for round_number in range(100):
        prompts.put(make("again", round_number))
        prompts.delete(["again"])
    assert len(prompts._heap) <= 2 * len(numbers) + 17
    taken = [prompt.number for _ in numbers if (prompt := prompts.take()) is not None]
    assert taken == sorted(numbers)


def test_windows_of_the_history() -> None:
    prompts = Prompts()
    for prompt_id in "abcde":
        prompts.put(make(prompt_id, 0))
        prompts.take()
        prompts.finish(prompt_id, prompt_id)

    def window(max_items: int | None = None, offset: int = -1) -> str:
        return "".join(prompt_id for prompt_id, _ in prompts.records(max_items, offset))

    assert window() == "abcde"
    assert window(2) == "de"
    assert window(9) == "abcde"
    assert window(2, 0) == "ab"
    assert window(2, 1) == "bc"
    assert window(None, 3) == "de"
    assert window(0) == window(-1) == window(2, 9) == ""
    assert window(1, -5) == "e"


def test_a_full_history_forgets_its_oldest() -> None:
    prompts = Prompts(history_size=2)
    for prompt_id in "abc":
        prompts.put(make(prompt_id, 0))
        prompts.take()
        prompts.finish(prompt_id, prompt_id)
    assert prompts.records() == [("b", "b"), ("c", "c")]


def test_an_id_that_was_deleted_and_is_used_again_takes_its_new_place() -> None:
    prompts = Prompts()
    prompts.put(make("a", 1))
    prompts.delete(["a"])
    prompts.put(make("a", 3))
    prompts.put(make("b", 2))
    taken = [prompts.take() for _ in range(3)]
    assert [prompt.id if prompt else None for prompt in taken] == ["b", "a", None]


def test_the_client_is_a_text_or_nobody() -> None:
    assert make("a", 0, {"client_id": "me"}).client == "me"
    assert make("a", 0, {"client_id": 5}).client is None
    assert make("a", 0).client is None
