"""`python -m engine` as a process: starting, stopping, dying."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.device import EXIT_CODE
from tests.engine.graphs import picture, through
from tests.engine.waiting import PATIENCE, until_blocking

ROOT = Path(__file__).parent.parent.parent


@dataclass
class Running:
    """An engine in a process of its own."""

    process: subprocess.Popen[str]
    url: str

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(self.url + path, data, timeout=PATIENCE) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def submit(self, graph: Any) -> str:
        return str(self.ask("/prompt", {"prompt": graph})["prompt_id"])

    def finish(self, graph: Any) -> Any:
        """The record of a prompt that was run."""
        prompt_id = self.submit(graph)
        until_blocking(lambda: bool(self.ask(f"/history/{prompt_id}")))
        return self.ask(f"/history/{prompt_id}")[prompt_id]


def command(folder: Path, *arguments: str, program: str | None = None) -> list[str]:
    """The command of an engine; or of a program that hands its arguments to the engine's `main`."""
    begin = ["-m", "engine"] if program is None else ["-c", program]
    return [sys.executable, *begin, "--port", "0", "--base-dir", str(folder), "--test-nodes", *arguments]


@contextmanager
def start(folder: Path, *arguments: str, program: str | None = None) -> Iterator[Running]:
    """An engine on a free port, which its first line tells."""
    words = command(folder, *arguments, program=program)
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("engine listening on http://127.0.0.1:")
        yield Running(process, line.split()[-1])
    finally:
        process.kill()
        process.communicate()


def test_it_serves_and_stops_at_once(tmp_path: Path) -> None:
    left = tmp_path / "temp" / "left over.png"
    left.parent.mkdir()
    left.touch()
    with start(tmp_path) as engine:
        assert not left.exists()
        assert engine.finish(picture(1))["status"]["completed"]
        assert (tmp_path / "output" / "test_00001_.png").is_file()
        engine.process.send_signal(signal.SIGTERM)
        assert engine.process.wait(PATIENCE) == 0
    assert not left.parent.exists()


def test_it_does_not_wait_for_a_node_that_does_not_listen(tmp_path: Path) -> None:
    with start(tmp_path) as engine:
        engine.submit(through("TestSleepDeaf", seconds=600.0))
        until_blocking(lambda: len(engine.ask("/queue")["queue_running"]) == 1)
        begin = time.monotonic()
        engine.process.send_signal(signal.SIGINT)
        assert engine.process.wait(PATIENCE) == 0
        assert time.monotonic() - begin < PATIENCE / 2


def test_a_node_that_ends_the_process_ends_it(tmp_path: Path) -> None:
    with start(tmp_path) as engine:
        with suppress(ConnectionError):  # it may end before it answers
            engine.submit(through("TestExit", code=7))
        assert engine.process.wait(PATIENCE) == 7


@pytest.mark.parametrize(("flags", "most"), [([], 8), (["--concurrency", "2"], 2)])
def test_it_runs_as_many_prompts_at_once_as_it_says(tmp_path: Path, flags: list[str], most: int) -> None:
    with start(tmp_path, *flags) as engine:
        assert engine.ask("/features")["max_concurrent_prompts"] == most
        for _ in range(most + 1):
            engine.submit(through("TestSleep", seconds=600.0, interval=1.0))
        until_blocking(lambda: len(engine.ask("/queue")["queue_running"]) == most)
        assert len(engine.ask("/queue")["queue_pending"]) == 1


FATAL_TURN = """
import sys
from engine.__main__ import main
from engine.executor import Executor

Executor._carry_out = lambda self, execution: sys.exit(0)
sys.exit(main(sys.argv[1:]))
"""

FATAL_WORK = """
import sys
from engine.__main__ import main
from engine.models import Preload

Preload.perform = lambda self, place: sys.exit(0)
sys.exit(main(sys.argv[1:]))
"""


def test_it_ends_with_a_thread_of_the_executor(tmp_path: Path) -> None:
    with start(tmp_path, program=FATAL_TURN) as engine:
        with suppress(ConnectionError):  # it may end before it answers
            engine.submit(through("TestSleep", seconds=0.0))
        assert engine.process.wait(PATIENCE) == EXIT_CODE


def test_it_ends_with_the_device_thread(tmp_path: Path) -> None:
    with start(tmp_path, program=FATAL_WORK) as engine:
        assert engine.process.wait(PATIENCE) == EXIT_CODE


def test_memory_that_is_not_there_fails_the_prompt_alone(tmp_path: Path) -> None:
    with start(tmp_path) as engine:
        record = engine.finish(through("TestAllocate", megabytes=1 << 20))
        assert record["status"]["messages"][-1][1]["exception_type"].endswith("MemoryError")
        assert engine.finish(through("TestAllocate", megabytes=1, seconds=0.01))["status"]["completed"]


def test_a_port_that_is_taken_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        arguments = [*command(tmp_path), "--port", str(taken.getsockname()[1])]
        ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode not in (0, None)
    assert ended.stderr.startswith("engine: ")
    assert ended.stderr.count("\n") == 1


def test_nothing_slow_is_loaded_before_it_listens() -> None:
    code = "import sys; import engine.__main__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=PATIENCE)


def test_an_unknown_option_is_refused(tmp_path: Path) -> None:
    arguments = [*command(tmp_path), "--nonsense"]
    ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 2
    assert "--nonsense" in ended.stderr


def test_a_device_that_there_is_not_is_refused_before_it_listens(tmp_path: Path) -> None:
    arguments = [*command(tmp_path), "--device", "gpu"]
    ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "must be cpu, cuda, cuda:NUMBER or mps, not 'gpu'" in ended.stderr


def test_an_accelerator_that_there_is_not_is_refused_before_it_listens(tmp_path: Path) -> None:
    arguments = [*command(tmp_path), "--device", "cuda:63"]
    ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "there is no cuda:63 on this machine" in ended.stderr


def test_without_test_nodes_there_are_none(tmp_path: Path) -> None:
    arguments = [argument for argument in command(tmp_path) if argument != "--test-nodes"]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        engine = Running(process, process.stdout.readline().split()[-1])
        assert not [name for name in engine.ask("/object_info") if name.startswith("Test")]
        with pytest.raises(urllib.error.HTTPError) as caught:
            engine.submit(through("TestExit", code=7))
        caught.value.close()
        assert caught.value.code == 400
    finally:
        process.kill()
        process.communicate()
