"""Pace: what silences teach, what they don't, and that little is remembered, under any schedule, against a model."""

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.core import pace
from converter.core.events import (
    Alive,
    Began,
    Cached,
    Entered,
    Executed,
    Failed,
    Interrupted,
    Released,
    Sound,
    Succeeded,
)
from converter.core.pace import FACTOR, HALF_LIFE, MOST, Pace

BROKEN = Failed("1", "Slow", "no", "ValueError")
BLOCKED = Failed("1", "Slow", "no", "ExecutionBlocked", midway=True)


@dataclass
class Engine:
    """What is known of one, on a clock of its own."""

    now: float = 50.0
    state: Pace = field(default_factory=Pace)

    def hear(self, class_type: str | None, *sounds: Sound, prompt: str = "p") -> "Engine":
        for sound in sounds or (Alive(),):
            self.state = pace.hear(self.state, prompt, sound, class_type, self.now)
        return self

    def wait(self, seconds: float) -> "Engine":
        self.now += seconds
        return self

    def visit(self, class_type: str, seconds: float) -> "Engine":
        """A whole run of one node."""
        self.hear(None, Began(), Cached(())).hear(class_type, Entered("1")).wait(seconds)
        return self.hear(class_type, Executed("1", {}), Succeeded(), Released())

    def expected(self, class_type: str) -> float:
        """Silence that is explained of a prompt that has just come to such a node."""
        asked = Engine(self.now, self.state).hear(class_type, Entered("1"), prompt="new")
        return pace.explain(asked.state, ["new"]) / FACTOR


def test_of_a_class_that_never_ran_nothing_is_known() -> None:
    assert Engine().expected("Slow") == 0.0
    assert pace.explain(Pace(), ["p"]) == 0.0


def test_a_silence_that_ended_well_explains_a_longer_one() -> None:
    engine = Engine().visit("Slow", 300.0)
    assert engine.expected("Slow") == 300.0
    assert engine.expected("Other") == 0.0
    assert pace.explain(engine.hear("Slow", Entered("1")).state, ["p"]) == 600.0


def test_the_longest_silence_at_a_node_counts_and_not_the_whole_time_there() -> None:
    engine = Engine().hear("Slow", Entered("1"))
    for seconds in (3.0, 40.0, 5.0):
        engine.wait(seconds).hear("Slow")
    assert engine.hear("Slow", Succeeded()).expected("Slow") == 40.0


def test_a_node_that_gives_way_to_another_has_shown_its_pace() -> None:
    engine = Engine().hear("Slow", Entered("1")).wait(30.0).hear("Other", Entered("2")).wait(4.0)
    assert engine.expected("Slow") == 30.0
    assert engine.hear("Other", Released()).expected("Other") == 4.0


def test_a_silence_explains_the_next_one_at_the_same_node_at_once() -> None:
    engine = Engine().hear("Slow", Entered("1")).wait(30.0).hear("Slow")
    assert pace.explain(engine.state, ["p"]) == 60.0
    assert pace.explain(engine.state, ["other"]) == 0.0


@pytest.mark.parametrize("end", [BROKEN, Interrupted("1")])
def test_a_silence_that_ended_badly_teaches_nothing(end: Sound) -> None:
    engine = Engine().hear("Slow", Entered("1")).wait(300.0).hear("Slow", end)
    assert engine.expected("Slow") == 0.0
    assert engine.state.stays == {}


def test_an_output_that_is_blocked_midway_is_no_end() -> None:
    engine = Engine().hear("Slow", Entered("1")).wait(30.0).hear("Slow", BLOCKED)
    assert engine.hear("Slow", Succeeded()).expected("Slow") == 30.0


def test_a_prompt_that_is_left_teaches_nothing() -> None:
    engine = Engine().hear("Slow", Entered("1")).wait(300.0)
    engine.state = pace.leave(engine.state, "p")
    assert engine.state == Pace()
    assert pace.leave(engine.state, "p") is engine.state
    assert engine.hear("Slow", Succeeded()).expected("Slow") == 0.0


def test_before_its_first_node_a_prompt_has_no_pace() -> None:
    engine = Engine().hear(None, Began()).wait(300.0).hear("Slow", Entered("1"))
    assert pace.explain(engine.hear(None, Began(), prompt="new").state, ["new"]) == 0.0


def test_the_slowest_of_all_that_run_counts() -> None:
    engine = Engine().visit("Slow", 300.0).visit("Other", 20.0)
    engine.hear("Slow", Entered("1"), prompt="a").hear("Other", Entered("1"), prompt="b").hear(None, prompt="c")
    assert [pace.explain(engine.state, prompts) for prompts in ("abc", "bc", "c")] == [600.0, 40.0, 0.0]


def test_a_longer_silence_is_believed_at_once_and_forgotten_slowly() -> None:
    engine = Engine().visit("Slow", 100.0).visit("Slow", 300.0)
    assert engine.expected("Slow") == 300.0
    engine.wait(HALF_LIFE - 1.0).visit("Slow", 1.0)
    assert engine.expected("Slow") == 150.0
    for _ in range(1000):
        engine.visit("Slow", 1.0)
    assert 145.0 < engine.expected("Slow") < 150.0
    assert engine.wait(30 * HALF_LIFE).visit("Slow", 1.0).expected("Slow") == 1.0


def test_without_a_quicker_run_nothing_is_forgotten() -> None:
    assert Engine().visit("Slow", 300.0).wait(365 * HALF_LIFE).expected("Slow") == 300.0


def test_the_quickest_classes_are_forgotten_first() -> None:
    engine = Engine().visit("Slow", 1000.0)
    for number in range(MOST):
        engine.visit(str(number), 10.0 + number)
    assert len(engine.state.silences) == MOST
    assert (engine.expected("Slow"), engine.expected("0"), engine.expected("1")) == (1000.0, 0.0, 11.0)


CLASSES = [None, "Slow", "Other"]
GOOD, BAD = (Succeeded(), Released()), (BROKEN, Interrupted("1"))
SOUNDS = st.sampled_from([Alive(), Entered("1"), BLOCKED, *GOOD, *BAD])
STEPS = st.tuples(st.sampled_from("ab"), SOUNDS, st.sampled_from(CLASSES), st.sampled_from([0.0, 1.0, 90.0, 5000.0]))


@settings(max_examples=200)
@given(st.lists(STEPS, max_size=25))
def test_what_is_expected_is_the_longest_that_happened_less_what_has_faded(
    steps: list[tuple[str, Sound, str | None, float]],
) -> None:
    engine = Engine()
    stays: dict[str, tuple[str | None, list[float]]] = {}
    ended: dict[str | None, list[tuple[float, float]]] = {}
    for prompt, sound, class_type, seconds in steps:
        engine.wait(seconds).hear(class_type, sound, prompt=prompt)
        where, heard = stays.pop(prompt, (class_type, [engine.now]))
        heard = [*heard, engine.now]
        if sound in GOOD or (sound not in BAD and class_type != where):
            ended.setdefault(where, []).append((engine.now, max(later - sooner for sooner, later in pairwise(heard))))
            heard = [engine.now]
        if sound not in GOOD + BAD:
            stays[prompt] = (class_type, heard)
    for name in ("Slow", "Other"):
        past = ended.get(name, [(0.0, 0.0)])
        known = max(longest * 0.5 ** ((past[-1][0] - at) / HALF_LIFE) for at, longest in past)
        assert engine.expected(name) == pytest.approx(known)
    assert engine.state.stays.keys() == stays.keys()
