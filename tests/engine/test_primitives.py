"""Nodes that hold one value."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import RefusedError
from engine.graph import validate
from engine.nodes.registry import list_nodes
from tests.engine.graphs import make_folders, node
from tests.engine.running import run_graph


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("String", "a", "a"),
        ("StringMultiline", "a\nb", "a\nb"),
        ("String", 5, "5"),
        ("Int", "64", "64"),
        ("Int", 8.9, "8"),
        ("Int", sys.maxsize, str(sys.maxsize)),
        ("Float", 3, "3.0"),
        ("Float", "2.5", "2.5"),
        ("Boolean", True, "True"),
        ("Boolean", 0, "False"),
    ],
)
def test_a_value_comes_out_as_its_type(tmp_path: Path, kind: str, value: object, shown: str) -> None:
    graph = {"1": node(f"Primitive{kind}", value=value), "2": node("PreviewAny", source=["1", 0])}
    assert run_graph(graph, make_folders(tmp_path))["outputs"] == {"2": {"text": [shown]}}


def test_one_number_for_several_inputs(tmp_path: Path) -> None:
    folders = make_folders(tmp_path)
    graph = {
        "1": node("PrimitiveInt", value=7),
        "2": node("PrimitiveString", value="side"),
        "3": node("EmptyImage", width=["1", 0], height=["1", 0], batch_size=1, color=0),
        "4": node("SaveImage", images=["3", 0], filename_prefix=["2", 0]),
    }
    [shown] = run_graph(graph, folders)["outputs"]["4"]["images"]
    assert shown["filename"] == "side_00001_.png"


@pytest.mark.parametrize(
    ("kind", "value", "complaint"),
    [
        ("Int", "x", "invalid_input_type"),
        ("Int", sys.maxsize + 1, "value_bigger_than_max"),
        ("Float", "x", "invalid_input_type"),
        ("Float", -1e30, "value_smaller_than_min"),
    ],
)
def test_what_is_no_such_value_is_refused(tmp_path: Path, kind: str, value: object, complaint: str) -> None:
    graph = {"1": node(f"Primitive{kind}", value=value), "2": node("PreviewAny", source=["1", 0])}
    with pytest.raises(RefusedError) as refusal:
        validate(graph, list_nodes(), make_folders(tmp_path))
    errors: Any = refusal.value.body["node_errors"]
    assert errors["1"]["errors"][0]["type"] == complaint
