"""RunPod's words for jobs: what its API says of a job, of an endpoint, and where a request's images go in a workflow.

For: the dialect `runpod`, whose users know the endpoints of a serverless worker and the input of worker-comfyui. Leaves
reading requests and sending answers to the door. Invariant: every state of a job has one of RunPod's words.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from converter.core.template import Place
from converter.core.workflow import Graph, replace_inputs, unwrap
from converter.errors import DeadlineExceeded, Fault, InvalidRequest

_STATES: Mapping[str, str] = {
    "running": "IN_PROGRESS",
    "collecting": "IN_PROGRESS",
    "succeeded": "COMPLETED",
    "failed": "FAILED",
    "canceled": "CANCELLED",
}
"""Words for the public states of a job; those before it runs are IN_QUEUE."""


def describe(job_id: str, state: str, times: Mapping[str, float], fault: Fault | None = None) -> dict[str, Any]:
    """A job without its output. `times`: seconds by `timing.PARTS`, told in whole milliseconds."""
    status = _STATES.get(state, "IN_QUEUE")
    if isinstance(fault, DeadlineExceeded):
        status = "TIMED_OUT"
    document: dict[str, Any] = {"id": job_id, "status": status}
    if status == "IN_QUEUE":
        return document
    document["delayTime"] = _milliseconds(times["waiting"] + times["staging"] + times["queued"])
    if status != "IN_PROGRESS":
        document["executionTime"] = _milliseconds(times["executing"] + times["collecting"])
    if fault is not None:
        document |= {"error": fault.detail, "problem": fault.problem()}
    return document


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def health(state: str, queue: Mapping[str, int], completed: int, failed: int) -> dict[str, Any]:
    """An endpoint whose one worker is a replica. `state`: as the probes have it; `queue`: the gate's depth by kind."""
    ready, busy = state in ("READY", "BUSY"), queue["running"] > 0
    return {
        "jobs": {
            "completed": completed,
            "failed": failed,
            "inProgress": queue["running"],
            "inQueue": queue["waiting"],
        },
        "workers": {
            "idle": int(ready and not busy),
            "initializing": int(state == "STARTING"),
            "ready": int(ready),
            "running": int(ready and busy),
            "throttled": 0,
            "unhealthy": int(not ready and state != "STARTING"),
        },
    }


def place_images(graph: Graph, images: Sequence[tuple[str, str]]) -> tuple[Graph, frozenset[Place]]:
    """The workflow with each image where an input has its name, and these places. An image is base64, or a URI.

    Raises InvalidRequest, which names every image that has no place, and every name that comes twice.
    """
    problems: list[dict[str, str]] = []
    values: dict[Place, object] = {}
    seen: set[str] = set()
    for number, (name, image) in enumerate(images):
        places = _find(graph, name)
        if name in seen:
            problems.append({"pointer": f"/input/images/{number}/name", "detail": "another image has this name"})
        elif not places:
            problems.append({"pointer": f"/input/images/{number}/name", "detail": "no input of the workflow has it"})
        seen.add(name)
        values.update(dict.fromkeys(places, image if ":" in image else f"data:;base64,{image}"))
    if problems:
        raise InvalidRequest(problems)
    return replace_inputs(graph, values), frozenset(values)


def _find(graph: Graph, name: str) -> list[Place]:
    return [
        (node_id, key)
        for node_id, node in graph.items()
        for key, value in node["inputs"].items()
        if unwrap(value) == name
    ]
