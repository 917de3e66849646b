"""The words of SaladTechnologies' comfyui-api, version 1.18: its statistics, its errors, and the names of files.

For: the dialect `comfyui-api`. Leaves reading requests and sending answers to the door. Invariant: every fault has a
status and an `error` that is text.
"""

from collections.abc import Mapping
from typing import Any

from converter.errors import Fault, InvalidInput, InvalidRequest, InvalidWorkflow


def summarize(times: Mapping[str, float], total: float, ended_at: float, nodes: Mapping[str, float]) -> dict[str, Any]:
    """`stats`, in whole milliseconds. `times`: seconds by `timing.PARTS`; `total`: seconds from request to end.

    `ended_at`, and the moments at which `nodes` began, are in seconds since the epoch.
    """
    end = ended_at - times["collecting"]
    trip = times["waiting"] + times["queued"] + times["executing"]
    return {
        "comfy_execution": {
            "start": _milliseconds(end - times["executing"]),
            "end": _milliseconds(end),
            "duration": _milliseconds(times["executing"]),
            "nodes": {node_id: {"start": _milliseconds(moment)} for node_id, moment in nodes.items()},
        },
        "preprocess_time": _milliseconds(times["staging"]),
        "comfy_round_trip_time": _milliseconds(trip),
        "postprocess_time": _milliseconds(times["collecting"]),
        "upload_time": 0,
        "total_time": _milliseconds(total),
    }


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def rename(name: str, asked: str | None) -> str:
    """A picture's file name under the format that was asked for: who says `jpg` gets that suffix."""
    return f"{name.removesuffix('.jpeg')}.jpg" if asked == "jpg" and name.endswith(".jpeg") else name


def explain(fault: Fault) -> tuple[int, dict[str, Any]]:
    """Status and document of a fault: `error`, `location` where it is about one place, and all else that is known."""
    problem = fault.problem()
    known = {name: value for name, value in problem.items() if name not in ("type", "title", "status", "detail")}
    status = 400 if isinstance(fault, InvalidWorkflow | InvalidInput) else fault.status
    place = _locate(fault)
    return status, {"error": fault.detail, **({} if place is None else {"location": place}), **known}


def _locate(fault: Fault) -> str | None:
    """As comfyui-api has it: names with points between them."""
    if isinstance(fault, InvalidRequest):
        pointers = [problem["pointer"] for problem in fault.problems if problem["pointer"]]
        return pointers[0][1:].replace("/", ".") if pointers else None
    if isinstance(fault, InvalidWorkflow):
        nodes = list(fault.extensions["node_errors"])
        return f"prompt.{nodes[0]}" if len(nodes) == 1 else "prompt"
    name = fault.extensions.get("input_name")
    if isinstance(fault, InvalidInput) and "node_id" in fault.extensions:
        return f"prompt.{fault.extensions['node_id']}.inputs.{name}"
    return name
