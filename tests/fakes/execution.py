"""Runs one prompt of the fake engine: the order of nodes, the cache, and every message in the order of ComfyUI 0.3.64.

Leaves the queue, the history and the status messages to `engine`. Invariant: a run ends in exactly one of
`execution_success`, `execution_error` and `execution_interrupted`, or in `WorkerDeath`, which sends nothing.
"""

import asyncio
import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from tests.fakes.catalog import CLASSES
from tests.fakes.changes import Changes
from tests.fakes.declarations import Blocker, Done
from tests.fakes.faults import Faults
from tests.fakes.folders import Folders
from tests.fakes.pictures import encode, solid
from tests.fakes.sockets import Preview, Sockets, pack_text

OUT_OF_MEMORY = (
    "Allocation on device \nThis error means you ran out of memory on your GPU.\n\nTIPS: If the workflow worked before "
    "you might have accidentally set the batch_size to a large number.\n"
)


class WorkerDeath(Exception):
    """The prompt was accepted and kills the only worker; HTTP goes on."""


class Interrupted(Exception):
    """The interrupt flag was found set."""


@dataclass
class Gate:
    """Where a test holds nodes: closed by `hold`, opened by `release`."""

    changes: Changes
    class_type: str | None = None
    prompt_id: str | None = None
    interruptible: bool = True
    closed: bool = False
    holding: list[str] = field(default_factory=list)
    """Ids of the prompts that stand here."""

    async def enter(self, class_type: str, run: "Execution") -> None:
        """Waits while the gate is closed for this node; an interrupt ends wait and node if the hold allows it."""
        if not self.closed or self.class_type not in (None, class_type) or self.prompt_id not in (None, run.prompt_id):
            return
        self.holding.append(run.prompt_id)
        self.changes.notify()
        try:
            await self.changes.until(lambda: not self.closed or (run.interrupted and self.interruptible))
        finally:
            self.holding.remove(run.prompt_id)
        if run.interrupted and self.interruptible:
            raise Interrupted


@dataclass
class Cache:
    """What nodes gave, by signature; entries that a new prompt does not use are dropped, so A, B, A runs A again."""

    entries: dict[str, Done] = field(default_factory=dict)

    def keep_only(self, signatures: set[str]) -> None:
        self.entries = {key: done for key, done in self.entries.items() if key in signatures}


@dataclass
class World:
    """What all runs of one engine share."""

    faults: Faults
    folders: Folders
    sockets: Sockets
    gate: Gate
    cache: Cache
    exit: asyncio.Event
    """Set by a node that ends the process."""


def is_link(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )


@dataclass
class Execution:
    """One run; also the stage on which its nodes act."""

    world: World
    prompt_id: str
    prompt: dict[str, Any]
    extra_data: dict[str, Any]
    outputs: list[str]
    interrupted: bool = False
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """What history keeps of the messages."""
    ui: dict[str, dict[str, Any]] = field(default_factory=dict)
    node_id: str = ""
    executed: list[str] = field(default_factory=list)
    _progress: dict[str, dict[str, Any]] = field(default_factory=dict)
    _signatures: dict[str, str] = field(default_factory=dict)
    _waiting: dict[str, set[str]] = field(default_factory=dict)

    @property
    def folders(self) -> Folders:
        return self.world.folders

    @property
    def client_id(self) -> str | None:
        client_id: str | None = self.extra_data.get("client_id")
        return client_id

    async def run(self) -> bool:
        """True when it succeeded; raises WorkerDeath for the prompts that ComfyUI's worker does not survive."""
        if not isinstance(self.extra_data, dict):
            raise WorkerDeath
        self._record("execution_start")
        self._signatures = {node: self._sign(node, ()) for node in self.prompt}
        cache = self.world.cache
        cache.keep_only(set(self._signatures.values()))
        cached = [node for node in self.prompt if self._signatures[node] in cache.entries]
        self._record("execution_cached", nodes=cached)
        for output in self.outputs:
            self._schedule(output)
        try:
            while self._waiting:
                await self._advance(self._choose())
        except Interrupted:
            name = self.prompt[self.node_id]["class_type"]
            extra = {"node_id": self.node_id, "node_type": name, "executed": self.executed}
            self._record("execution_interrupted", broadcast=True, **extra)
        except NodeFailed as failure:
            self._record("execution_error", **self._describe(failure))
        else:
            self._record("execution_success")
        for node in self.prompt:
            done = cache.entries.get(self._signatures[node])
            if done is not None and done.ui is not None:
                self.ui[node] = done.ui
        return self.messages[-1][0] == "execution_success"

    # ---- which node when

    def _sign(self, node: str, path: tuple[str, ...]) -> str:
        """The cache key: class, constants, and the same of all ancestors; ids do not count."""
        if node in path or node not in self.prompt:
            return "none"
        content = self.prompt[node]
        if not isinstance(content.get("inputs"), dict):
            raise WorkerDeath
        inputs, declared = content["inputs"], CLASSES[content["class_type"]]
        parts: list[Any] = [content["class_type"]]
        for name in sorted(inputs):
            value = inputs[name]
            parts.append([name, [self._sign(value[0], (*path, node)), value[1]] if is_link(value) else value])
        if declared.fingerprint is not None:
            parts.append(repr(declared.fingerprint(inputs, self.folders)))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _schedule(self, node: str) -> None:
        """Plans the node and all its ancestors that are not cached."""
        if node in self._waiting:
            return
        if node not in self.prompt:
            raise WorkerDeath
        sources = dict.fromkeys(value[0] for value in self.prompt[node]["inputs"].values() if is_link(value))
        needed = [source for source in sources if self._signatures.get(source) not in self.world.cache.entries]
        self._waiting[node] = set(needed)
        for source in needed:
            self._schedule(source)

    def _choose(self) -> str:
        """Among ready nodes: outputs, then what feeds an output, then what feeds that, else the first."""

        def rank(node: str) -> int:
            if CLASSES[self.prompt[node]["class_type"]].output:
                return 0
            followers = [other for other, sources in self._waiting.items() if node in sources]
            if any(CLASSES[self.prompt[other]["class_type"]].output for other in followers):
                return 1
            further = [other for other, sources in self._waiting.items() if sources & set(followers)]
            return 2 if any(CLASSES[self.prompt[other]["class_type"]].output for other in further) else 3

        return min((node for node, sources in self._waiting.items() if not sources), key=rank)

    async def _advance(self, node: str) -> None:
        """Runs one node, or answers it from the cache."""
        self.node_id = node
        signature = self._signatures[node]
        done = self.world.cache.entries.get(signature)
        if done is not None:
            self._send_executed(node, done)
            self._state(node, 1, 1, "finished")
        else:
            done = await self._call(node)
            self.world.cache.entries[signature] = done
            self._send_executed(node, done)
            top = self._progress[node]["max"]
            self._state(node, top, top, "finished")
            self.executed.append(node)
        del self._waiting[node]
        for sources in self._waiting.values():
            sources.discard(node)
        await asyncio.sleep(0)  # lets the publish loop and the HTTP handlers have their turn, as threads would

    async def _call(self, node: str) -> Done:
        content = self.prompt[node]
        self._send_huge()
        self._state(node, 0.0, 1.0, "running")
        self._send("executing", {"node": node, "display_node": node, "prompt_id": self.prompt_id})
        self._check_interrupt()
        await self.world.gate.enter(content["class_type"], self)
        values = {name: self._resolve(value) for name, value in content["inputs"].items()}
        if blockers := [value for value in values.values() if isinstance(value, Blocker)]:
            self._tell_blocked(blockers[0])
            return Done((Blocker(),) * len(CLASSES[content["class_type"]].returns))
        try:
            if self.world.faults.take("out_of_memory"):
                raise NodeFailed(OUT_OF_MEMORY, "torch.OutOfMemoryError", values)
            done = await CLASSES[content["class_type"]].run(values, self)
        except (Interrupted, NodeFailed):
            raise
        except Exception as error:  # the boundary of the fake: whatever a node raises is reported as ComfyUI does
            raise NodeFailed(f"{error}\n", full_name(error), values) from error
        if self.world.faults.nan_in_json and done.ui is not None:
            done = Done(done.values, {**done.ui, "x": [float("nan")]})
        return done

    def _resolve(self, value: Any) -> Any:
        if not is_link(value):
            return value
        return self.world.cache.entries[self._signatures[value[0]]].values[int(value[1])]

    def _check_interrupt(self) -> None:
        if self.interrupted:
            raise Interrupted

    def _describe(self, failure: "NodeFailed") -> dict[str, Any]:
        return {
            "node_id": self.node_id,
            "node_type": self.prompt[self.node_id]["class_type"],
            "executed": self.executed,
            "exception_message": failure.message,
            "exception_type": failure.kind,
            "traceback": ['  File "/comfyui/execution.py", line 510, in execute\n'],
            "current_inputs": {
                name: [value if is_plain(value) else str(value)] for name, value in failure.inputs.items()
            },
            "current_outputs": list(self.prompt),
        }

    # ---- the stage

    async def progress(self, value: float, maximum: float, preview: bytes | None = None, kind: str = "jpeg") -> None:
        """Sends what one step sends, then looks at the interrupt flag."""
        self._check_interrupt()
        self._state(self.node_id, value, maximum, "running")
        event = {"value": value, "max": maximum, "prompt_id": self.prompt_id, "node": self.node_id}
        messages: list[Any] = [{"type": "progress", "data": event}]
        if preview is not None:
            names = ("node_id", "display_node_id", "real_node_id")
            identity = {**dict.fromkeys(names, self.node_id), "prompt_id": self.prompt_id, "parent_node_id": None}
            picture = Preview(preview, kind, identity)
            messages.insert(0 if self.world.sockets.wants_metadata(self.client_id) else 1, picture)
        for message in messages:
            self.world.sockets.publish(message, self.client_id)
        await asyncio.sleep(0)

    def text(self, text: str) -> None:
        self.world.sockets.publish(pack_text(self.node_id, text))

    async def exit(self) -> None:
        self.world.exit.set()
        await asyncio.Event().wait()

    # ---- messages

    def _record(self, event: str, *, broadcast: bool = False, **data: Any) -> None:
        """A message that history keeps too; without a client id only a broadcast is sent."""
        data = {**data, "prompt_id": self.prompt_id, "timestamp": int(time.time() * 1000)}
        self.messages.append((event, data))
        self._send(event, data, broadcast=broadcast)

    def _send(self, event: str, data: dict[str, Any], *, broadcast: bool = False) -> None:
        if self.client_id is None and not broadcast:
            return
        message = {"type": event, "data": data}
        if self.world.faults.foreign_events:
            self._send_foreign(event, data)
        self.world.sockets.publish(message, self.client_id)
        if self.world.faults.duplicate_events:
            self.world.sockets.publish(message, self.client_id)

    def _tell_blocked(self, blocker: Blocker) -> None:
        """An error in the middle of a run that goes on and succeeds; history does not keep it."""
        if blocker.message is not None:
            failure = NodeFailed(f"Execution Blocked: {blocker.message}", "ExecutionBlocked", {})
            empty = {"prompt_id": self.prompt_id, "traceback": [], "current_inputs": [], "current_outputs": []}
            self._send("execution_error", {**self._describe(failure), **empty})

    def _send_foreign(self, event: str, data: dict[str, Any]) -> None:
        publish = self.world.sockets.publish
        publish({"type": event, "data": {**data, "prompt_id": str(uuid4())}}, self.client_id)
        publish(pack_text("1", "width: 1, height: 1"))
        publish(Preview(encode(solid(0, 8, 8)[0], "JPEG"), "jpeg", {}).pack(with_metadata=False))

    def _send_huge(self) -> None:
        size = self.world.faults.huge_message
        if size:
            self.world.sockets.publish(pack_text(self.node_id, "x" * size))
            self.world.sockets.publish({"type": "logs", "data": {"entries": ["x" * size], "size": None}})

    def _send_executed(self, node: str, done: Done) -> None:
        if done.ui is not None:
            data = {"node": node, "display_node": node, "output": done.ui, "prompt_id": self.prompt_id}
            self._send("executed", data)

    def _state(self, node: str, value: float, maximum: float, state: str) -> None:
        """`progress_state` with every node started so far."""
        self._progress[node] = {
            "value": value,
            "max": maximum,
            "state": state,
            "node_id": node,
            "prompt_id": self.prompt_id,
            "display_node_id": node,
            "parent_node_id": None,
            "real_node_id": node,
        }
        nodes = {node: dict(entry) for node, entry in self._progress.items()}
        self._send("progress_state", {"prompt_id": self.prompt_id, "nodes": nodes}, broadcast=True)


class NodeFailed(Exception):
    """A node raised; `kind` is the name of the exception's class as ComfyUI writes it."""

    def __init__(self, message: str, kind: str, inputs: dict[str, Any]) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.inputs = inputs


def full_name(error: Exception) -> str:
    module = type(error).__module__
    return type(error).__qualname__ if module == "builtins" else f"{module}.{type(error).__qualname__}"


def is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
