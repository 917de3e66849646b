"""Progress: complete snapshots between 0 and 1 that never go back, whatever is heard."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core import progress
from converter.core.events import (
    Advanced,
    Alive,
    Began,
    Cached,
    Entered,
    Executed,
    Failed,
    Interrupted,
    NodeProgress,
    Released,
    Sound,
    Succeeded,
)
from converter.core.progress import Progress, begin, hear, restart, running_node, snapshot
from converter.link.wire import Message, parse
from tests.fakes import recordings

WORKFLOW: dict[str, Any] = {id: {"class_type": f"Class{id}", "inputs": {}} for id in "1234"}


def follow(*sounds: Sound, state: Progress | None = None) -> Progress:
    state = begin(WORKFLOW) if state is None else state
    for sound in sounds:
        state = hear(state, sound)
    return state


def at(node: str, value: float, maximum: float, *, finished: bool = False, display: str | None = None) -> NodeProgress:
    return NodeProgress(node, display or node, value, maximum, finished)


def test_nothing_is_done_at_first() -> None:
    assert snapshot(begin(WORKFLOW), WORKFLOW) == {
        "value": 0.0,
        "nodes_done": 0,
        "nodes_total": 4,
        "node_id": None,
        "class_type": None,
        "step": None,
        "steps": None,
    }


def test_a_snapshot_is_complete() -> None:
    state = follow(Began(), Cached(("1", "unknown")), Entered("2"), Advanced((at("2", 5, 20),)))
    assert snapshot(state, WORKFLOW) == {
        "value": 0.3125,
        "nodes_done": 1,
        "nodes_total": 4,
        "node_id": "2",
        "class_type": "Class2",
        "step": 5,
        "steps": 20,
    }


def test_a_node_without_steps_counts_none() -> None:
    state = follow(Advanced((at("2", 5, 20),)), Entered("3"), Advanced((at("2", 20, 20, finished=True), at("3", 0, 1))))
    assert (state.node_id, state.step, state.steps, state.value) == ("3", None, None, 0.25)


def test_a_node_that_is_not_in_the_workflow_has_no_class() -> None:
    assert snapshot(follow(Entered("9")), WORKFLOW)["class_type"] is None
    assert snapshot(follow(Entered("1")), {"1": "no node"})["class_type"] is None


def test_a_node_counts_once_between_its_output_and_its_last_snapshot() -> None:
    state = follow(Entered("2"), Advanced((at("2", 20, 20),)))
    assert state.value == 0.25
    state = follow(Executed("2", {}), state=state)
    assert state.value == 0.25
    assert follow(Advanced((at("2", 20, 20),)), state=state).value == 0.25
    assert follow(Advanced((at("2", 20, 20, finished=True),)), state=state).value == 0.25


def test_nodes_that_run_at_once_add_up() -> None:
    assert follow(Advanced((at("1", 1, 2), at("2", 1, 2), at("3", 9, 0)))).value == 0.25


def test_nodes_that_another_puts_in_count_as_part_of_it() -> None:
    state = follow(Advanced((at("4.0.0.1", 1, 1, finished=True, display="4"), at("4.0.0.2", 5, 10, display="4"))))
    assert (state.value, len(state.done), state.node_id) == (0.125, 0, "4")


def test_a_node_that_gives_way_is_done_without_a_snapshot_that_says_so() -> None:
    state = follow(Entered("1"), Entered("2"), Entered("3"))
    assert (state.done, state.value, state.node_id) == (frozenset("12"), 0.5, "3")
    assert follow(Entered("9"), Entered("4"), state=state).done == frozenset("123")


def test_a_lazy_node_that_is_entered_again_is_not_done_yet() -> None:
    state = follow(Entered("3"), Entered("1"), Entered("3"))
    assert (state.done, state.value) == (frozenset("1"), 0.25)


def test_an_async_node_that_still_runs_is_not_done() -> None:
    state = follow(Entered("1"), Entered("2"), Advanced((at("1", 0, 1), at("2", 1, 2))))
    assert (state.done, state.value) == (frozenset(), 0.25)


def test_success_is_the_whole() -> None:
    state = follow(Entered("2"), Succeeded())
    assert (state.value, state.done) == (1.0, frozenset("1234"))
    assert follow(Succeeded(), state=begin(())).value == 1.0


def test_after_a_restart_the_value_holds_until_it_is_passed() -> None:
    state = restart(follow(Cached(("1", "2")), Entered("3"), Advanced((at("3", 1, 2),))))
    assert snapshot(state, WORKFLOW) == snapshot(begin(WORKFLOW), WORKFLOW) | {"value": 0.625}
    state = follow(Executed("1", None), Executed("2", None), state=state)
    assert (state.value, len(state.done)) == (0.625, 2)
    assert follow(Executed("3", None), state=state).value == 0.75


@pytest.mark.parametrize(
    "sound",
    [
        Began(),
        Alive(),
        Released(),
        Cached(("2",)),
        Cached(("9",)),
        Entered("2"),
        Executed("9", {}),
        Executed("2", {}),
        Advanced(()),
        Advanced((at("2", 1, 1, finished=True),)),
    ],
)
def test_what_changes_nothing_gives_the_same_object(sound: Sound) -> None:
    state = follow(Entered("2"), Executed("2", {}))
    assert hear(state, sound) is state


def test_a_workflow_without_nodes_has_no_progress_before_its_end() -> None:
    assert follow(Advanced((at("1", 1, 2),)), Cached(("1",)), Executed("1", {}), state=begin(())).value == 0.0


IDS = st.sampled_from(["1", "2", "3", "4", "4.0.0.1", "9"])
SIZES = st.floats(-1e9, 1e9)
NODES = st.lists(st.builds(NodeProgress, IDS, IDS, SIZES, SIZES, st.booleans()), max_size=5).map(tuple)
SOUNDS = st.one_of(
    st.builds(Cached, st.lists(IDS, max_size=4).map(tuple)),
    st.builds(Entered, IDS),
    st.builds(Advanced, NODES),
    st.builds(Executed, IDS, st.none()),
    st.sampled_from([Began(), Alive(), Succeeded(), Released()]),
)


@given(st.lists(st.one_of(SOUNDS, st.none()), max_size=30), st.sampled_from(["", "1", "1234"]))
def test_the_value_is_within_its_bounds_and_never_goes_back(sounds: list[Sound | None], nodes: str) -> None:
    state = begin(nodes)
    for sound in sounds:
        before = state
        state = restart(state) if sound is None else hear(state, sound)
        assert 0.0 <= before.value <= state.value <= 1.0
        assert state.done <= state.nodes == frozenset(nodes)
        shown = snapshot(state, WORKFLOW)
        assert 0.0 <= shown["value"] <= 1.0
        if sound == Succeeded():
            assert shown["value"] == 1.0


@pytest.mark.parametrize("name", recordings.names())
def test_recorded_runs_never_go_back_and_end_at_the_whole(name: str) -> None:
    """The nodes of each prompt as its client sent them, and what it heard of it."""
    submitted: list[dict[str, Any]] = []
    states: dict[str, Progress] = {}
    for row in recordings.load(name):
        if row["kind"] == "http_request" and row.get("path") == "/prompt" and isinstance(row.get("body"), dict):
            graph = row["body"].get("prompt")
            submitted.append(graph if isinstance(graph, dict) else {})
        elif row["kind"] == "ws_text":
            told = parse(json.dumps(row["msg"]), lambda prompt_id: True)
            if not isinstance(told, Message) or told.prompt_id is None:
                continue
            before = states.setdefault(told.prompt_id, progress.begin(submitted[-1] if submitted else ()))
            after = states[told.prompt_id] = hear(before, told.sound)
            assert before.value <= after.value <= 1.0
            assert after.value == 1.0 or not isinstance(told.sound, Succeeded)


@pytest.mark.parametrize(
    ("before", "sound", "after"),
    [
        (None, Entered("1"), "1"),
        ("1", Entered("2"), "2"),
        ("1", Entered("1"), "1"),
        ("1", Executed("1", None), "1"),
        ("1", Cached(("2",)), "1"),
        ("1", Failed("1", "C", "", "", midway=True), "1"),
        ("1", Failed("1", "C", "", ""), None),
        ("1", Interrupted("1"), None),
        ("1", Succeeded(), None),
        ("1", Released(), None),
        (None, Began(), None),
    ],
)
def test_one_node_runs_until_the_next_one_or_the_end(before: str | None, sound: Sound, after: str | None) -> None:
    assert running_node(before, sound) == after
