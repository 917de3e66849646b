"""JSON documents for tests: any at all, graphs that are right or nearly so, and what a real ComfyUI was asked."""

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from tests.fakes import recordings

texts = st.text(max_size=12) | st.sampled_from(
    ["1", "2", "3.0.1", "text", "image", "temp", "..", "/a/b", "a.png", "\ud800"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
"""Any JSON value, lone surrogates and the bare NaN of Python's parser included."""

_ids = st.sampled_from(["1", "2", "3", "4.0", "x"])
_links = st.tuples(_ids, st.integers(0, 3)).map(list)
_inputs = st.dictionaries(
    st.sampled_from(["image", "text", "filename_prefix", "seed"]),
    values | _links | _links.map(lambda link: {"__value__": link}) | texts.map(lambda text: {"__value__": text}),
    max_size=4,
)
_classes = st.sampled_from(["LoadImage", "SaveImage", "PreviewImage", "KSampler", "Custom"])


def _nodes(inputs: st.SearchStrategy[Any], classes: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    required = {"class_type": classes, "inputs": inputs}
    return st.fixed_dictionaries(required, optional={"is_changed": values, "_meta": values})


graphs: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    _ids,
    _nodes(st.dictionaries(st.sampled_from(["image", "filename_prefix", "text"]), texts | st.integers()), _classes),
    min_size=1,
)
"""Graphs that are right: they pass every check."""

drafts: st.SearchStrategy[Any] = st.dictionaries(_ids, _nodes(_inputs | values, _classes | values) | values, max_size=4)
"""Graphs that are nearly right."""


def exchanges(name: str) -> Iterator[tuple[str, Any, int, Any]]:
    """The prompts of a recording: the note before each, its graph, and the status and body of its answer."""
    note, graph = "", None
    for row in recordings.load(name):
        if row["kind"] == "note":
            note = row["text"]
        elif row["kind"] == "http_request":
            body = row["body"]
            graph = body.get("prompt") if row["path"] == "/prompt" and isinstance(body, dict) else None
        elif row["kind"] == "http_response" and graph is not None:
            yield note, graph, row["status"], row["body"]
