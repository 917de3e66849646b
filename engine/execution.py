"""One prompt being carried out.

For: running the nodes of a prompt in order, and telling its client what happens, message by message as ComfyUI 0.3.64
does. Leaves the queue, threads and the history to `executor`, and what follows from the graph alone to `plan`.
Invariant: `carry_out` returns exactly one outcome whatever a node does; but for the cache, all state is of this one
prompt.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from engine.cache import Cache, Entry, compact
from engine.errors import InterruptError
from engine.holdings import Holdings
from engine.nodes.spec import Folders, Node, Preview, Result
from engine.plan import find_constants, find_links, gather, join_shown, make_keys, order_nodes, sort_ancestors
from engine.plan import spread as spread_calls
from engine.prompts import Prompt
from engine.wire import (
    Message,
    ProgressState,
    Snapshot,
    dump,
    frame_preview,
    frame_preview_with_metadata,
    write_event,
    write_record,
)

_log = logging.getLogger(__name__)
_LONG_TEXT = 2000  # characters of an input's value that an error report repeats

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all executions share."""

    registry: Mapping[str, Node]
    folders: Folders
    services: Mapping[type, object]
    cache: Cache
    send: Callable[[Message], None]
    previews: bool = True  # unless a prompt says otherwise
    max_held: int = 4 << 30  # bytes of results that a prompt may hold
    caching: threading.Lock = field(default_factory=threading.Lock)

    def recall(self, key: str | None) -> Entry | None:
        """What the cache has; any thread may ask."""
        with self.caching:
            return self.cache.get(key)

    def remember(self, key: str, entry: Entry) -> None:
        """Put into the cache."""
        with self.caching:
            self.cache.put(key, entry)

    def forget(self) -> None:
        """Empty the cache."""
        with self.caching:
            self.cache.clear()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a prompt ended: the last event, and the whole history entry as JSON."""

    kind: str
    data: Mapping[str, Any]
    record: str

    @property
    def out_of_memory(self) -> bool:
        """Whether the prompt failed for lack of memory."""
        return str(self.data.get("exception_type")).endswith(("OutOfMemoryError", "MemoryError"))


@dataclass(slots=True, eq=False)
class Execution:
    """A prompt on its way. `interrupt` may be called from any thread, all else from the one that carries it out."""

    prompt: Prompt
    shop: Workshop
    node_id: str | None = None
    _interrupted: bool = False
    _awaited: Future[Any] | None = None
    _events: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    _outputs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _executed: list[str] = field(default_factory=list)
    _maximum: float = 1.0
    _inputs: Mapping[str, list[Any]] = field(default_factory=dict)
    _state: ProgressState = field(init=False)
    _held: Holdings = field(init=False)

    def __post_init__(self) -> None:
        self._held = Holdings(self.shop.max_held)
        self._state = ProgressState(self.prompt.id)

    def interrupt(self) -> None:
        """Have the prompt stop at its next node, list element or step, and wait for the device no longer."""
        self._interrupted = True
        if (awaited := self._awaited) is not None:
            awaited.cancel()

    def check(self) -> None:
        """Raise InterruptError when interrupted."""
        if self._interrupted:
            raise InterruptError("interrupted")

    @contextmanager
    def interruptible(self, future: Future[Any]) -> Iterator[None]:
        """See `spec.Context.interruptible`."""
        self._awaited = future
        try:
            self.check()  # after the future is known, so that an interrupt is seen here or cancels it
            yield
        except CancelledError as error:
            raise InterruptError("interrupted") from error
        except BaseException:
            future.cancel()
            raise
        finally:
            self._awaited = None

    def carry_out(self) -> Outcome:
        """Run the whole prompt. Never raises for what a node does."""
        try:
            self._record("execution_start", {"prompt_id": self.prompt.id})
            for node_id, key in self._plan():
                self._pass_node(node_id, key)
            return self._end("execution_success", {"prompt_id": self.prompt.id})
        except InterruptError:
            data = self._describe_place() | {"executed": self._executed}
            return self._end("execution_interrupted", data)
        # The boundary between one caller's graph and the engine: whatever a node raises fails its prompt alone.
        except BaseException as error:
            return self._end("execution_error", self._describe_error(error))
        finally:
            self._held.clear()

    def _plan(self) -> list[tuple[str, str | None]]:
        graph, registry = cast("dict[str, Any]", self.prompt.graph), self.shop.registry
        ancestors = sort_ancestors(graph, registry, self.prompt.targets)
        changes = {
            node_id: self._ask_change(ask, find_constants(graph[node_id], declaration))
            for node_id in ancestors
            if (ask := (declaration := registry[graph[node_id]["class_type"]]).is_changed) is not None
        }
        keys = make_keys(graph, registry, ancestors, changes)
        # Held from here on, so that what other nodes put into the cache cannot push out what this prompt relies on.
        entries = {node_id: entry for node_id in ancestors if (entry := self.shop.recall(keys[node_id])) is not None}
        cached = [node_id for node_id in graph if node_id in entries]
        self._record("execution_cached", {"nodes": cached, "prompt_id": self.prompt.id})
        order = order_nodes(graph, registry, self.prompt.targets, entries)
        for node_id in order:
            if node_id not in entries:
                links = find_links(graph[node_id], registry[graph[node_id]["class_type"]])
                self._held.expect(source for source, _ in links.values())
        for node_id, entry in entries.items():
            self._held.recall(node_id, entry.values)
            if entry.ui is not None:
                self._outputs[node_id] = entry.ui
        return [(node_id, keys[node_id]) for node_id in order]

    def _ask_change(
        self, ask: Callable[[Folders, Mapping[str, object]], object], constants: Mapping[str, object]
    ) -> object:
        """What `is_changed` says, as a JSON value; None when it cannot tell."""
        try:
            change = ask(self.shop.folders, constants)
            dump(change)
        # As in ComfyUI 0.3.64: a node that fails here, or says NaN, is never taken from the cache.
        except Exception:
            return None
        return change

    def _pass_node(self, node_id: str, key: str | None) -> None:
        """Run a node, or show again what it, or a twin of it, has shown."""
        self.node_id, self._maximum, self._inputs = node_id, 1.0, {}
        entry = self.shop.recall(key)
        if entry is None and node_id in self._held:
            entry = Entry(self._held[node_id], self._outputs.get(node_id))
        if entry is not None:
            self._held.recall(node_id, entry.values)
            self._tell_executed(node_id, entry.ui)
            self._tell_state(self._state.note(node_id, 1, 1, finished=True))
            return
        self._tell_state(self._state.note(node_id, 0.0, 1.0))
        self._tell("executing", {"node": node_id, "display_node": node_id, "prompt_id": self.prompt.id})
        entry = self._run_node(node_id)
        if entry.ui is not None:
            self._tell_executed(node_id, entry.ui)
        self._tell_state(self._state.note(node_id, self._maximum, self._maximum, finished=True))
        self._executed.append(node_id)
        if key is not None:
            self.shop.remember(key, entry)

    def _run_node(self, node_id: str) -> Entry:
        node = self.prompt.graph[node_id]
        declaration = self.shop.registry[node["class_type"]]
        links = find_links(node, declaration)
        inputs = {name: [value] for name, value in find_constants(node, declaration).items()}
        self._inputs = inputs | {name: self._held[source][slot] for name, (source, slot) in links.items()}
        calls = [dict(self._inputs)] if declaration.input_is_list else spread_calls(self._inputs)
        context = _Context(self, node_id)
        results: list[object] = []
        shown: list[object] = []
        for call in calls:
            self.check()
            result = declaration.function(context, **call)
            results.append(result.values if isinstance(result, Result) else result)
            if isinstance(result, Result) and result.ui is not None:
                shown.append(result.ui)
        values = [[compact(value) for value in output] for output in gather(declaration, results)]
        entry = Entry(values, join_shown(shown) if shown else None)
        dump(entry.ui)
        self._held.keep(node_id, entry.values)
        self._held.use(source for source, _ in links.values())
        return entry

    def claim(self, size: int) -> None:
        """See `spec.Context.claim`."""
        self._held.claim(size)

    def report(self, node_id: str, value: float, maximum: float, preview: Preview | None) -> None:
        """Tell how far a node is, in the order of ComfyUI 0.3.64: previews with metadata precede `progress`."""
        self.check()
        self._maximum = maximum
        prompt_id, client = self.prompt.id, self.prompt.client
        self._tell_state(self._state.note(node_id, value, maximum))
        data = {"value": value, "max": maximum, "prompt_id": prompt_id, "node": node_id}
        progress = Message(write_event("progress", data), client, ("progress", prompt_id))
        if preview is None:
            self.shop.send(progress)
            return
        key = None if preview.result else ("preview", prompt_id)
        with_metadata = frame_preview_with_metadata(prompt_id, node_id, preview.format, preview.data)
        self.shop.send(Message(with_metadata, client, key, flagged=True))
        self.shop.send(progress)
        self.shop.send(Message(frame_preview(preview.format, preview.data), client, key, flagged=False))

    def _tell_state(self, state: Snapshot) -> None:
        self.shop.send(Message(state, self.prompt.client, ("progress_state", self.prompt.id)))

    def _tell(self, kind: str, data: Mapping[str, Any]) -> None:
        """Tell the prompt's own client; without one nobody is told."""
        if self.prompt.client is not None:
            self.shop.send(Message(write_event(kind, data), self.prompt.client))

    def _tell_executed(self, node_id: str, ui: Mapping[str, Any] | None) -> None:
        if ui is not None:
            self._outputs[node_id] = ui
        data = {"node": node_id, "display_node": node_id, "output": ui, "prompt_id": self.prompt.id}
        self._tell("executed", data)

    def _record(self, kind: str, data: dict[str, Any]) -> None:
        data["timestamp"] = time.time_ns() // 1_000_000
        self._events.append((kind, data))
        self._tell(kind, data)

    def _end(self, kind: str, data: dict[str, Any]) -> Outcome:
        data["timestamp"] = time.time_ns() // 1_000_000
        self._events.append((kind, data))
        record = write_record(self.prompt.item, self._outputs, kind == "execution_success", self._events)
        return Outcome(kind, data, record)

    def announce(self, outcome: Outcome) -> None:
        """Tell how it ended; an interruption without a client is told to everybody."""
        message = write_event(outcome.kind, outcome.data)
        if self.prompt.client is not None or outcome.kind == "execution_interrupted":
            self.shop.send(Message(message, self.prompt.client))

    def announce_end(self) -> None:
        """The last message of a prompt: no node of it is executing."""
        self._tell("executing", {"node": None, "prompt_id": self.prompt.id})

    def _describe_place(self) -> dict[str, Any]:
        node_type = self.prompt.graph[self.node_id]["class_type"] if self.node_id is not None else None
        return {"prompt_id": self.prompt.id, "node_id": self.node_id, "node_type": node_type}

    def _describe_error(self, error: BaseException) -> dict[str, Any]:
        _log.info("prompt %s failed at node %s", self.prompt.id, self.node_id, exc_info=error)
        return self._describe_place() | {
            "executed": self._executed,
            "exception_message": f"{_quote(error)}\n",
            "exception_type": _name_type(error),
            "traceback": _quote_frames(error),
            "current_inputs": {name: [_quote_value(v) for v in values] for name, values in self._inputs.items()},
            "current_outputs": list(self.prompt.graph),
        }


@dataclass(frozen=True, slots=True)
class _Context:
    """What a node's function is given; see `spec.Context`."""

    _execution: Execution
    node_id: str

    @property
    def prompt_id(self) -> str:
        return self._execution.prompt.id

    @property
    def prompt(self) -> Mapping[str, object]:
        return self._execution.prompt.graph

    @property
    def prompt_text(self) -> str:
        return self._execution.prompt.graph_text

    @property
    def extra_pnginfo(self) -> Mapping[str, object] | None:
        info = self._execution.prompt.extra_data.get("extra_pnginfo")
        return info if isinstance(info, dict) else None

    @property
    def previews(self) -> bool:
        wish = self._execution.prompt.extra_data.get("preview_method")
        return wish != "none" if isinstance(wish, str) and wish != "default" else self._execution.shop.previews

    @property
    def folders(self) -> Folders:
        return self._execution.shop.folders

    def service(self, kind: type[S]) -> S:
        service = self._execution.shop.services.get(kind)
        if not isinstance(service, kind):
            raise LookupError(f"this engine runs without {kind.__name__}")
        return service

    def progress(self, value: float, maximum: float, preview: Preview | None = None) -> None:
        self._execution.report(self.node_id, value, maximum, preview)

    def check(self) -> None:
        self._execution.check()

    def claim(self, size: int) -> None:
        self._execution.claim(size)

    def interruptible(self, future: Future[Any]) -> AbstractContextManager[None]:
        return self._execution.interruptible(future)


def _name_type(error: BaseException) -> str:
    """Builtins bare, others with their module, as ComfyUI does."""
    kind = type(error)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _quote(error: BaseException) -> str:
    # An exception of a node may fail even at being printed, or worse.
    try:
        return str(error)
    except BaseException:
        return type(error).__name__


def _quote_frames(error: BaseException) -> list[str]:
    """Where it happened, without the folders of this machine."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f'  File "{Path(frame.filename).name}", line {frame.lineno}, in {frame.name}\n' for frame in frames]


def _quote_value(value: object) -> object:
    """An input as a report shows it: scalars as they are, text up to a length, of the rest the type and shape.

    Of what fails at being looked at or written, as values of a node's own making may, the type alone.
    """
    try:
        shown = _show(value)
        dump(shown)
    except BaseException:
        return type(value).__name__
    return shown


def _show(value: object) -> object:
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, str):
        return value if len(value) <= _LONG_TEXT else value[:_LONG_TEXT] + "..."
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__}{list(shape)}" if isinstance(shape, tuple) else type(value).__name__
