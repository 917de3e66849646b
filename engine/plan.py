"""Plans: what runs, in which order, under which cache keys, and how lists spread over calls.

For: everything about an execution that follows from the graph alone. Leaves running to `executor`.
Invariant: pure; the same graph and inputs give the same keys whatever the node ids; every ancestor of a wanted output
that is not cached is in the order exactly once, after its own ancestors.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Container, Mapping, Sequence
from typing import Any

from engine.errors import JunkError
from engine.graph import Graph, is_link
from engine.nodes.spec import Node

Values = list[list[Any]]  # per output, a list of elements; without list outputs it has one per call


def find_links(node: Mapping[str, Any], declaration: Node) -> dict[str, tuple[str, int]]:
    """Input name -> (node id, slot) of every linked input that the class knows."""
    return {
        name: (value[0], value[1])
        for name, value in node["inputs"].items()
        if is_link(value) and declaration.input(name) is not None
    }


def find_constants(node: Mapping[str, Any], declaration: Node) -> dict[str, Any]:
    """Input name -> value of every input that is not linked and that the class knows."""
    return {
        name: value
        for name, value in node["inputs"].items()
        if not is_link(value) and declaration.input(name) is not None
    }


def sort_ancestors(graph: Graph, registry: Mapping[str, Node], targets: Sequence[str]) -> list[str]:
    """The targets and all their ancestors, each after its own ancestors."""
    ordered: dict[str, None] = {}
    for target in targets:
        path = [target]
        while path:
            node_id = path[-1]
            links = find_links(graph[node_id], registry[graph[node_id]["class_type"]])
            missing = [source for source, _ in links.values() if source not in ordered]
            if missing:
                path.append(missing[0])
            else:
                path.pop()
                ordered[node_id] = None
    return list(ordered)


def make_keys(
    graph: Graph, registry: Mapping[str, Node], ancestors: Sequence[str], changes: Mapping[str, object]
) -> dict[str, str | None]:
    """The cache key of each of `ancestors` (sorted as by `sort_ancestors`), None for what must not be cached.

    `changes` has what `is_changed` said of the nodes that have it, as JSON values, None if it cannot tell. The key of
    a node covers its class, its inputs and the same of all ancestors; with UNIQUE_ID also its id.
    """
    keys: dict[str, str | None] = {}
    for node_id in ancestors:
        node = graph[node_id]
        declaration = registry[node["class_type"]]
        links = find_links(node, declaration)
        sources = {name: [keys[source], slot] for name, (source, slot) in links.items()}
        if any(key is None for key, _ in sources.values()) or (node_id in changes and changes[node_id] is None):
            keys[node_id] = None
            continue
        own_id = node_id if "UNIQUE_ID" in declaration.hidden.values() else None
        constants = find_constants(node, declaration)
        text = json.dumps([node["class_type"], own_id, changes.get(node_id), constants, sources], sort_keys=True)
        keys[node_id] = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return keys


def order_nodes(
    graph: Graph, registry: Mapping[str, Node], targets: Sequence[str], cached: Container[str]
) -> list[str]:
    """What to run, in order: targets even if cached (their answer is shown again), ancestors unless cached.

    Of those that are ready, outputs come first, then what feeds an output directly, then at distance two, then the
    rest, as in ComfyUI 0.3.64, so that results are shown early.
    """
    sources: dict[str, set[str]] = {}
    queue = list(targets)
    for node_id in queue:
        if node_id not in sources:
            links = {} if node_id in cached else find_links(graph[node_id], registry[graph[node_id]["class_type"]])
            sources[node_id] = {source for source, _ in links.values()}
            queue.extend(source for source, _ in links.values() if source not in cached)
    users: dict[str, list[str]] = {node_id: [] for node_id in sources}
    for node_id, upstream in sources.items():
        for source in upstream & sources.keys():
            users[source].append(node_id)
    blocked = {node_id: len(upstream & sources.keys()) for node_id, upstream in sources.items()}
    ranks = _rank(graph, registry, users)
    place = {node_id: index for index, node_id in enumerate(sources)}
    ready = [(ranks[node_id], place[node_id], node_id) for node_id, count in blocked.items() if count == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        node_id = heapq.heappop(ready)[2]
        order.append(node_id)
        for user in users[node_id]:
            blocked[user] -= 1
            if blocked[user] == 0:
                heapq.heappush(ready, (ranks[user], place[user], user))
    return order


def _rank(graph: Graph, registry: Mapping[str, Node], users: Mapping[str, list[str]]) -> dict[str, int]:
    """0 for outputs, 1 for what feeds one directly, 2 at distance two, 3 for the rest."""
    outputs = {node_id for node_id in users if registry[graph[node_id]["class_type"]].output_node}
    near = {node_id for node_id in users if not outputs.isdisjoint(users[node_id])}
    far = {node_id for node_id in users if not near.isdisjoint(users[node_id])}
    return {n: 0 if n in outputs else 1 if n in near else 2 if n in far else 3 for n in users}


def spread(inputs: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """One call per index up to the longest list; shorter lists repeat their last element.

    Without inputs there is one call; with an empty list there is none, since there is nothing to call with.
    """
    if any(not values for values in inputs.values()):
        return []
    longest = max((len(values) for values in inputs.values()), default=1)
    return [{name: values[min(index, len(values) - 1)] for name, values in inputs.items()} for index in range(longest)]


def gather(declaration: Node, results: Sequence[object]) -> Values:
    """The elements of each output over all calls. Raises JunkError for results that the declaration does not allow."""
    values: Values = [[] for _ in declaration.outputs]
    for result in results:
        if not isinstance(result, tuple) or len(result) != len(values):
            expected = f"a tuple of {len(values)}"
            raise JunkError(f"{declaration.class_type} returned {_describe(result)} in place of {expected}")
        for output, elements, value in zip(declaration.outputs, values, result, strict=True):
            if not output.is_list:
                elements.append(value)
            elif isinstance(value, list):
                elements.extend(value)
            else:
                raise JunkError(f"{declaration.class_type} returned {_describe(value)} in place of a list")
    return values


def _describe(value: object) -> str:
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else type(value).__name__


def join_shown(shown: Sequence[object]) -> dict[str, list[object]]:
    """The `ui` of a node over all calls: lists under one name are joined. Raises JunkError for anything but lists."""
    joined: dict[str, list[object]] = {}
    for one in shown:
        if not isinstance(one, Mapping):
            raise JunkError(f"ui is {type(one).__name__} in place of an object")
        for name, values in one.items():
            if not isinstance(name, str) or not isinstance(values, list | tuple):
                raise JunkError(f"ui[{name!r}] is {type(values).__name__} in place of a list")
            joined.setdefault(name, []).extend(values)
    return joined
