"""RunPod's words: every state has one, times are milliseconds, and images go where the workflow names them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core import runpod
from converter.core.timing import PARTS
from converter.errors import Canceled, DeadlineExceeded, ExecutionFailed, Fault, InvalidRequest

TIMES = {"waiting": 1.0, "staging": 0.5, "queued": 0.25, "executing": 2.0, "collecting": 0.1234}


@pytest.mark.parametrize("state", ["waiting", "staging", "queued"])
def test_a_job_that_does_not_run_yet_is_in_the_queue(state: str) -> None:
    assert runpod.describe("a", state, TIMES) == {"id": "a", "status": "IN_QUEUE"}


@pytest.mark.parametrize("state", ["running", "collecting"])
def test_a_job_that_runs_has_waited_so_long(state: str) -> None:
    assert runpod.describe("a", state, TIMES) == {"id": "a", "status": "IN_PROGRESS", "delayTime": 1750}


@pytest.mark.parametrize(
    ("state", "fault", "status"),
    [
        ("succeeded", None, "COMPLETED"),
        ("failed", ExecutionFailed("node 3 raised"), "FAILED"),
        ("failed", DeadlineExceeded("too late"), "TIMED_OUT"),
        ("canceled", Canceled("by request"), "CANCELLED"),
    ],
)
def test_a_job_that_has_ended_says_how(state: str, fault: Fault | None, status: str) -> None:
    told = runpod.describe("a", state, TIMES, fault)
    assert told["status"] == status
    assert (told["delayTime"], told["executionTime"]) == (1750, 2123)
    assert told.get("error") == (None if fault is None else fault.detail)
    assert ("problem" in told) is (fault is not None)


@given(st.fixed_dictionaries({part: st.floats(0, 1e6) for part in PARTS}))
def test_times_are_whole_milliseconds(times: dict[str, float]) -> None:
    told = runpod.describe("a", "succeeded", times)
    assert told["delayTime"] + told["executionTime"] == pytest.approx(sum(times.values()) * 1000, abs=1.01)


@pytest.mark.parametrize(
    ("state", "running", "workers"),
    [
        ("STARTING", 0, {"initializing"}),
        ("READY", 0, {"ready", "idle"}),
        ("READY", 1, {"ready", "running"}),
        ("BUSY", 2, {"ready", "running"}),
        ("FAILED", 1, {"unhealthy"}),
        ("DRAINING", 1, {"unhealthy"}),
    ],
)
def test_a_replica_is_one_worker(state: str, running: int, workers: set[str]) -> None:
    told = runpod.health(state, {"running": running, "waiting": 3, "strangers": 1, "capacity": 16}, 7, 2)
    assert {name for name, count in told["workers"].items() if count} == workers
    assert told["jobs"] == {"completed": 7, "failed": 2, "inProgress": running, "inQueue": 3}


GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "in.png"}},
    "2": {"class_type": "LoadImageMask", "inputs": {"image": {"__value__": "in.png"}, "channel": "red"}},
    "3": {"class_type": "LoadImage", "inputs": {"image": "other.png"}},
}


def test_an_image_stands_wherever_the_workflow_has_its_name() -> None:
    graph, places = runpod.place_images(GRAPH, [("in.png", "aGk="), ("other.png", "data:image/png;base64,aGk=")])
    assert places == {("1", "image"), ("2", "image"), ("3", "image")}
    assert graph["1"]["inputs"]["image"] == graph["2"]["inputs"]["image"] == "data:;base64,aGk="
    assert graph["3"]["inputs"]["image"] == "data:image/png;base64,aGk="
    assert GRAPH["1"]["inputs"] == {"image": "in.png"}


def test_without_images_nothing_is_placed() -> None:
    assert runpod.place_images(GRAPH, []) == (GRAPH, frozenset())


def test_every_image_without_a_place_and_every_name_twice_is_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        runpod.place_images(GRAPH, [("in.png", "a"), ("lost.png", "b"), ("in.png", "c")])
    assert [problem["pointer"] for problem in caught.value.problems] == ["/input/images/1/name", "/input/images/2/name"]
