"""Faults of a template's call, told by its own inputs where they are about inputs of nodes that these fill.

For: callers of templates, who know nothing of nodes. Leaves to others what is wrong. Invariant: a fault stays what it
is but for its detail, which gets longer, and members that are added.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from converter.core.problems import read_problem
from converter.core.template import MEDIA, Input
from converter.core.workflow import MAX_ECHO, clip
from converter.errors import Fault

_FILES = (
    'The engine has no such file; one is sent as a part of the request ({"part": NAME}), as base64, as a data: URI or '
    "as a URL."
)
_MISSING = re.compile(r"Invalid \w+ file\b")
"""How ComfyUI's loaders say that there is no such file."""


def name_inputs(fault: Fault, holes: Sequence[Input]) -> Fault:
    """The fault with the template's inputs (`holes`) named where it names what they fill: in its detail, which begins
    with their pointers, and as `template_input` beside each `input_name`. The fault itself where it names none.
    """
    owners = {(clip(node_id, MAX_ECHO), clip(key, MAX_ECHO)): hole for hole in holes for node_id, key in hole.places}
    named: dict[str, bool] = {}

    def name(node_id: object, reason: Mapping[str, Any]) -> Mapping[str, Any]:
        hole = owners.get((str(node_id), reason.get("input_name", "")))
        if hole is None:
            return reason
        named[hole.name] = named.get(hole.name, False) or _lacks_file(hole, reason)
        return {**reason, "template_input": hole.name}

    told = {**name(fault.extensions.get("node_id"), fault.extensions)}
    if "inputs" in told:
        told["inputs"] = [name(place.get("node_id"), place) for place in told["inputs"]]
    if "node_errors" in told:
        told["node_errors"] = {
            node_id: {**entry, "errors": [name(node_id, error) for error in entry["errors"]]}
            for node_id, entry in told["node_errors"].items()
        }
    if not named:
        return fault
    pointers = ", ".join(f"/inputs/{each}" for each in named)
    help_with_files = f" {_FILES}" if any(named.values()) else ""
    return read_problem(fault.problem() | told | {"detail": f"{pointers}: {fault.detail}{help_with_files}"})


def _lacks_file(hole: Input, reason: Mapping[str, Any]) -> bool:
    """Whether the engine does not have the file that the input names."""
    missing = reason.get("type") == "value_not_in_list" or _MISSING.search(reason.get("details", "")) is not None
    return hole.type in MEDIA and missing
