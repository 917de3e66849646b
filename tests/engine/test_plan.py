"""Order, cache keys and lists, for any graph."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import plan
from engine.errors import JunkError
from engine.nodes.spec import Node, Output
from tests.engine.graphs import TINY, Graph, node


@st.composite
def acyclic(draw: st.DrawFn) -> Graph:
    """A graph in which nodes take what earlier ones give, with a Sink at its end."""
    graph: Graph = {"0": node("Source", value=draw(st.integers(0, 2)))}
    for number in range(1, draw(st.integers(1, 8))):
        sources: st.SearchStrategy[Any] = st.integers(0, number - 1).map(lambda n: [str(n), 0])
        inputs = {"a": draw(sources)}
        if draw(st.booleans()):
            inputs["b"] = draw(sources | st.integers(0, 2))
        kind = draw(st.sampled_from(["Source", "Mix", "Mix", "Unique"]))
        graph[str(number)] = node(kind, **({"value": draw(st.integers(0, 2))} if kind == "Source" else inputs))
    for index in range(draw(st.integers(1, 3))):
        graph[f"end {index}"] = node("Sink", value=[str(draw(st.integers(0, len(graph) - index - 1))), 0])
    return graph


def targets_of(graph: Graph) -> list[str]:
    return [node_id for node_id in graph if node_id.startswith("end")]


def sources_of(graph: Graph, node_id: str) -> set[str]:
    return {source for source, _ in plan.find_links(graph[node_id], TINY[graph[node_id]["class_type"]]).values()}


def keys_of(graph: Graph, changes: dict[str, object] | None = None) -> dict[str, str | None]:
    ancestors = plan.sort_ancestors(graph, TINY, targets_of(graph))
    return plan.make_keys(graph, TINY, ancestors, changes or {})


@given(acyclic())
def test_ancestors_come_first_and_all(graph: Graph) -> None:
    ordered = plan.sort_ancestors(graph, TINY, targets_of(graph))
    assert len(ordered) == len(set(ordered))
    assert set(targets_of(graph)) <= set(ordered)
    for place, node_id in enumerate(ordered):
        assert sources_of(graph, node_id) <= set(ordered[:place])


@given(acyclic(), st.sets(st.integers(0, 8).map(str)))
def test_the_order_has_all_that_is_needed_once_and_in_time(graph: Graph, cached: set[str]) -> None:
    order = plan.order_nodes(graph, TINY, targets_of(graph), cached)
    assert len(order) == len(set(order))
    assert set(targets_of(graph)) <= set(order)
    for place, node_id in enumerate(order):
        assert node_id not in cached
        assert sources_of(graph, node_id) - cached <= set(order[:place])
    needed = set(targets_of(graph))
    for node_id in reversed(order):
        assert node_id in needed
        needed |= sources_of(graph, node_id)


@given(acyclic())
def test_cached_outputs_are_shown_and_nothing_else_runs(graph: Graph) -> None:
    order = plan.order_nodes(graph, TINY, targets_of(graph), set(graph))
    assert sorted(order) == sorted(targets_of(graph))


def test_what_leads_to_an_output_soon_runs_soon() -> None:
    graph = {
        "far": node("Source", value=1),
        "far 2": node("Mix", a=["far", 0]),
        "far 3": node("Mix", a=["far 2", 0]),
        "far 4": node("Mix", a=["far 3", 0]),
        "end 0": node("Sink", value=["far 4", 0]),
        "near": node("Source", value=2),
        "end 1": node("Sink", value=["near", 0]),
        "middle": node("Source", value=3),
        "middle 2": node("Mix", a=["middle", 0]),
        "end 2": node("Sink", value=["middle 2", 0]),
    }
    order = plan.order_nodes(graph, TINY, targets_of(graph), set())
    assert order == ["near", "end 1", "middle", "middle 2", "end 2", "far", "far 2", "far 3", "far 4", "end 0"]


@given(acyclic(), st.randoms())
def test_keys_do_not_depend_on_ids_or_order(graph: Graph, chance: random.Random) -> None:
    names = {node_id: str(index * 7 + 100) for index, node_id in enumerate(graph) if not node_id.startswith("end")}

    def rename(value: Any) -> Any:
        return [names[value[0]], value[1]] if isinstance(value, list) else value

    items = list(graph.items())
    chance.shuffle(items)
    other = {}
    for node_id, entry in items:
        inputs = list(entry["inputs"].items())
        chance.shuffle(inputs)
        inputs.append(("unknown input", 5))
        renamed = {name: rename(value) for name, value in inputs}
        other[names.get(node_id, node_id)] = {"class_type": entry["class_type"], "inputs": renamed}
    ours, theirs = keys_of(graph), keys_of(other)
    unique = any(entry["class_type"] == "Unique" for entry in graph.values())
    for node_id, key in ours.items():
        assert unique or theirs[names.get(node_id, node_id)] == key


@given(acyclic(), st.data())
def test_a_key_changes_with_anything_upstream_and_nothing_else(graph: Graph, data: st.DataObject) -> None:
    before = keys_of(graph)
    changed = data.draw(st.sampled_from([n for n in before if graph[n]["class_type"] == "Source"]))
    graph[changed] = node("Source", value=50)
    after = keys_of(graph)
    below = {changed}
    for node_id in plan.sort_ancestors(graph, TINY, targets_of(graph)):
        if sources_of(graph, node_id) & below:
            below.add(node_id)
    assert {node_id for node_id in before if before[node_id] != after[node_id]} == below


@given(acyclic(), st.data())
def test_what_cannot_tell_whether_it_changes_is_never_cached_nor_what_follows(
    graph: Graph, data: st.DataObject
) -> None:
    node_id = data.draw(st.sampled_from(sorted(keys_of(graph))))
    assert keys_of(graph, {node_id: 1})[node_id] != keys_of(graph, {node_id: 2})[node_id]
    keys = keys_of(graph, {node_id: None})
    below = {node_id}
    for other in plan.sort_ancestors(graph, TINY, targets_of(graph)):
        if sources_of(graph, other) & below:
            below.add(other)
    assert {other for other, key in keys.items() if key is None} == below


def test_twins_share_a_key_unless_their_id_matters() -> None:
    twins = {"1": node("Source", value=1), "2": node("Mix", a=["1", 0]), "3": node("Mix", a=["1", 0])}
    keys = keys_of(twins | {"end 0": node("Sink", value=["2", 0]), "end 1": node("Sink", value=["3", 0])})
    assert keys["2"] == keys["3"] != keys["1"]
    for node_id in "23":
        twins[node_id] = node("Unique", a=["1", 0])
    keys = keys_of(twins | {"end 0": node("Sink", value=["2", 0]), "end 1": node("Sink", value=["3", 0])})
    assert keys["2"] != keys["3"]


@given(st.dictionaries(st.text(max_size=2), st.lists(st.integers(), max_size=4), max_size=3))
def test_lists_spread_over_calls(inputs: dict[str, list[int]]) -> None:
    calls = plan.spread(inputs)
    if any(not values for values in inputs.values()):
        assert calls == []
        return
    assert len(calls) == max([1, *map(len, inputs.values())] if not inputs else map(len, inputs.values()))
    for index, call in enumerate(calls):
        assert call == {name: values[index] if index < len(values) else values[-1] for name, values in inputs.items()}


TWO = Node("Two", lambda: (), "test", outputs=(Output("A"), Output("B", is_list=True)))


def test_results_are_gathered_by_output() -> None:
    assert plan.gather(TWO, [(1, [2, 3]), (4, [5])]) == [[1, 4], [2, 3, 5]]
    assert plan.gather(TWO, []) == [[], []]


@pytest.mark.parametrize("junk", [None, (), (1,), (1, [2], 3), [1, [2]], (1, 2), "ab"])
def test_junk_is_refused(junk: object) -> None:
    with pytest.raises(JunkError, match="Two returned"):
        plan.gather(TWO, [junk])


def test_what_is_shown_is_joined() -> None:
    assert plan.join_shown([{"images": [1]}, {"images": (2,), "text": ["a"]}]) == {"images": [1, 2], "text": ["a"]}


@pytest.mark.parametrize("junk", [5, [], {"a": 5}, {"a": "text"}, {5: []}])
def test_junk_cannot_be_shown(junk: object) -> None:
    with pytest.raises(JunkError):
        plan.join_shown([junk])
