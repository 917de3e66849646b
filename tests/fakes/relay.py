"""A TCP relay between a client and an engine, where the network goes wrong by script or by seeded chance.

    async with Relay(engine.url, script=[("websocket", Fate("cut", after=2000))]) as relay:
        ...  # give relay.url to the converter

`Fate` and `Flow` decide, without I/O; `Relay` moves bytes and does what they say. HTTP and websocket connections
are told apart by their first request line, so a client that upgrades a kept-alive connection counts as HTTP. Bytes
are never reordered or changed: they are late, or they end. Leaves what is said to both ends.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

from tests.fakes.changes import Changes

Kind = Literal["http", "websocket"]
Direction = Literal["to_client", "to_engine"]
Action = Literal["pass", "refuse", "cut", "close", "half_close", "stall"]
CHUNK = 65536


@dataclass(frozen=True)
class Fate:
    """What happens to one connection.

    refuse: reset before the engine hears of it. cut: both sides are reset. close: both sides are closed in good
    order, so a body is truncated. half_close: one direction ends, the other lives. stall: one direction stops and
    its buffers fill. Each comes once `after` bytes have gone in `direction`; `delay` seconds pass before each
    piece, whatever the action.
    """

    action: Action = "pass"
    after: int = 0
    direction: Direction = "to_client"
    delay: float = 0.0


HEALTHY = Fate()
REFUSED = Fate("refuse")


@dataclass
class Flow:
    """One direction of one connection: how much of it still passes."""

    fate: Fate
    direction: Direction
    passed: int = 0

    def admit(self, size: int) -> tuple[int, Action]:
        """How many of the next `size` bytes pass, and what happens then ("pass": nothing)."""
        if self.fate.action == "pass" or self.fate.direction != self.direction:
            self.passed += size
            return size, "pass"
        allowed = min(size, max(self.fate.after - self.passed, 0))
        self.passed += allowed
        return allowed, self.fate.action if self.passed >= self.fate.after else "pass"


def kind_of(head: bytes) -> Kind:
    """By the request line, as ComfyUI's paths are."""
    return "websocket" if head.startswith((b"GET /ws", b"GET /api/ws")) else "http"


@dataclass
class Chance:
    """Fates by seeded chance: `odds` of each action, by kind; the Nth connection of a kind has the same fate in every
    run.
    """

    seed: int
    odds: Mapping[Kind, Mapping[Action, float]]
    longest: int = 20000
    """Bytes after which an action strikes at the latest."""
    delay: float = 0.0
    """The longest delay of a piece, in seconds."""

    def fate(self, kind: Kind, index: int) -> Fate:
        dice = random.Random(f"{self.seed} {kind} {index}")
        odds = self.odds.get(kind, {})
        names: list[Action] = [*odds, "pass"]
        [action] = dice.choices(names, [*odds.values(), max(0.0, 1.0 - sum(odds.values()))])
        direction: Direction = "to_engine" if dice.random() < 0.5 else "to_client"
        return Fate(action, dice.randrange(1, self.longest), direction, dice.uniform(0.0, self.delay))


@dataclass(eq=False)
class Connection:
    """One client's connection and its twin to the engine."""

    kind: Kind
    fate: Fate
    client: asyncio.StreamWriter
    engine: asyncio.StreamWriter | None = None
    stalled: set[Direction] = field(default_factory=set)

    def writers(self) -> list[asyncio.StreamWriter]:
        return [writer for writer in (self.client, self.engine) if writer is not None]

    def cut(self) -> None:
        for writer in self.writers():
            writer.transport.abort()

    def close(self) -> None:
        for writer in self.writers():
            writer.close()


class Relay:
    """`script` is used up in order, each entry by the next connection of its kind; then `chance`; else all passes."""

    def __init__(self, target: str, *, script: Iterable[tuple[Kind, Fate]] = (), chance: Chance | None = None) -> None:
        self.target = target
        """May be changed at any time; new connections go there."""
        self.script = list(script)
        self.chance = chance
        self.refusing = False
        """New connections are reset at once."""
        self.tap: Callable[[Connection, Direction, bytes], None] = lambda connection, direction, chunk: None
        """Is shown all bytes as they arrive, whether they will pass or not."""
        self.connections: set[Connection] = set()
        self.history: list[tuple[Kind, Fate]] = []
        """Every connection that said what it wants, and its fate."""
        self._changes = Changes()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self, kind: Kind | None = None) -> None:
        """Resets every living connection (of that kind) now."""
        for connection in self._living(kind):
            connection.cut()
        self._changes.notify()

    def stall(self, direction: Direction, kind: Kind | None = None) -> None:
        """Stops that direction of every living connection (of that kind) until `resume`."""
        for connection in self._living(kind):
            connection.stalled.add(direction)

    def resume(self) -> None:
        for connection in self.connections:
            connection.stalled.clear()
        self._changes.notify()

    async def until(self, condition: Callable[[], object], timeout: float = 30.0) -> None:
        """Waits for anything about this relay to become true; raises TimeoutError."""
        await self._changes.until(condition, timeout)

    def _living(self, kind: Kind | None) -> list[Connection]:
        return [connection for connection in self.connections if kind in (None, connection.kind)]

    def _decide(self, kind: Kind) -> Fate:
        """The fate of a new connection, from the script or by chance."""
        scripted = next((index for index, (wanted, _) in enumerate(self.script) if wanted == kind), None)
        if scripted is not None:
            _, fate = self.script.pop(scripted)
        else:
            earlier = sum(1 for past, _ in self.history if past == kind)
            fate = self.chance.fate(kind, earlier) if self.chance else HEALTHY
        self.history.append((kind, fate))
        return fate

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries one connection to its end."""
        with suppress(OSError), closing(writer):
            head = b"" if self.refusing else await reader.read(CHUNK)
            connection = Connection(kind_of(head), self._decide(kind_of(head)) if head else REFUSED, writer)
            if connection.fate.action == "refuse":
                connection.cut()
                return
            target = urlsplit(self.target)
            try:
                engine_reader, connection.engine = await asyncio.open_connection(target.hostname, target.port)
            except OSError:
                connection.cut()
                return
            with closing(connection.engine):
                self.connections.add(connection)
                self._changes.notify()
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._pump(connection, reader, connection.engine, "to_engine", head))
                        group.create_task(self._pump(connection, engine_reader, writer, "to_client", b""))
                finally:
                    self.connections.discard(connection)

    async def _pump(
        self,
        connection: Connection,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        direction: Direction,
        chunk: bytes,
    ) -> None:
        """Moves one direction until its source or its fate ends it; a reset of either side ends both."""
        flow = Flow(connection.fate, direction)
        try:
            while chunk or (chunk := await source.read(CHUNK)):
                self.tap(connection, direction, chunk)
                await asyncio.sleep(connection.fate.delay)
                await self._changes.until(lambda: direction not in connection.stalled or sink.is_closing())
                size, action = flow.admit(len(chunk))
                sink.write(chunk[:size])
                await sink.drain()
                chunk = chunk[size:] if action == "stall" else b""
                if action == "cut":
                    connection.cut()
                elif action == "close":
                    connection.close()
                elif action == "stall":
                    connection.stalled.add(direction)
                    self._changes.notify()
                    flow.fate = HEALTHY  # once resumed, the rest passes
                if action in ("cut", "close", "half_close"):
                    break
            if sink.can_write_eof():
                sink.write_eof()
        except OSError:
            connection.cut()
