"""How far a job is: a complete snapshot, made from what is heard of its prompt.

Invariant: `value` is between 0 and 1 and never goes back, also when the prompt is run again on another engine.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from converter.core.events import (
    Advanced,
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


class Progress(NamedTuple):
    """`nodes` are those that will run, `done` those of them that will not run again.

    fraction: how much of the others has been done, in nodes. node_id, step, steps: the node that runs, and its steps
    where it counts any.
    """

    nodes: frozenset[str]
    done: frozenset[str] = frozenset()
    fraction: float = 0.0
    value: float = 0.0
    node_id: str | None = None
    step: int | None = None
    steps: int | None = None


def begin(nodes: Iterable[str]) -> Progress:
    """Nothing is done yet."""
    return Progress(frozenset(nodes))


def restart(state: Progress) -> Progress:
    """The prompt is run again from the start; `value` holds until it is passed."""
    return Progress(state.nodes, value=state.value)


def hear(state: Progress, sound: Sound) -> Progress:
    """The next snapshot; the same object if the sound changes nothing."""
    heard = _hear(state, sound)
    return state if heard == state else heard


def _hear(state: Progress, sound: Sound) -> Progress:
    match sound:
        case Cached(nodes):
            return _raise(state._replace(done=state.done | (state.nodes & frozenset(nodes))))
        case Entered(node_id) if node_id != state.node_id:
            return _enter(state, node_id)
        case Advanced(nodes):
            return _advance(state, nodes)
        case Executed(node_id) if node_id in state.nodes:
            return _raise(state._replace(done=state.done | {node_id}, fraction=0.0))
        case Succeeded():
            return state._replace(done=state.nodes, fraction=0.0, value=1.0)
    return state


def _enter(state: Progress, node_id: str) -> Progress:
    """A node that gives way to another counts as done until it is entered again (a lazy one), or a snapshot shows it
    still running (an async one): the snapshot that would say so may have been passed over.
    """
    left = state.nodes & {state.node_id} if state.node_id is not None else frozenset()
    done = (state.done | left) - {node_id}
    return _raise(state._replace(done=done, node_id=node_id, fraction=0.0, step=None, steps=None))


def _advance(state: Progress, nodes: tuple[NodeProgress, ...]) -> Progress:
    unfinished = frozenset(node.display_node_id for node in nodes if not node.finished)
    done = (state.done - unfinished) | (state.nodes & frozenset(node.node_id for node in nodes if node.finished))
    running = [node for node in nodes if not node.finished and node.maximum > 0]
    parts = {n.display_node_id: n.value / n.maximum for n in running if n.display_node_id in state.nodes - done}
    fraction = sum(min(max(part, 0.0), 1.0) for part in parts.values())
    state = state._replace(done=done, fraction=fraction)
    if running:
        last = running[-1]
        counts = last.maximum > 1
        step, steps = (int(last.value), int(last.maximum)) if counts else (None, None)
        state = state._replace(node_id=last.display_node_id, step=step, steps=steps)
    return _raise(state)


def _raise(state: Progress) -> Progress:
    if not state.nodes:
        return state
    value = min((len(state.done) + state.fraction) / len(state.nodes), 1.0)
    return state._replace(value=value) if value > state.value else state


def node_class(state: Progress, workflow: Mapping[str, Any]) -> str | None:
    """The class of the node that runs, as far as is known."""
    node = workflow.get(state.node_id) if state.node_id is not None else None
    return node.get("class_type") if isinstance(node, Mapping) else None


def running_node(node_id: str | None, sound: Sound) -> str | None:
    """The node that runs once a sound is heard, after `node_id`. One gives way to the next; the end has none."""
    match sound:
        case Entered(entered):
            return entered
        case Succeeded() | Interrupted() | Released() | Failed(midway=False):
            return None
    return node_id


def snapshot(state: Progress, workflow: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a `progress` event."""
    return {
        "value": round(state.value, 4),
        "nodes_done": len(state.done),
        "nodes_total": len(state.nodes),
        "node_id": state.node_id,
        "class_type": node_class(state, workflow),
        "step": state.step,
        "steps": state.steps,
    }
