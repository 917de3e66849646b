"""The device thread: one at a time, in order, every request answered, and the process does not outlive it."""

import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from engine.device import EXIT_CODE, Device, DeviceEnded, OutOfMemoryError, Place

DEADLINE = 30.0


@dataclass
class Note:
    """Writes down that it ran, and on which thread."""

    log: list[tuple[int, str]]
    number: int

    def perform(self, place: Place) -> int:
        self.log.append((self.number, threading.current_thread().name))
        return self.number


@dataclass
class Hold:
    """Occupies the device until it is let go."""

    started: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    def perform(self, place: Place) -> None:
        self.started.set()
        assert self.release.wait(DEADLINE)


@dataclass
class Raise:
    error: BaseException

    def perform(self, place: Place) -> None:
        raise self.error


class Allocate:
    """Asks torch for more memory than any machine has."""

    def perform(self, place: Place) -> Any:
        return torch.empty(2**50, device=place.device)


class LookAround:
    def perform(self, place: Place) -> tuple[Place, bool]:
        return place, torch.is_grad_enabled()


def test_requests_run_in_order_on_the_one_thread() -> None:
    log: list[tuple[int, str]] = []
    with Device() as device:
        answers = [device.submit(Note(log, number)) for number in range(50)]
        assert [answer.result(DEADLINE) for answer in answers] == list(range(50))
    assert log == [(number, "device") for number in range(50)]


def test_work_is_told_where_it_runs_and_keeps_no_gradients() -> None:
    with Device("cpu") as device:
        place, gradients = device.submit(LookAround()).result(DEADLINE)
    assert place == Place(torch.device("cpu"), torch.float32)
    assert not gradients


def test_a_request_that_raises_fails_alone() -> None:
    log: list[tuple[int, str]] = []
    with Device() as device:
        bad = device.submit(Raise(KeyError("mine")))
        good = device.submit(Note(log, 1))
        with pytest.raises(KeyError, match="mine"):
            bad.result(DEADLINE)
        assert good.result(DEADLINE) == 1


def test_running_out_of_memory_is_a_type_of_its_own() -> None:
    with Device() as device:
        for work in (Allocate(), Raise(MemoryError()), Raise(torch.OutOfMemoryError("CUDA out of memory"))):
            with pytest.raises(OutOfMemoryError, match="cpu ran out of memory"):
                device.submit(work).result(DEADLINE)
        with pytest.raises(RuntimeError, match="a shape"):
            device.submit(Raise(RuntimeError("a shape"))).result(DEADLINE)


def test_a_cancelled_request_costs_nothing() -> None:
    log: list[tuple[int, str]] = []
    hold = Hold()
    with Device() as device:
        held = device.submit(hold)
        assert hold.started.wait(DEADLINE)
        canceled = device.submit(Note(log, 1))
        assert canceled.cancel()
        hold.release.set()
        held.result(DEADLINE)
        assert device.submit(Note(log, 2)).result(DEADLINE) == 2
    assert [number for number, _ in log] == [2]
    with pytest.raises(CancelledError):
        canceled.result(0)


def test_a_full_backlog_holds_the_caller() -> None:
    log: list[tuple[int, str]] = []
    hold = Hold()
    entered = threading.Event()

    with Device(backlog=1) as device:
        device.submit(hold)
        assert hold.started.wait(DEADLINE)
        device.submit(Note(log, 1))

        def submit_second() -> None:
            device.submit(Note(log, 2)).result(DEADLINE)
            entered.set()

        caller = threading.Thread(target=submit_second)
        caller.start()
        assert not entered.is_set()
        hold.release.set()
        assert entered.wait(DEADLINE)
        caller.join(DEADLINE)
    assert [number for number, _ in log] == [1, 2]


def test_a_closed_device_takes_nothing() -> None:
    with Device() as device:
        pass
    with pytest.raises(DeviceEnded):
        device.submit(Note([], 1))


def test_closing_answers_what_still_waits() -> None:
    hold = Hold()
    device = Device(backlog=1)
    device.__enter__()
    device.submit(hold)
    assert hold.started.wait(DEADLINE)
    waiting = device.submit(Note([], 1))
    closer = threading.Thread(target=device.__exit__, args=(None, None, None))
    closer.start()
    with pytest.raises(DeviceEnded):
        device.submit(Note([], 2))  # the backlog is full, so this ends when the device closes
    hold.release.set()
    closer.join(DEADLINE)
    with pytest.raises(DeviceEnded):
        waiting.result(DEADLINE)


# The thread is meant to end by an exception here.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_end_of_the_thread_is_told_and_leaves_nobody_waiting() -> None:
    ended = threading.Event()
    hold = Hold()
    with Device(on_end=ended.set) as device:
        device.submit(hold)
        assert hold.started.wait(DEADLINE)
        fatal = device.submit(Raise(SystemExit(3)))
        waiting = device.submit(Note([], 1))
        hold.release.set()
        assert ended.wait(DEADLINE)
        with pytest.raises(SystemExit):
            fatal.result(DEADLINE)
        with pytest.raises(DeviceEnded):
            waiting.result(DEADLINE)
        with pytest.raises(DeviceEnded):
            device.submit(Note([], 2))


def test_the_process_ends_with_the_thread() -> None:
    program = """
import threading
from engine.device import Device

class Fatal:
    def perform(self, place):
        raise SystemExit(0)

with Device() as device:
    device.submit(Fatal())
    threading.Event().wait()
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, check=False)
    assert ended.returncode == EXIT_CODE
    assert b"device thread has ended" in ended.stderr


def test_a_device_describes_its_memory_before_torch_is_there() -> None:
    program = """
import sys
from engine.device import Device
with Device() as device:
    described = device.describe()
assert described["vram_total"] >= described["vram_free"] > 0, described
assert described["type"] == "cpu" and described["index"] is None
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)
