"""All node classes of the fake engine, and how `/object_info` shows them."""

from typing import Any

from tests.fakes.extensions import EXTENSIONS
from tests.fakes.mischief import MISCHIEF
from tests.fakes.nodes import CORE

CLASSES = {**CORE, **MISCHIEF, **EXTENSIONS}


def describe(name: str) -> dict[str, Any]:
    """The class's entry in `/object_info`."""
    node = CLASSES[name]
    kinds = {"required": node.required, "optional": node.optional}
    inputs = {kind: {key: list(config) for key, config in table.items()} for kind, table in kinds.items() if table}
    return {
        "input": inputs,
        "input_order": {kind: list(table) for kind, table in inputs.items()},
        "output": list(node.returns),
        "output_is_list": [False] * len(node.returns),
        "output_name": list(node.returns),
        "name": name,
        "display_name": name,
        "description": "",
        "python_module": "nodes",
        "category": "image",
        "output_node": node.output,
    }
