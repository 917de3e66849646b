"""Graphs that nobody would write: each is refused or ends cleanly, and the next good prompt works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from engine.device import Device
from engine.errors import RefusedError
from engine.models import Models
from engine.nodes.registry import list_nodes
from engine.nodes.spec import Input, Node
from tests.engine.graphs import Graph, make_folders, node, picture
from tests.engine.test_executor import Bench

# What sleeps, allocates or ends the process does so on purpose.
LEFT_OUT = {"TestSleep", "TestSleepDeaf", "TestExit", "TestAllocate", "TestPreview"}
NODES = {name: node for name, node in list_nodes(tests=True).items() if name not in LEFT_OUT}
IDS = [str(number) for number in range(1, 12)]

# Something of each type to begin with, so that many graphs are nearly right.
GROUND: Graph = {
    "1": node("EmptyImage", width=8, height=8, batch_size=2, color=255),
    "2": node("SolidMask", value=0.5, width=8, height=8),
    "3": node("CheckpointLoaderSimple", ckpt_name="tiny"),
    "4": node("EmptyLatentImage", width=16, height=16, batch_size=1),
    "5": node("CLIPTextEncode", text="a star", clip=["3", 1]),
}

HUGE = st.sampled_from([2**31, 2**64, -(2**70), 10**400, 1e300, -1e300])
SCALARS = st.none() | st.booleans() | st.text(max_size=8) | st.floats(allow_nan=False, width=32)
JUNK = SCALARS | HUGE | st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
LINKS = st.tuples(st.sampled_from([*IDS, "99"]), st.integers(-1, 3)).map(list)
ODD_LINKS = st.lists(SCALARS | st.sampled_from(IDS), max_size=3)


def nest(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def fit(declared: Input) -> st.SearchStrategy[Any]:
    """Values that may pass, small enough to be quick."""
    if declared.choices is not None:
        listed = declared.choices if not callable(declared.choices) else ("tiny",)
        return st.sampled_from(list(listed) or ["none"])
    least = declared.options.get("min", 0)
    low = least if isinstance(least, int | float) else 0
    match declared.type:
        case "INT":
            return st.integers(int(low), int(low) + 16)
        case "FLOAT":
            return st.floats(float(low), float(low) + 2, allow_nan=False)
        case "BOOLEAN":
            return st.booleans()
        case "STRING":
            return st.text(max_size=12)
    return LINKS


def find_sources(graph: Graph, kind: str) -> list[list[Any]]:
    """Links to outputs of a type."""
    return [
        [node_id, slot]
        for node_id, known in graph.items()
        if isinstance(known, dict) and (declaration := NODES.get(str(known.get("class_type"))))
        for slot, output in enumerate(declaration.outputs)
        if kind in (output.type, "*")
    ]


@st.composite
def draw_node(draw: DrawFn, graph: Graph, odd: int) -> Any:
    """A node that fits the graph, but for one input in `odd`."""
    name = draw(st.sampled_from(sorted(NODES)))
    declaration: Node = NODES[name]
    inputs: dict[str, Any] = {}
    for key, declared in (*declaration.required.items(), *declaration.optional.items()):
        sources = find_sources(graph, declared.type) if declared.choices is None else []
        if draw(st.integers(1, odd)) == 1:
            strange = JUNK | ODD_LINKS | st.integers(10, 2000).map(nest) | st.fixed_dictionaries({"__value__": JUNK})
            inputs[key] = draw(strange | LINKS)
        elif key in declaration.required or draw(st.booleans()):
            inputs[key] = draw(st.sampled_from(sources) if sources else fit(declared))
    if draw(st.integers(1, odd)) == 1:
        inputs[draw(st.text(max_size=5))] = draw(JUNK | LINKS)
    return {"class_type": name, "inputs": inputs}


@st.composite
def draw_graph(draw: DrawFn) -> Graph:
    odd = draw(st.sampled_from([5, 20, 100]))
    graph = dict(GROUND)
    for node_id in IDS[5 : 5 + draw(st.integers(1, 4))]:
        graph[node_id] = draw(draw_node(graph, odd))
    sources = find_sources(graph, "*")
    shown = draw(st.sampled_from(sources[-4:])) if sources else ["1", 0]
    graph["10"] = node("PreviewAny", source=shown)
    if draw(st.integers(1, odd)) == 1:
        broken = JUNK | st.fixed_dictionaries({"class_type": JUNK}) | st.fixed_dictionaries({"inputs": JUNK})
        graph[draw(st.sampled_from(IDS))] = draw(broken)
    return graph


GRAPHS = draw_graph()


@pytest.fixture(scope="module")
def bench(device: Device, checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folders = make_folders(tmp_path_factory.mktemp("fuzz"))
    (folders.models / "checkpoints").symlink_to(checkpoints)
    services = {Device: device, Models: Models(device, checkpoints.parent)}
    bench = Bench(folders, services, concurrency=2)
    with bench.executor:
        yield bench
    assert not bench.ended.is_set(), "no thread of the executor has ended"


@given(GRAPHS)
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck), derandomize=False)
def test_any_graph_is_refused_or_ends_cleanly(bench: Bench, graph: Graph) -> None:
    try:
        prompt_id = bench.submit(graph)
    except (RefusedError, ValueError, TypeError, OverflowError):
        return  # 400, or the plain 500 that ComfyUI has for a body of another shape
    bench.follow(prompt_id)
    status = bench.record(prompt_id)["status"]
    kind, data = status["messages"][-1]
    assert kind in ("execution_success", "execution_error")
    if kind == "execution_error":
        assert isinstance(data["exception_type"], str)
        assert data["node_id"] in graph


def test_the_next_good_prompt_works(bench: Bench) -> None:
    kinds, record = bench.run(picture(77))
    assert kinds[-2:] == ["execution_success", "executing"]
    assert record["status"]["status_str"] == "success"
    assert not [thread for thread in bench.executor._threads if not thread.is_alive()]
