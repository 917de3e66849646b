"""What the engine has: nodes, models, the machine it runs on.

For: the answers of /object_info, /models, /view_metadata and /system_stats. Leaves routing to `server`.
Invariant: looks, and changes nothing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from engine.graph import describe_input
from engine.nodes.spec import Folders, Input, Node

PROTOCOL = "0.3.64"  # the version of ComfyUI whose protocol this is
_MAX_HEADER = 64 << 20  # bytes of a safetensors header that are read


def describe_node(node: Node, folders: Folders) -> dict[str, Any]:
    """A node's entry in /object_info."""

    def describe(inputs: Mapping[str, Input]) -> dict[str, list[object]]:
        return {name: describe_input(spec, folders) for name, spec in inputs.items()}

    inputs: dict[str, Any] = {"required": describe(node.required)}
    order = {"required": list(node.required)}
    if node.optional:
        inputs["optional"], order["optional"] = describe(node.optional), list(node.optional)
    if node.hidden:
        inputs["hidden"], order["hidden"] = dict(node.hidden), list(node.hidden)
    entry: dict[str, Any] = {
        "input": inputs,
        "input_order": order,
        "output": [output.type for output in node.outputs],
        "output_is_list": [output.is_list for output in node.outputs],
        "output_name": [output.name or output.type for output in node.outputs],
        "name": node.class_type,
        "display_name": node.display_name or node.class_type,
        "description": node.description,
        "python_module": "nodes",
        "category": node.category,
        "output_node": node.output_node,
    }
    if any(output.tooltip for output in node.outputs):
        entry["output_tooltips"] = [output.tooltip for output in node.outputs]
    return entry


def describe_system(arguments: Sequence[str]) -> dict[str, Any]:
    """The `system` of /system_stats; memory in bytes."""
    page = os.sysconf("SC_PAGE_SIZE")
    return {
        "os": os.name,
        "ram_total": page * os.sysconf("SC_PHYS_PAGES"),
        "ram_free": _read_free_memory(),
        "comfyui_version": PROTOCOL,
        "required_frontend_version": None,
        "installed_templates_version": None,
        "required_templates_version": None,
        "python_version": sys.version,
        "pytorch_version": _read_version("torch"),
        "embedded_python": False,
        "argv": list(arguments),
    }


def list_folders(models: Path) -> list[str]:
    """The kinds of models: the subfolders of models/."""
    return sorted(path.name for path in models.iterdir() if path.is_dir()) if models.is_dir() else []


def list_models(folder: Path) -> list[str]:
    """Folders in diffusers' format by name, and other files by relative path."""
    if not folder.is_dir():
        return []
    pipelines = {index.parent for index in folder.glob("*/model_index.json")}
    files = (
        path for path in folder.rglob("*") if path.is_file() and pipelines.isdisjoint(path.parents) and path.suffix
    )
    return sorted([path.name for path in pipelines] + [path.relative_to(folder).as_posix() for path in files])


def read_metadata(path: Path) -> object:
    """`__metadata__` of a safetensors header: u64le length, JSON. None without one. Raises OSError, ValueError."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER:
            raise ValueError("the header is too long")
        header = json.loads(file.read(length))
    return header.get("__metadata__") if isinstance(header, dict) else None


def _read_free_memory() -> int:
    """Bytes that can be had without swapping."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _read_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
