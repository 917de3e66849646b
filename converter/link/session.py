"""The one websocket to the engine: kept open for as long as it is wanted, heard for as long as it lives.

What messages say is in `wire.py`; what they mean, and when the socket is suspected to be deaf, is the listener's
business. Invariant: the listener hears `connected` and `disconnected` in turns, and everything else between them.

A client id is used for one connection only: ComfyUI forgets an id when any socket that ever had it closes, which
leaves a younger socket of the same id open and deaf.

There are no keepalive pings. Answers to them come from the engine's event loop, which stands still while a model is
loaded or memory collected, and a limit that it never misses is too long to be of use. A peer that is gone without a
word is found by TCP's own keepalive, which the kernel answers for an engine that is merely busy or stopped.
"""

import asyncio
import logging
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self
from uuid import uuid4

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_chain, wait_none
from tenacity.wait import wait_random_exponential
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from converter.core.events import Entered, Interrupted, Picture, Released, Sound, Succeeded
from converter.link.wire import GREETING, Heard, Message, Status, parse

log = logging.getLogger(__name__)

# Messages that are taken in a row, while more lie there, before others get their turn on the loop.
_BURST = 64

# When TCP keepalive probes a silent connection first, how often then, and after how many it is given up; seconds.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class Listener(Protocol):
    """Who is told what happens; called on the loop, between two reads, so it must be quick and must not raise."""

    def connected(self, client_id: str) -> None:
        """The engine greeted this socket: what is submitted with `client_id` will be heard from here on."""

    def disconnected(self, reason: str) -> None:
        """The socket of the last `connected` is gone, and what it has not told will never be told."""

    def wants_progress(self, prompt_id: str) -> bool:
        """Whether a `progress_state` of this prompt is worth decoding just now; else it is heard as `Alive`."""

    def message(self, prompt_id: str, sound: Sound) -> None:
        """A sound of a prompt, which may be anybody's: prompts without a client are heard by all."""

    def picture(self, picture: Picture) -> None:
        """A preview, or an output that is sent in place of being stored."""

    def status(self, remaining: int) -> None:
        """How many prompts are pending and running, whoever's they are."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. `opening`: from the first packet to the first `status`. `closing`: for a farewell.

    The second attempt after a loss follows at once, the third after up to twice `delay`, then up to twice as much each
    time, at most `longest`; each delay is drawn by chance between zero and its bound. A connection that held for
    `steady` begins this anew.
    """

    opening: float = 10.0
    closing: float = 0.5
    delay: float = 0.1
    longest: float = 5.0
    steady: float = 5.0


DEFAULT_TIMING = Timing()


class Session:
    """The websocket of the engine at `url` (http or https, may have a path), open while this is entered.

    An async context manager, to be entered once. Entering does not wait for the connection: the listener is told of it.
    An exception of the listener ends the block as an exception group.
    """

    def __init__(self, url: str, listener: Listener, timing: Timing = DEFAULT_TIMING) -> None:
        # http -> ws, https -> wss
        self._uri = "ws" + url.rstrip("/").removeprefix("http") + "/ws?clientId="
        self._listener = listener
        self._timing = timing
        self._group = asyncio.TaskGroup()
        self._hurry = asyncio.Event()
        self._connection: ClientConnection | None = None
        self._client_id: str | None = None
        self._executing: tuple[str, str] | None = None
        self._complaint = ""

    @property
    def client_id(self) -> str | None:
        """The id to submit with, None while there is no connection."""
        return self._client_id

    def renew(self) -> None:
        """Drops the socket, if there is one, and makes a fresh one without delay."""
        self._hurry.set()
        if self._connection is not None:
            self._connection.transport.abort()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._task = self._group.create_task(self._stay_connected(), name="engine websocket")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        # Of the block's own exceptions the group gets only the cancellation, which may be its own doing when the
        # listener raised; any other it would wrap.
        if not isinstance(error, asyncio.CancelledError):
            kind, error, trace = None, None, None
        await self._group.__aexit__(kind, error, trace)

    async def _stay_connected(self) -> None:
        timing = self._timing
        growing = wait_random_exponential(multiplier=timing.delay, max=timing.longest)
        while True:
            attempts = AsyncRetrying(
                retry=retry_if_exception_type((OSError, WebSocketException)),
                wait=wait_chain(wait_none(), growing),
                sleep=self._pause,
                before_sleep=self._complain,
            )
            await attempts(self._converse)

    async def _converse(self) -> None:
        """One connection from its opening to its loss; returns if it held for long, else raises what ended it."""
        loop, timing, client_id = asyncio.get_running_loop(), self._timing, uuid4().hex
        async with connect(
            self._uri + client_id,
            proxy=None,
            compression=None,
            max_size=None,
            open_timeout=timing.opening,
            close_timeout=timing.closing,
            ping_interval=None,
            user_agent_header=None,
        ) as connection:
            _keep_alive(connection)
            async with asyncio.timeout(timing.opening):
                await connection.send(GREETING)
                status = await self._first_status(connection)
            opened_at, reason = loop.time(), "closing"
            self._connected(connection, client_id, status)
            try:
                await self._listen(connection)
            except ConnectionClosed as error:
                reason = "renewed" if self._hurry.is_set() else str(error)
                if loop.time() - opened_at < timing.steady:
                    raise
            finally:
                self._connection, self._client_id = None, None
                self._listener.disconnected(reason)

    async def _first_status(self, connection: ClientConnection) -> Status:
        """Passes over whatever is broadcast before it: it cannot concern anything that was submitted here."""
        while True:
            heard = parse(await connection.recv(), lambda prompt_id: False)
            if isinstance(heard, Status):
                return heard

    def _connected(self, connection: ClientConnection, client_id: str, status: Status) -> None:
        self._connection, self._client_id = connection, client_id
        self._executing, self._complaint = None, ""
        self._hurry.clear()
        self._listener.connected(client_id)
        self._listener.status(status.queue_remaining)

    async def _listen(self, connection: ClientConnection) -> None:
        """Tells the listener everything until the connection is closed, which `recv` raises."""
        wants_progress = self._listener.wants_progress
        while True:
            for _ in range(_BURST):
                self._tell(parse(await connection.recv(), wants_progress))
            # `recv` does not suspend while messages lie there.
            await asyncio.sleep(0)

    def _tell(self, heard: Heard | None) -> None:
        if isinstance(heard, Message):
            if heard.prompt_id is not None:
                self._follow(heard.prompt_id, heard.sound)
                self._listener.message(heard.prompt_id, heard.sound)
        elif isinstance(heard, Picture):
            self._listener.picture(self._attribute(heard))
        elif isinstance(heard, Status):
            self._listener.status(heard.queue_remaining)

    def _follow(self, prompt_id: str, sound: Sound) -> None:
        """Keeps in mind which node runs, for pictures that do not say where they come from."""
        if isinstance(sound, Entered):
            self._executing = (prompt_id, sound.node_id)
        elif isinstance(sound, Released | Succeeded | Interrupted):
            self._executing = None

    def _attribute(self, picture: Picture) -> Picture:
        if picture.prompt_id is not None or self._executing is None:
            return picture
        return Picture(*self._executing, picture.content_type, picture.data)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        self._hurry.clear()

    def _complain(self, state: RetryCallState) -> None:
        """Logs why there is no connection, once for each reason."""
        error = state.outcome.exception() if state.outcome is not None else None
        complaint = str(error) or type(error).__name__
        if complaint != self._complaint:
            self._complaint = complaint
            # Where nobody is reached, the engine is not up yet or has died: the replica's state tells that.
            unreached = isinstance(error, OSError) and not isinstance(error, TimeoutError | ssl.SSLError)
            level = logging.DEBUG if unreached else logging.WARNING
            log.log(level, "no websocket to the engine: %s", complaint)


def _keep_alive(connection: ClientConnection) -> None:
    """Options that the platform does not have are left at its own values."""
    sock: socket.socket = connection.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
