"""One life of the engine process: started under its guard, read, ended, and cleared away.

This file leaves to `guard.py` what must work even when the converter is killed, and to `supervisor.py` whether the
engine is started again. It uses plain `subprocess` where asyncio's would do less: asyncio reaps a process as soon as
it ends, after which its number may name another group, and its `wait` also waits for whoever holds the output open.

Invariant: when `run_child` has returned, raised or been canceled, no process that stayed in the child's group lives,
within a bounded time. A descendant that leaves the group on purpose (setsid) is out of reach.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from converter.link.lines import Lines

MARGIN = 2.0
"""Seconds that the guard may take longer than the patience before it is killed itself."""

DRAIN = 1.0
"""Seconds for reading the last output of a child that is gone; its end is late only if a daemon holds it open."""

PAUSES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, *[0.1] * 19)
"""Seconds between looks for what is left of a killed group: about two in all."""

GUARD = str(Path(__file__).with_name("guard.py"))

logger = logging.getLogger("converter.engine")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended: its exit status (negative: the signal that killed it) if it is known, and words for it."""

    status: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class _Spawned:
    """A guard, our end of its lifeline, and the common output of it and its group."""

    guard: subprocess.Popen[bytes]
    lifeline: socket.socket
    output: FileIO


async def run_child(
    command: Sequence[str],
    environment: Mapping[str, str],
    patience: float,
    stop: asyncio.Event,
    on_start: Callable[[int], None],
    on_line: Callable[[str], None],
    scratch: str = "",
) -> Ending:
    """Run the command, with exactly this environment, until it ends; returns when nothing of it is left.

    `on_start` is called with its process id once it runs, `on_line` with each line of its output. When `stop` is
    set, its group gets SIGTERM, and SIGKILL after `patience` seconds; on cancellation it gets SIGKILL at once.
    `scratch` is a folder that goes with it if the converter is killed.
    """
    try:
        spawned = _spawn(command, environment, patience, scratch)
    except OSError as error:
        return Ending(None, f"could not be started: {error.strerror}")
    try:
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(_read(spawned.output, on_line))
            stopping = tasks.create_task(_stop(spawned, stop, patience))
            ending = await _follow(spawned.lifeline, on_start)
            _kill(spawned.guard)
            stopping.cancel()
            await asyncio.wait({reading}, timeout=DRAIN)
            reading.cancel()
    finally:
        _kill(spawned.guard)
        spawned.lifeline.close()
        spawned.output.close()
        await _clear(spawned.guard)
    return ending


def _spawn(command: Sequence[str], environment: Mapping[str, str], patience: float, scratch: str) -> _Spawned:
    """Start the guard in its own session: a terminal's Ctrl-C does not reach it or its child."""
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        lifeline, guarded = socket.socketpair()
        ours.enter_context(lifeline)
        theirs.enter_context(guarded)
        outlet, inlet = os.pipe()
        output = ours.enter_context(FileIO(outlet))
        theirs.callback(os.close, inlet)
        lifeline.setblocking(False)
        guard = subprocess.Popen(  # noqa: S603 - the command is the operator's own, and no shell reads it
            [sys.executable, "-I", "-S", GUARD, str(guarded.fileno()), str(patience), scratch, *command],
            stdin=subprocess.DEVNULL,
            stdout=inlet,
            stderr=inlet,
            env=dict(environment),
            pass_fds=(guarded.fileno(),),
            start_new_session=True,
        )
        ours.pop_all()
    return _Spawned(guard, lifeline, output)


async def _follow(lifeline: socket.socket, on_start: Callable[[int], None]) -> Ending:
    """Listen to the guard until its end of the lifeline is closed, which only its death does."""
    loop = asyncio.get_running_loop()
    ending = Ending(None, "lost its guard, which was killed")
    held = b""
    while chunk := await loop.sock_recv(lifeline, 4096):
        *lines, held = (held + chunk).split(b"\n")
        for line in lines:
            match line.decode(errors="replace").split(" ", 1):
                case ["pid", number]:
                    on_start(int(number))
                case ["exit", number]:
                    ending = Ending(int(number), _describe(int(number)))
                case ["error", text]:
                    ending = Ending(None, f"could not be started: {text}")
    return ending


def _describe(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal other than the first and the last has no name
        return f"was killed by signal {-status}"


async def _read(output: FileIO, on_line: Callable[[str], None]) -> None:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), output
    )
    lines = Lines()
    with contextlib.closing(transport):
        while chunk := await reader.read(65536):
            for line in lines.feed(chunk):
                on_line(line)
        for line in lines.end():
            on_line(line)


async def _stop(spawned: _Spawned, stop: asyncio.Event, patience: float) -> None:
    """Let the guard end its group, and end the guard if it does not (it may be stopped or starved)."""
    await stop.wait()
    with contextlib.suppress(OSError):  # macOS: not connected, if the guard is already gone
        spawned.lifeline.shutdown(socket.SHUT_WR)
    await asyncio.sleep(patience + MARGIN)
    _kill(spawned.guard)


def _kill(guard: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the guard's group; safe while the guard is not reaped, since nobody else can have its number."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: not permitted, if all are zombies
        os.killpg(guard.pid, signal.SIGKILL)


async def _clear(guard: subprocess.Popen[bytes]) -> None:
    """Reap the guard, and wait until its group is empty: the next engine needs this one's memory and port."""
    for pause in PAUSES:
        if guard.poll() is not None and not _populated(guard.pid):
            return
        await asyncio.sleep(pause)
    logger.warning("process group %d of the engine has been killed and still has members", guard.pid)


def _populated(group: int) -> bool:
    """Whether a group still has living members; orphans that became ours, as process 1 of a container, are reaped.

    They are reaped after the look, so that none is left who died in between.
    """
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    populated = sys.platform != "linux" or any(_alive_in(group))
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            continue
    return populated


def _alive_in(group: int) -> Iterator[bool]:
    """For each process of a Linux machine, whether it is in the group and not a zombie (proc(5), `/proc/PID/stat`).

    A zombie holds nothing, but stays in its group until a process 1, which may be slow to do so, reaps it.
    """
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, member = path.read_bytes().rpartition(b") ")[2].split()[:3]
            yield int(member) == group and state not in b"ZX"
