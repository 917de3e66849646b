"""The process between the converter and its engine, which ends the engine when the converter is gone.

Run as `python -I -S guard.py LIFELINE PATIENCE SCRATCH COMMAND...`, as the leader of a session and process group of its
own. LIFELINE is the number of an inherited socket whose other end only the converter holds, PATIENCE is in seconds,
SCRATCH a folder that is removed after the engine if the converter is gone by then and can't do so; "" is none.
The command runs in the guard's group. When the lifeline ends (the converter shut it down, or died in whatever way), the
group gets SIGTERM, and SIGKILL when the command has not ended within the patience; when the command ends by itself,
what it left in the group gets SIGKILL at once.

The guard tells the converter one line each: `pid N` when the command runs, `exit N` when it ended (negative: the
signal that killed it), `error TEXT` when it could not be started. Whether and when to start again is left to the
converter.

Invariant: the guard ends last, and with SIGKILL to its group, so nothing that stayed in the group outlives it. Signals
that end others are ignored here: one sent to the group reaches each process in it exactly once, and is not passed on.
Only the standard library, and little of it: the guard lives as long as the engine and must stay small.
"""

import math
import os
import select
import signal
import sys
import time

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
SILENCED = (*ENDING, signal.SIGPIPE, signal.SIGXFSZ)
"""What is ignored here (the last two by Python itself) and must not be in the command."""


def guard(lifeline: int, patience: float, scratch: str, command: list[str]) -> None:
    """Run the command until it ends or the lifeline does; returns only if the caller leads no group of its own."""
    if os.getpgrp() != os.getpid():
        sys.exit("guard.py kills its whole process group: it is started by the converter only")
    try:
        os.set_inheritable(lifeline, False)
        told = report(lifeline, watch(lifeline, patience, command))
        if scratch and not told:
            remove(scratch)
    finally:
        os.killpg(0, signal.SIGKILL)


def watch(lifeline: int, patience: float, command: list[str]) -> str:
    """Start the command and wait for one of the two ends; the line that says how it went."""
    woken = wake_on_child()
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    if poll.poll(0):
        return "error the converter is gone"
    try:
        pid = os.posix_spawnp(command[0], command, os.environ, setsigmask=(), setsigdef=SILENCED)
    except OSError as error:
        return f"error {error.strerror}: {command[0]}"
    report(lifeline, f"pid {pid}")
    poll.register(woken, select.POLLIN)
    end = math.inf
    while (left := end - time.monotonic()) > 0:
        ready = {number for number, _ in poll.poll(None if left == math.inf else left * 1000)}
        if woken in ready:
            os.read(woken, 512)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return f"exit {os.waitstatus_to_exitcode(status)}"
        if lifeline in ready:  # nothing is ever sent to the guard: this is the end of the lifeline
            poll.unregister(lifeline)
            end = time.monotonic() + patience
            os.killpg(0, signal.SIGTERM)
    return f"exit {-signal.SIGKILL}"


def wake_on_child() -> int:
    """A file descriptor that becomes readable when a child ends (a self-pipe: no signal is missed before a poll)."""
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    return woken


def report(lifeline: int, line: str) -> bool:
    """Tell the converter, if it still lives; whether it does."""
    try:
        return os.write(lifeline, f"{line}\n".encode()) > 0
    except OSError:
        return False


def remove(folder: str) -> None:
    """Remove a folder with all that is in it."""
    import shutil  # takes memory that a guard does not need until its end

    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    guard(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:])
