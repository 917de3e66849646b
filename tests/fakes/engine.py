"""ComfyUI by script: an engine on a real socket, in the test's own loop, that behaves as version 0.3.64 does and can
be broken.

    async with FakeEngine(faults=Faults(late_history=0.5)) as engine:
        ...  # engine.url

It validates, queues, runs and caches prompts over small node classes that make real PNGs of one colour, sends every
message in ComfyUI's order, and records what it was asked. `hold` keeps nodes from ending until `release`, and
`until` waits for anything, so that no test sleeps. Leaves each part to its own file here: `faults`, `catalog`,
`validation`, `prompts`, `execution`, `sockets`, `routes`, `folders`. Invariant: what a healthy ComfyUI would not do
happens only where a fault says so.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from aiohttp import web

from tests.fakes.changes import Changes
from tests.fakes.execution import Cache, Execution, Gate, WorkerDeath, World
from tests.fakes.faults import Faults
from tests.fakes.folders import Folders
from tests.fakes.prompts import Item, Prompts
from tests.fakes.routes import Routes
from tests.fakes.sockets import MAX_UPLOAD_SIZE, Sockets

PATIENCE = 30.0
"""Seconds after which `until` gives up, unless told otherwise."""


@dataclass(frozen=True)
class Asked:
    """One request as it came; `path` without the `/api` prefix, `body` parsed where it was JSON.

    `trace` is its `traceparent`.
    """

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: Any = None
    trace: str = ""


class Refusal(asyncio.Protocol):
    """Resets a connection as soon as it is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


class FakeEngine:
    """See the module. Records (`requests` and the lists after it) outlive `crash` and `restart`; all else is
    forgotten.
    """

    def __init__(
        self,
        *,
        faults: Faults | None = None,
        version: str = "0.3.64",
        port: int = 0,
        max_upload_size: int = MAX_UPLOAD_SIZE,
    ) -> None:
        self.faults = faults or Faults()
        self.max_upload_size = max_upload_size
        self.version = version
        self.recent = tuple(map(int, version.split("."))) > (0, 3, 64)
        """Whether it behaves as the versions of 2026."""
        self.port = port
        self.requests: list[Asked] = []
        self.executed_prompts: list[str] = []
        """Ids in the order in which the worker took them."""
        self.finished_prompts: list[str] = []
        self.posted_prompts: list[str] = []
        self.interrupts: list[str | None] = []
        self.deletes: list[list[str]] = []
        self.cancels: list[str] = []
        self.uploads: list[dict[str, str]] = []
        self.frees: list[dict[str, Any]] = []
        self._changes = Changes()
        self.gate = Gate(self._changes)
        self._directory = TemporaryDirectory(prefix="fake-engine-")
        self.folders = Folders(Path(self._directory.name))
        self._tasks: list[asyncio.Task[None]] = []
        self._ending: asyncio.Task[None] | None = None
        self._forget()

    def _forget(self) -> None:
        """What a new process knows: nothing."""
        self.prompts = Prompts()
        self.sockets = Sockets(self.faults, self._changes)
        self._run: Execution | None = None
        self._strays = False
        self.world = World(self.faults, self.folders, self.sockets, self.gate, Cache(), asyncio.Event())

    # ---- its life

    @property
    def alive(self) -> bool:
        """Whether it listens: between `restart` and the end of its process."""
        return bool(self._tasks)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.restart()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.crash()
        self._directory.cleanup()

    async def restart(self) -> None:
        """Listens again on the same port, with an empty queue and history; numbers start at 0, temp is emptied."""
        assert not self.alive, "still running"
        await self.crash()  # the end of the process before may still be under way
        self._forget()
        self.folders.clear_temp()
        runner = web.AppRunner(
            Routes(self).application(), access_log=None, handler_cancellation=True, shutdown_timeout=0
        )
        await runner.setup()
        factory = runner.server
        assert factory is not None
        self._runner = runner
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Refusal() if self.faults.refuse_connections else factory(), "127.0.0.1", self.port
        )
        self.port = self._listener.sockets[0].getsockname()[1]
        self._start(self.sockets.run())
        self._start(self._work())
        self._start(self._exit_when_told())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def crash(self) -> None:
        """As if killed: the listener and all connections are gone at once, and everything is forgotten but files."""
        if self._ending is not None and asyncio.current_task() is not self._ending:
            await self._ending
            self._ending = None
        if not self._tasks:
            return
        self._listener.close()
        assert self._runner.server is not None
        for connection in self._runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        await self._runner.cleanup()
        await self._listener.wait_closed()
        self._forget()
        self._changes.notify()

    async def _exit_when_told(self) -> None:
        """A node that ends the process: the crash runs beside, since it cancels this task too."""
        await self.world.exit.wait()
        self._ending = asyncio.create_task(self.crash())

    # ---- what a test does to it

    def hold(self, class_type: str | None = None, *, prompt_id: str | None = None, interruptible: bool = True) -> None:
        """Keeps every node (or those of one class, or one prompt) from ending, from after `executing` until `release`.

        An interrupt ends such a node as it ends a sampler, unless `interruptible` is false.
        """
        self.gate.class_type, self.gate.prompt_id, self.gate.interruptible = class_type, prompt_id, interruptible
        self.gate.closed = True

    def release(self) -> None:
        self.gate.closed = False
        self._changes.notify()

    async def until(self, condition: Callable[[], object], timeout: float = PATIENCE) -> None:
        """Waits for anything about this engine to become true; raises TimeoutError."""
        await self._changes.until(condition, timeout)

    async def until_held(self, prompt_id: str | None = None) -> str:
        """The id of a prompt that stands at a held node (of the given one, if given), as soon as it does."""
        await self.until(lambda: self.gate.holding and prompt_id in (None, *self.gate.holding))
        return self.gate.holding[0]

    async def until_idle(self) -> None:
        """Nothing is pending or running, and every message was sent."""
        await self.until(lambda: self.prompts.remaining == 0)
        await self.sockets.flush()

    def put_stranger(
        self, prompt: dict[str, Any] | None = None, *, number: float | None = None, client_id: str | None = "stranger"
    ) -> str:
        """Somebody else's prompt joins the queue (in front of all others with a negative number); its id.

        Without a client id its progress is told to everybody.
        """
        prompt_id = str(uuid4())
        if prompt is None:
            color = self.prompts.counter & 0xFFFFFF
            size = {"width": 16, "height": 16, "batch_size": 1, "color": color}
            prompt = {
                "1": {"class_type": "EmptyImage", "inputs": size},
                "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
            }
        outputs = [node for node in prompt if prompt[node]["class_type"].startswith(("Save", "Preview"))]
        taken = self.prompts.next_number() if number is None else number
        extra_data = {} if client_id is None else {"client_id": client_id}
        self.put((taken, prompt_id, prompt, extra_data, outputs))
        return prompt_id

    def clear_queue(self) -> None:
        """Somebody empties the queue; nobody is told but by `status`."""
        self.prompts.clear()
        self._send_status()

    def delete(self, *prompt_ids: str) -> int:
        """Removes pending prompts, without a trace; how many."""
        removed = 0
        for prompt_id in prompt_ids:
            if self.prompts.delete(prompt_id):
                removed += 1
                self._send_status()
        return removed

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Sets the flag of whatever runs, or of that prompt if it runs. It is cleared when a prompt starts."""
        if self._run is not None and prompt_id in (None, self._run.prompt_id):
            if prompt_id is not None and self.faults.take("stray_interrupt"):
                self._strays = True
                return
            self._run.interrupted = True
            self._changes.notify()

    def clear_history(self) -> None:
        """Somebody, or the limit of 10000 entries, evicts all records."""
        self.prompts.history.clear()
        self._changes.notify()

    def free(self, *, empty_cache: bool) -> None:
        if empty_cache:
            self.world.cache.entries.clear()

    def deafen(self) -> None:
        """Every socket that is open stays open and gets nothing more."""
        for socket in self.sockets.open:
            socket.deaf = True

    def drop_sockets(self) -> None:
        """Cuts every socket."""
        for socket in self.sockets.open:
            socket.cut()

    def asked(self, method: str, path: str) -> list[Asked]:
        """The requests of that method whose path starts so, in order."""
        return [asked for asked in self.requests if asked.method == method and asked.path.startswith(path)]

    # ---- what routes need

    def note_request(self, request: web.Request, body: Any) -> None:
        trace = request.headers.get("traceparent", "")
        self.requests.append(Asked(request.method, _path(request), dict(request.query), body, trace))
        self._changes.notify()

    def holds_request(self, request: web.Request) -> bool:
        """Whether a fault makes the request wait."""
        return bool(self.faults.held_path) and _path(request).startswith(self.faults.held_path)

    def breaks_request(self, request: web.Request) -> bool:
        """Whether a fault makes the request fail."""
        return bool(self.faults.broken_path) and _path(request).startswith(self.faults.broken_path)

    async def serve_socket(self, request: web.Request) -> web.WebSocketResponse:
        """ComfyUI's greeting: the queue's length, and the node that runs if the prompt is this client's."""
        greeting = [self._status()]
        run = self._run
        if run is not None and run.node_id and run.client_id == request.query.get("clientId"):
            greeting.append({"type": "executing", "data": {"node": run.node_id}})
        return await self.sockets.serve(request, greeting)

    def put(self, item: Item) -> None:
        """Queues; raises TypeError with the item left in the heap where ComfyUI does."""
        self.posted_prompts.append(item[1])
        try:
            self.prompts.put(item)
        finally:
            self._changes.notify()
        self._send_status()

    def job_status(self, prompt_id: str) -> str | None:
        """As `GET /api/jobs/{id}` names it."""
        if self.prompts.running is not None and self.prompts.running[1] == prompt_id:
            return "in_progress"
        if any(item[1] == prompt_id for item in self.prompts.pending):
            return "pending"
        entry = self.prompts.history.get(prompt_id)
        if entry is None:
            return None
        events = [event for event, _ in entry["status"]["messages"]]
        failed = "cancelled" if "execution_interrupted" in events else "failed"
        return "completed" if entry["status"]["status_str"] == "success" else failed

    # ---- the worker

    def _status(self) -> dict[str, Any]:
        return {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": self.prompts.remaining}}}}

    def _send_status(self) -> None:
        self.sockets.publish(self._status())
        self._changes.notify()

    async def _work(self) -> None:
        """The one worker: prompts one after the other, until one of them kills it."""
        while True:
            await self._changes.until(lambda: self.prompts.pending and self.faults.dead_worker != "pending")
            try:
                item = self.prompts.take()
            except TypeError:
                return
            try:
                await self._run_prompt(item)
            except WorkerDeath:
                return

    async def _run_prompt(self, item: Item) -> None:
        _, prompt_id, prompt, extra_data, outputs = item
        run = self._run = Execution(self.world, prompt_id, prompt, extra_data, outputs)
        run.interrupted, self._strays = self._strays, False
        self.executed_prompts.append(prompt_id)
        self._send_status()
        if self.faults.dead_worker == "running":
            raise WorkerDeath
        success = await run.run()
        await asyncio.sleep(self.faults.late_history)
        status = {"status_str": "success" if success else "error", "completed": success, "messages": run.messages}
        self.prompts.finish(status, run.ui, keep=not self.faults.take("missing_history"))
        if self.faults.take("evicted_history"):
            self.prompts.history.clear()
        self._run = None
        self._send_status()
        if run.client_id is not None:
            end = {"type": "executing", "data": {"node": None, "prompt_id": prompt_id}}
            self.sockets.publish(end, run.client_id)
        self.finished_prompts.append(prompt_id)
        self._changes.notify()


def _path(request: web.Request) -> str:
    """Without the prefix that every path may have."""
    return request.path.removeprefix("/api") or "/"
