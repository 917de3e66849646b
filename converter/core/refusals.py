"""The engine's "no" to a submission, as the caller's fault in one shape.

For: every answer of `POST /prompt` that is not a plain acceptance, of ComfyUI 0.3.64 and of later versions, which use
other types for some of it. Leaves the sending to the link.

Invariant: any JSON value makes a fault. Tracebacks, exception classes and server paths never get into it, and as the
engine's order changes from process to process (it lists from sets), nodes and errors are sorted.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from converter.core.guesses import guess
from converter.core.workflow import Graph, NodeErrors, explain, refuse, scrub
from converter.errors import EngineFailed, Fault, Internal, InvalidWorkflow, TooLarge

_OPENING = "The engine refused the workflow"
_OURS = frozenset({"no_prompt", "invalid_prompt_id"})
"""Complaints about what the converter adds to a workflow, never the caller."""

_UNEXPLAINED: Mapping[str, str] = {
    "prompt_no_outputs": "The workflow has no output node (such as SaveImage) that the engine could run.",
    "prompt_outputs_failed_validation": (
        "The engine found no output that it could run and gave no reason; nodes that are linked in a circle are the "
        "usual one."
    ),
}


def normalize_refusal(status: int, body: object, classes: Collection[str] = ()) -> Fault:
    """The fault for an answer of `POST /prompt` other than 200; `body` is its parsed JSON, or anything else.

    400 with an error is InvalidWorkflow with `node_errors`, 413 TooLarge, what only the converter can have got wrong
    Internal, and all else EngineFailed. `classes` are those that the engine has, as far as they are known.
    """
    if status == 413:
        return TooLarge("The workflow is larger than the engine accepts.")
    error = body.get("error") if isinstance(body, Mapping) else None
    if status != 400 or not isinstance(body, Mapping) or not isinstance(error, Mapping):
        return EngineFailed(f"The engine answered a submission with {status}.")
    kind = _text(error, "type")
    if kind in _OURS:
        return Internal("The engine did not understand the submission.")
    node_errors = _read(body.get("node_errors")) or _blame(error, classes)
    if node_errors:
        return refuse(_OPENING, node_errors)
    if kind in _UNEXPLAINED and not _text(error, "details"):
        return InvalidWorkflow(_UNEXPLAINED[kind], node_errors={})
    stated = ": ".join(filter(None, (scrub(_text(error, key)).rstrip(".") for key in ("message", "details"))))
    return InvalidWorkflow(f"{_OPENING}: {stated or 'it gave no reason'}.", node_errors={})


def partial_refusal(node_errors: object) -> InvalidWorkflow:
    """The fault for a 200 whose `node_errors` say that some outputs would be left out."""
    return refuse("The engine would run the workflow only in part", _read(node_errors))


def find_dropped(
    graph: Graph, nodes: Collection[str] | None, output_classes: Collection[str] | None, run: Collection[str]
) -> InvalidWorkflow | None:
    """The same for a prompt whose submission got no answer, from the output nodes that its record says were `run`.

    nodes: the output nodes that were asked for, None for all. None where nothing was left out, or nobody can tell:
    the record names no nodes, or the classes of outputs are not known.
    """
    if nodes is None:
        known = output_classes or ()
        nodes = [node_id for node_id, node in graph.items() if node["class_type"] in known]
    error = explain("dropped_output", "The engine left this output out, and why was lost with its answer")
    dropped = {node_id: {"class_type": graph[node_id]["class_type"], "errors": [error]} for node_id in nodes}
    for node_id in run:
        dropped.pop(node_id, None)
    return refuse("The engine ran the workflow only in part", dropped) if run and dropped else None


def _read(node_errors: object) -> NodeErrors:
    if not isinstance(node_errors, Mapping):
        return {}
    found: NodeErrors = {}
    for node_id, entry in sorted(node_errors.items(), key=lambda item: (len(item[0]), item[0])):
        if isinstance(entry, Mapping):
            listed = entry.get("errors")
            errors = (
                [_translate(error) for error in listed if isinstance(error, Mapping)]
                if isinstance(listed, list)
                else []
            )
            errors.sort(key=lambda error: (error.get("input_name", ""), error["type"], error["details"]))
            found[node_id] = {"class_type": _text(entry, "class_type") or None, "errors": errors}
    return found


def _translate(error: Mapping[str, Any]) -> dict[str, str]:
    message = scrub(_text(error, "message")) or "The engine gave no reason"
    input_name = _text(_extra(error), "input_name") or None
    return explain(_text(error, "type") or "unknown", message, scrub(_text(error, "details")), input_name)


def _blame(error: Mapping[str, Any], classes: Collection[str]) -> NodeErrors:
    """The node that a top-level error is about.

    ComfyUI 0.3.64 has `invalid_prompt` for a missing and for an unknown class, and names node and class in texts only;
    later versions have `missing_node_type` for both, with the names beside it.
    """
    if _text(error, "type") not in {"invalid_prompt", "missing_node_type"}:
        return {}
    message, extra = _text(error, "message"), _extra(error)
    named = re.fullmatch(r"Node ID '#(.*)'", _text(error, "details"), re.DOTALL)
    node_id = _text(extra, "node_id") or (named[1] if named else "")
    if not node_id:
        return {}
    quoted = re.fullmatch(r"Cannot execute because node (.+) does not exist\.", message, re.DOTALL)
    class_type = _text(extra, "class_type") or (quoted[1] if quoted else None)
    if class_type is None and "class_type" in message:
        reason = explain("missing_class_type", "The node has no class_type")
    else:
        meant = guess(class_type or "", classes)
        lost = "perhaps a custom node is not installed"
        hint = f"did you mean {meant}, or is a custom node not installed?" if meant else lost
        reason = explain("missing_node_type", f"The engine has no node of this class; {hint}")
    return {node_id: {"class_type": class_type, "errors": [reason]}}


def _extra(error: Mapping[str, Any]) -> Mapping[str, Any]:
    extra = error.get("extra_info")
    return extra if isinstance(extra, Mapping) else {}


def _text(holder: Mapping[str, Any], key: str) -> str:
    value = holder.get(key)
    return value if isinstance(value, str) else ""
