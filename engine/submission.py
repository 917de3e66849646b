"""A body of POST /prompt, but for its graph.

For: judging everything around the graph, in the words of ComfyUI 0.3.64. Leaves the graph to `graph`.
That version accepts `extra_data: null` and then loses its only worker; this one refuses it. What that version answers
with a plain 500, because it fails at it, is refused here, too.
Invariant: pure; what passes can be written as strict JSON.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import RefusedError
from engine.wire import describe_error

SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")
MAX_DEPTH = 64  # of objects and lists in one node; deeper JSON could be read but not written again


@dataclass(frozen=True, slots=True)
class Submission:
    """A body of POST /prompt, as far as it can be judged without the graph. `number` None: the server counts."""

    graph: object
    extra_data: dict[str, Any]
    number: float | None
    front: bool
    prompt_id: str | None
    targets: frozenset[str] | None


def refuse(kind: str, message: str, details: str = "", node_errors: Mapping[str, Any] | None = None) -> RefusedError:
    """The refusal of a whole prompt."""
    return RefusedError({"error": describe_error(kind, message, details), "node_errors": dict(node_errors or {})})


def read_submission(body: object) -> Submission:
    """Judge everything but the graph. Raises RefusedError."""
    if not isinstance(body, dict | list):
        raise refuse("invalid_prompt", "The body must be a JSON object.")
    if not isinstance(body, dict) or "prompt" not in body:
        raise refuse("no_prompt", "No prompt provided", "No prompt provided")
    extra_data = body.get("extra_data", {})
    if not isinstance(extra_data, dict):
        raise refuse("invalid_prompt", "extra_data must be an object.")
    if is_deep(extra_data, MAX_DEPTH):
        raise refuse("invalid_prompt", f"extra_data is nested more than {MAX_DEPTH} deep.")
    extra_data = {key: value for key, value in extra_data.items() if key not in SECRETS}
    if "client_id" in body:
        extra_data["client_id"] = body["client_id"]
    targets = body.get("partial_execution_targets")
    return Submission(
        graph=body["prompt"],
        extra_data=extra_data,
        number=_read_place(body["number"]) if "number" in body else None,
        front=bool(body.get("front", False)),
        prompt_id=_read_prompt_id(body.get("prompt_id")),
        targets=None if not isinstance(targets, list) else frozenset(t for t in targets if isinstance(t, str)),
    )


def read_number(value: Any) -> float:
    """A finite number, by Python's own rules of conversion. Raises ValueError, TypeError, OverflowError."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("the number is not finite")
    return number


def _read_place(value: object) -> float:
    try:
        return read_number(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise refuse("invalid_prompt", "number must be a finite number.") from error


def _read_prompt_id(value: object) -> str | None:
    """Later versions of ComfyUI (0.25 on) take canonical UUIDs only; null is made by the server."""
    if value is None:
        return None
    try:
        if isinstance(value, str) and str(uuid.UUID(value)) == value:
            return value
    except ValueError:
        pass
    raise refuse("invalid_prompt_id", "prompt_id must be a UUID in canonical form.", f"got {str(value)[:100]!r}")


def is_deep(value: object, limit: int) -> bool:
    """Whether objects and lists are nested more than `limit` deep."""
    level: list[Any] = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
