"""Graphs that nobody would write: each is refused or ends cleanly, and the next good prompt works."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
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

# What asks the device is hard to get right, and would be rare among so many.
DEVICE_NODES = ["KSampler", "VAEDecode", "VAEEncode", "CLIPTextEncode"]

# Refusals that come up dozens of times, so that hardly to see one of them is no bad luck.
COMMON = {
    "bad_linked_input",
    "dependency_cycle",
    "invalid_prompt",
    "required_input_missing",
    "return_type_mismatch",
    "value_not_in_list",
}

# Something of each type to begin with, so that many graphs are nearly right.
GROUND: Graph = {
    "1": node("EmptyImage", width=8, height=8, batch_size=2, color=255),
    "2": node("SolidMask", value=0.5, width=8, height=8),
    "3": node("CheckpointLoaderSimple", ckpt_name="tiny"),
    "4": node("EmptyLatentImage", width=16, height=16, batch_size=1),
    "5": node("CLIPTextEncode", text="a star", clip=["3", 1]),
}

# A number that Python's own rules do not convert, which chance finds too seldom.
OVERFLOWING: Graph = GROUND | {
    "6": node("ImageScaleBy", image=["1", 0], upscale_method="area", scale_by=10**400),
    "10": node("PreviewAny", source=["6", 0]),
}

HUGE = st.sampled_from([2**64, -(2**70), 10**400, 1e300])
SCALARS = st.none() | st.booleans() | st.text(max_size=8) | st.floats(allow_nan=False, allow_infinity=False, width=32)
JUNK = SCALARS | HUGE | st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
LINKS = st.tuples(st.sampled_from([*IDS, "99"]), st.integers(-1, 3)).map(list)
LEAVE_OUT = object()
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
    least, most = (declared.options.get(name) for name in ("min", "max"))
    low = least if isinstance(least, int | float) else 0
    high = most if isinstance(most, int | float) else low + 16
    match declared.type:
        case "INT":
            return st.integers(int(low), min(int(high), int(low) + 16))
        case "FLOAT":
            return st.floats(float(low), min(float(high), float(low) + 2))
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
def draw_wrong(draw: DrawFn, graph: Graph, node_id: str, declared: Input) -> Any:
    """What an input should not have: nothing at all, a link in a circle or to another type, what is no link, junk."""
    if declared.type in ("INT", "FLOAT") and draw(st.booleans()):
        return draw(st.integers(-(10**9), 10**9) | st.text(max_size=8) | HUGE)
    match draw(st.integers(1, 6)):
        case 1:
            return LEAVE_OUT
        case 2:
            return [draw(st.sampled_from(IDS[IDS.index(node_id) :][:2])), 0]
        case 3:
            every, right = find_sources(graph, "*"), find_sources(graph, declared.type)
            return draw(st.sampled_from([link for link in every if link not in right] or every))
        case 4 | 5:
            return draw(ODD_LINKS | st.integers(10, 60).map(nest) | st.integers(10, 2000).map(nest))
    return draw(JUNK | LINKS | st.fixed_dictionaries({"__value__": JUNK | LINKS}))


@st.composite
def draw_node(draw: DrawFn, graph: Graph, node_id: str, odd: int) -> Any:
    """A node that fits the graph, but for one input in `odd`."""
    name = draw(st.sampled_from(sorted(NODES)) | st.sampled_from(DEVICE_NODES))
    declaration: Node = NODES[name]
    inputs: dict[str, Any] = {}
    for key, declared in (*declaration.required.items(), *declaration.optional.items()):
        sources = find_sources(graph, declared.type) if declared.choices is None else []
        if draw(st.integers(1, odd)) == 1:
            inputs[key] = draw(draw_wrong(graph, node_id, declared))
        elif key in declaration.required or draw(st.booleans()):
            inputs[key] = draw(st.sampled_from(sources) if sources else fit(declared))
    if draw(st.integers(1, odd)) == 1:
        inputs[draw(st.text(max_size=5))] = draw(JUNK | LINKS)
    return {"class_type": name, "inputs": {key: value for key, value in inputs.items() if value is not LEAVE_OUT}}


@st.composite
def draw_graph(draw: DrawFn) -> Graph:
    odd = draw(st.sampled_from([4, 12, 60]))
    graph = dict(GROUND)
    for node_id in IDS[5 : 5 + draw(st.integers(1, 4))]:
        graph[node_id] = draw(draw_node(graph, node_id, odd))
    sources = find_sources(graph, "*")
    graph["10"] = node("PreviewAny", source=draw(st.sampled_from(sources[-2:])))
    if draw(st.integers(1, odd)) == 1:
        source = draw(draw_wrong(graph, "10", NODES["PreviewAny"].required["source"]))
        graph["10"]["inputs"] = {} if source is LEAVE_OUT else {"source": source}
    if draw(st.integers(1, 3 * odd)) == 1:
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


def list_kinds(refusal: RefusedError) -> set[str]:
    """What a refusal says is wrong, with the graph and with each of its nodes."""
    body: Any = refusal.body
    errors = [error for about in body["node_errors"].values() for error in about["errors"]]
    return {str(error["type"]) for error in (body["error"], *errors)}


def judge(bench: Bench, graph: Graph) -> set[str]:
    """The kinds of a refusal, or the classes of the nodes that have run."""
    try:
        prompt_id = bench.submit(graph)
    except RefusedError as refusal:  # anything else would be answered with a 500
        return list_kinds(refusal)
    heard = bench.follow(prompt_id)
    kind, data = bench.record(prompt_id)["status"]["messages"][-1]
    assert kind in ("execution_success", "execution_error")
    if kind == "execution_error":
        assert isinstance(data["exception_type"], str)
        assert data["node_id"] in graph
    ran = {message["data"]["node"] for message in heard if message["type"] == "executing"} - {None}
    return {str(graph[node_id]["class_type"]) for node_id in ran}


def test_any_graph_is_refused_or_ends_cleanly(bench: Bench) -> None:
    seen: Counter[str] = Counter()

    @given(GRAPHS)
    @example(OVERFLOWING)
    @settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck), derandomize=False)
    def fuzz(graph: Graph) -> None:
        seen.update(judge(bench, graph))

    fuzz()
    assert all(seen[kind] > 5 for kind in COMMON | {"KSampler"}), seen


def test_the_next_good_prompt_works(bench: Bench) -> None:
    kinds, record = bench.run(picture(77))
    assert kinds[-2:] == ["execution_success", "executing"]
    assert record["status"]["status_str"] == "success"
    assert not [thread for thread in bench.executor._threads if not thread.is_alive()]
