"""What lives under the guard ends when the converter does, however that dies."""

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from converter.link import child
from tests.converter.link.family import (
    FAMILY,
    FOREVER,
    PATIENCE,
    STUBBORN,
    Watched,
    guard_of,
    lives,
    nothing_left,
    python,
    until,
)

ROOT = Path(__file__).parents[3]

PARENT = f"""
import asyncio, os, sys
from converter.core.restarts import Policy
from converter.link.supervisor import Supervisor

async def main():
    command = [sys.executable, "-c", {FAMILY + STUBBORN!r}]
    async with Supervisor(command, dict(os.environ), Policy(), lambda event: None, patience=0.2) as supervisor:
        while "up" not in supervisor.tail:
            await asyncio.sleep(0.005)
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    with nothing_left(request.node.nodeid):
        yield


@pytest.mark.parametrize("killed", [True, False])
async def test_the_engines_folder_goes_with_a_converter_that_can_not_remove_it(tmp_path: Path, killed: bool) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "file").touch()
    program = PARENT.replace("patience=0.2", f"patience=0.2, scratch={str(scratch)!r}")
    if not killed:
        program = program.replace("await asyncio.Event().wait()", "break_off = True")
    parent = await asyncio.create_subprocess_exec(*python(program), cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await parent.stdout.readline() == b"ready\n"
    family = [process.pid for process in psutil.Process(parent.pid).children(recursive=True)]
    if killed:
        parent.kill()
        await until(lambda: not scratch.exists() and not any(lives(pid) for pid in family))
    assert await parent.wait() == (-signal.SIGKILL if killed else 0)
    assert scratch.exists() is not killed


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_killed_converter_leaves_nothing(number: signal.Signals) -> None:
    parent = await asyncio.create_subprocess_exec(*python(PARENT), cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await parent.stdout.readline() == b"ready\n"
    family = [process.pid for process in psutil.Process(parent.pid).children(recursive=True)]
    assert len(family) == 3  # guard, child, grandchild
    parent.send_signal(number)
    assert await parent.wait() == -number
    await until(lambda: not any(lives(pid) for pid in family))


@pytest.mark.skipif(sys.platform != "linux", reason="adopting orphans is asked for as Linux does it")
def test_adopted_orphans_are_reaped() -> None:
    """As process 1 of a container the converter inherits what its guard leaves; a subreaper does, too."""
    adopt = "import ctypes; assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0\n"  # PR_SET_CHILD_SUBREAPER
    program = (
        adopt
        + PARENT.replace("await asyncio.Event().wait()", "break_off = True")
        + ("try:\n    print(os.waitpid(-1, os.WNOHANG))\nexcept ChildProcessError:\n    print('no children')\n")
    )
    done = subprocess.run(python(program), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.split("\n") == ["ready", "no children", ""]


async def test_guard_without_a_group_of_its_own_refuses() -> None:
    guard = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", child.GUARD, "0", "1", "", "true", stderr=asyncio.subprocess.PIPE
    )
    _, said = await guard.communicate()
    assert guard.returncode == 1
    assert b"started by the converter only" in said


async def test_guard_does_not_start_anything_for_a_dead_converter(tmp_path: Path) -> None:
    mark = tmp_path / "started"
    lifeline, guarded = socket.socketpair()
    with lifeline, guarded:
        lifeline.shutdown(socket.SHUT_WR)
        guard = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", child.GUARD, str(guarded.fileno()), "1", "", "touch", str(mark)),
            pass_fds=(guarded.fileno(),),
            start_new_session=True,
        )
        assert await guard.wait() == -signal.SIGKILL
        assert lifeline.recv(100) == b"error the converter is gone\n"
    assert not mark.exists()


async def test_guard_is_small() -> None:
    async with Watched(FOREVER) as supervisor:
        started = await supervisor.started()
        guard = psutil.Process(guard_of(started.pid))
        assert guard.memory_info().rss < 16_000_000
        assert guard.num_threads() == 1
