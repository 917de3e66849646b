"""The device thread: one at a time, in order, every request answered, and the process does not outlive it."""

import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.device import EXIT_CODE, Course, Device, DeviceEnded, Place
from engine.memory import OutOfMemoryError

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


class Company:
    """Shares passes with all others; the log has the numbers of each pass. Fails as `faults` says, which is shared."""

    key = "company"

    def __init__(
        self, log: list[list[int]], number: int, rows: int = 1, faults: "Faults | None" = None, weight: float = 1.0
    ) -> None:
        self.log, self.number, self.rows, self.weight = log, number, rows, weight
        self.faults = faults or Faults()

    def perform_all(self, place: Place, works: Sequence["Company"], limit: int) -> list[int]:
        self.log.append([work.number for work in works])
        if min(sum(work.rows for work in works), limit) > self.faults.room:
            raise MemoryError("too many")
        if any(work.number in self.faults.bad for work in works):
            raise ValueError("bad")
        return [work.number for work in works]


@dataclass
class Faults:
    """Which numbers raise, and how many rows fit into memory."""

    bad: frozenset[int] = frozenset()
    room: int = 1000


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


def hold_back(device: Device) -> Hold:
    """Occupy the device, so that what is submitted meanwhile waits together."""
    hold = Hold()
    device.submit(hold)
    assert hold.started.wait(DEADLINE)
    return hold


def test_who_waits_together_goes_together() -> None:
    log: list[list[int]] = []
    with Device(max_rows=4) as device:
        hold = hold_back(device)
        answers = [device.submit(Company(log, number)) for number in range(6)]
        hold.release.set()
        assert [answer.result(DEADLINE) for answer in answers] == list(range(6))
    assert log == [[0, 1, 2, 3], [4, 5]]


def test_who_raises_in_company_fails_alone() -> None:
    log: list[list[int]] = []
    faults = Faults(bad=frozenset({1}))
    with Device() as device:
        hold = hold_back(device)
        answers = [device.submit(Company(log, number, faults=faults)) for number in range(3)]
        hold.release.set()
        with pytest.raises(ValueError, match="bad"):
            answers[1].result(DEADLINE)
        assert [answers[0].result(DEADLINE), answers[2].result(DEADLINE)] == [0, 2]
    assert log == [[0, 1, 2], [0], [1], [2]]


def test_a_pass_that_does_not_fit_is_split_and_the_bound_is_learned() -> None:
    log: list[list[int]] = []
    faults = Faults(room=2)
    with Device(max_rows=8) as device:
        for _ in range(2):
            hold = hold_back(device)
            answers = [device.submit(Company(log, number, faults=faults)) for number in range(8)]
            hold.release.set()
            assert [answer.result(DEADLINE) for answer in answers] == list(range(8))
            if log[0] == list(range(8)):
                assert len(log) > 4
                log.clear()
    assert log == [[0, 1], [2, 3], [4, 5], [6, 7]], "the second time nothing had to fail"


def test_who_weighs_more_shares_passes_with_fewer() -> None:
    log: list[list[int]] = []
    with Device(max_rows=8) as device:
        hold = hold_back(device)
        answers = [device.submit(Company(log, number, weight=3.5)) for number in range(5)]
        hold.release.set()
        assert [answer.result(DEADLINE) for answer in answers] == list(range(5))
    assert log == [[0, 1], [2, 3], [4]]


def test_what_cannot_be_split_is_not_tried_again() -> None:
    log: list[list[int]] = []
    with Device(max_rows=8) as device, pytest.raises(OutOfMemoryError):
        device.submit(Company(log, 1, weight=4.0, faults=Faults(room=0))).result(DEADLINE)
    assert log == [[1]]


def test_who_fits_alone_in_smaller_passes_does_not_fail() -> None:
    with Device(max_rows=8) as device:
        assert device.submit(Company([], 1, rows=100, faults=Faults(room=1))).result(DEADLINE) == 1
        with pytest.raises(OutOfMemoryError):
            device.submit(Company([], 2, rows=100, faults=Faults(room=0))).result(DEADLINE)


def test_who_does_not_fit_alone_fits_when_others_have_made_room() -> None:
    log: list[list[int]] = []
    faults = Faults(room=-1)
    with Device(max_rows=8) as device:

        def make_room() -> bool:
            faults.room += 1
            return True

        device.make_room = make_room
        hold = hold_back(device)
        answers = [device.submit(Company(log, number, faults=faults)) for number in range(2)]
        hold.release.set()
        assert [answer.result(DEADLINE) for answer in answers] == [0, 1]
    assert log == [[0, 1], [0], [0], [0], [1]], "who shares a pass is parted before anything has to go"


@given(
    st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=8), st.integers(1, 8), st.integers(1, 8)
)
@settings(max_examples=60, deadline=None)
def test_nobody_fails_for_another(works: list[tuple[int, bool]], most: int, room: int) -> None:
    faults = Faults(frozenset(number for number, (_, bad) in enumerate(works) if bad), room)
    with Device(max_rows=most) as device:
        hold = hold_back(device)
        answers = [device.submit(Company([], number, rows, faults)) for number, (rows, _) in enumerate(works)]
        hold.release.set()
        for number, (answer, (_, bad)) in enumerate(zip(answers, works, strict=True)):
            if bad:
                with pytest.raises(ValueError, match="bad"):
                    answer.result(DEADLINE)
            else:
                assert answer.result(DEADLINE) == number


def walk(log: list[list[int]], number: int, steps: int, heard: list[int]) -> Generator[Company, int, int]:
    """A course of some steps, which adds up what it is answered."""
    total = 0
    for _ in range(steps):
        answer = yield Company(log, number)
        total += answer
        heard.append(answer)
    return total


def test_courses_share_their_steps_and_leave_when_they_are_done() -> None:
    log: list[list[int]] = []
    heard: list[tuple[int, int]] = []
    with Device() as device:
        hold = hold_back(device)
        ends = [
            device.follow(walk(log, number, steps, []), lambda work, answer: heard.append((work.number, answer)))
            for number, steps in ((1, 4), (2, 2), (3, 0))
        ]
        hold.release.set()
        assert [end.result(DEADLINE) for end in ends] == [4, 4, 0]
    assert log == [[1, 2], [1, 2], [1], [1]]
    assert heard == [(1, 1), (2, 2), (1, 1), (2, 2), (1, 1), (1, 1)]


def test_a_short_course_that_comes_late_ends_long_before_a_long_one() -> None:
    log: list[list[int]] = []
    joined = threading.Event()
    with Device() as device:
        steps: list[int] = []

        def hear(work: Any, answer: Any) -> None:
            if len(steps) == 3:  # in mid-course, while the device is busy with it, somebody comes
                joined.set()
                assert submitted.wait(DEADLINE)

        submitted = threading.Event()
        long = device.follow(walk(log, 1, 50, steps), hear)
        assert joined.wait(DEADLINE)
        short = device.follow(walk(log, 2, 4, []), lambda work, answer: None)
        submitted.set()
        assert short.result(DEADLINE) == 8
        assert long.result(DEADLINE) == 50
    last = max(place for place, batch in enumerate(log) if 2 in batch)
    assert [2, 1] in log
    assert last <= 9
    assert len(log) == 50


def test_a_cancelled_course_frees_its_rows_at_once() -> None:
    log: list[list[int]] = []
    with Device() as device:
        hold = hold_back(device)
        ends = [device.follow(walk(log, number, 3, []), lambda work, answer: None) for number in (1, 2)]
        assert ends[0].cancel()
        hold.release.set()
        assert ends[1].result(DEADLINE) == 6
    assert log == [[2], [2], [2]]


def test_a_course_that_raises_fails_alone() -> None:
    def stumble() -> Generator[Company, int, int]:
        yield Company([], 1)
        raise KeyError("mine")

    def fall(refused: bool) -> Generator[Company, int, int]:
        if refused:
            raise KeyError("before it began")
        return (yield Company([], 1))

    with Device() as device:
        hold = hold_back(device)
        bad = device.follow(stumble(), lambda work, answer: None)
        good = device.follow(walk([], 2, 3, []), lambda work, answer: None)
        hold.release.set()
        with pytest.raises(KeyError, match="mine"):
            bad.result(DEADLINE)
        assert good.result(DEADLINE) == 6
        with pytest.raises(KeyError, match="before it began"):
            device.follow(fall(True), lambda work, answer: None)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_number_format_is_a_choice(dtype: str) -> None:
    with Device("cpu", dtype=dtype) as device:
        place, _ = device.submit(LookAround()).result(DEADLINE)
    assert place.dtype is getattr(torch, dtype)


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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_accelerator_that_is_lost_ends_the_thread() -> None:
    ended = threading.Event()
    with Device(on_end=ended.set) as device:
        with pytest.raises(RuntimeError, match="illegal memory access"):
            device.submit(Raise(RuntimeError("CUDA error: an illegal memory access was encountered"))).result(DEADLINE)
        assert ended.wait(DEADLINE)


def test_an_error_of_cuda_after_which_it_answers_is_the_callers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("torch.cuda.synchronize", asked.append)
    error = RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx`")
    with Device("cuda") as device:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="NOT_SUPPORTED"):
                device.submit(Raise(error)).result(DEADLINE)
    assert len(asked) == 2


@pytest.mark.parametrize(
    "text",
    [
        "MPS backend out of memory",
        "CUDA error: out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED when calling",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_memory_runs_out_in_many_words(text: str) -> None:
    with Device() as device:
        with pytest.raises(OutOfMemoryError):
            device.submit(Raise(RuntimeError(text))).result(DEADLINE)
        assert device.submit(Note([], 1)).result(DEADLINE) == 1


def test_a_wrong_number_of_answers_fails_its_requests_alone() -> None:
    class Sloppy(Company):
        def perform_all(self, place: Place, works: Sequence[Company], limit: int) -> list[int]:
            return []

    with Device() as device:
        with pytest.raises(RuntimeError, match="0 answers to 1 requests"):
            device.submit(Sloppy([], 1)).result(DEADLINE)
        assert device.submit(Note([], 1)).result(DEADLINE) == 1


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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_accelerator_that_is_lost_in_a_course_ends_the_thread_and_leaves_nobody_waiting() -> None:
    ended = threading.Event()

    def course(error: BaseException | None) -> Course[str]:
        yield Company([], 1)
        if error is not None:
            raise error
        yield Company([], 2)
        return "done"

    device = Device(on_end=ended.set)
    with device:
        hold = hold_back(device)
        lost = RuntimeError("CUDA error: an illegal memory access was encountered")
        ends = [device.follow(course(error), lambda *_: None) for error in (None, lost, None)]
        hold.release.set()
        for end in ends:
            with pytest.raises((RuntimeError, DeviceEnded)):
                end.result(DEADLINE)
        assert ended.wait(DEADLINE)


def test_whoever_doubts_a_device_that_is_well_or_closed_changes_nothing() -> None:
    with Device() as device:
        device.doubt()
        assert device.submit(Note([], 7)).result(DEADLINE) == 7
    device.doubt()


def test_the_memory_is_looked_at_now_and_then_and_after_what_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def look(device: torch.device) -> dict[str, int]:
        looks.append(len(looks))
        return {"vram_free": len(looks)}

    monkeypatch.setattr("engine.device.read_memory", look)
    monkeypatch.setattr("engine.device._LOOK", 3600.0)
    with Device() as device:
        for number in range(20):
            device.submit(Company([], number)).result(DEADLINE)
        assert device.describe()["vram_free"] == 1
        device.submit(Note([], 1)).result(DEADLINE)
        assert device.describe()["vram_free"] == 2


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
