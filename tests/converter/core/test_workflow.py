"""Workflows are checked without ever failing otherwise, changed without touching the original, told without secrets."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.workflow import (
    MAX_DEPTH,
    MAX_LISTED,
    MAX_MESSAGE,
    check,
    clip,
    fingerprint,
    freshen,
    is_link,
    prepare,
    replace_inputs,
    scrub,
    unwrap,
    wanted_outputs,
)
from converter.errors import InvalidWorkflow
from tests.converter.core.documents import drafts, exchanges, graphs, texts, values
from tests.fakes import recordings

GOOD: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
}


def refusal(graph: object) -> InvalidWorkflow:
    """The fault that a graph gets."""
    with pytest.raises(InvalidWorkflow) as caught:
        check(graph)
    return caught.value


def kinds(fault: InvalidWorkflow, node_id: str) -> list[str]:
    """The types of a node's errors."""
    return [error["type"] for error in fault.extensions["node_errors"][node_id]["errors"]]


# Checks ------------------------------------------------------------------------------------------------------------


def test_a_good_graph_comes_back_as_it_is() -> None:
    assert check(GOOD) is GOOD


@pytest.mark.parametrize("graph", [None, [], {}, "text", 5, [GOOD]])
def test_what_holds_no_nodes_is_refused(graph: object) -> None:
    fault = refusal(graph)
    assert "not an object that holds nodes" in fault.detail
    assert fault.extensions["node_errors"] == {}


def test_the_editors_own_file_is_told_how_to_export() -> None:
    fault = refusal({"last_node_id": 9, "nodes": [{"id": 1, "type": "KSampler"}], "links": [], "version": 0.4})
    assert "Workflow > Export (API)" in fault.detail


def test_nodes_may_be_called_nodes_and_links() -> None:
    check({"nodes": GOOD["1"], "links": GOOD["1"]})


def test_everything_wrong_is_told_at_once() -> None:
    fault = refusal(
        {
            "1": 5,
            "2": {"inputs": {}},
            "3": {"class_type": None, "inputs": []},
            "4": {"class_type": "SaveImage"},
            "5": {"class_type": "SaveImage", "inputs": {"images": ["99", 0], "other": ["98", 1.5], "ok": ["6", 0]}},
            "6": {"class_type": "PreviewAny", "inputs": {"source": {"__value__": ["a", 1]}}},
        }
    )
    assert kinds(fault, "1") == ["invalid_node"]
    assert kinds(fault, "2") == ["missing_class_type"]
    assert kinds(fault, "3") == ["invalid_class_type", "invalid_inputs"]
    assert kinds(fault, "4") == ["missing_inputs"]
    assert kinds(fault, "5") == ["missing_linked_node", "missing_linked_node"]
    assert kinds(fault, "6") == ["wrapped_link"]
    entry = fault.extensions["node_errors"]["5"]
    assert entry["class_type"] == "SaveImage"
    assert entry["errors"][0]["input_name"] == "images"
    assert entry["errors"][0]["details"] == "images: '99'"
    assert fault.extensions["node_errors"]["3"]["class_type"] is None
    assert fault.detail.startswith("The workflow can't be run: node 1: The node is not an object; node 2: ")
    assert fault.detail.endswith("; and more.")


def test_even_a_wrapped_link_to_a_node_that_exists_is_refused() -> None:
    fault = refusal(GOOD | {"3": {"class_type": "PreviewAny", "inputs": {"source": {"__value__": ["1", 0]}}}})
    assert kinds(fault, "3") == ["wrapped_link"]


@pytest.mark.parametrize(
    "value", [["1"], ["99", "0"], [99, 0], ["99", 0, 0], {"__value__": ["a", "b"]}, ["99", None], []]
)
def test_lists_that_the_engine_takes_for_no_link_are_left_to_it(value: object) -> None:
    check({"1": {"class_type": "X", "inputs": {"x": value}}})


def test_an_id_that_is_no_text_is_refused() -> None:
    assert kinds(refusal({7: {"class_type": "X", "inputs": {}}}), "7") == ["invalid_node_id"]


def test_a_fault_is_bounded_whatever_the_graph() -> None:
    fault = refusal({"n" * 10_000 + str(number): {"class_type": "C" * 10_000} for number in range(10_000)})
    assert len(json.dumps(fault.problem())) < MAX_LISTED * 1000
    many = refusal({str(number): 5 for number in range(1000)})
    assert len(many.extensions["node_errors"]) == MAX_LISTED


@pytest.mark.parametrize(("levels", "deep"), [(MAX_DEPTH - 3, False), (MAX_DEPTH - 2, True), (100_000, True)])
def test_nesting_has_a_bound(levels: int, deep: bool) -> None:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    graph = {"1": {"class_type": "X", "inputs": {"x": value}}}
    if deep:
        assert "levels deep" in refusal(graph).detail
    else:
        check(graph)


@given(values | drafts)
def test_any_json_passes_or_is_an_invalid_workflow(document: Any) -> None:
    before = copy.deepcopy(document)
    try:
        graph = check(document)
    except InvalidWorkflow as fault:
        json.dumps(fault.problem()).encode()
        for entry in fault.extensions["node_errors"].values():
            assert entry.keys() == {"class_type", "errors"}
            for error in entry["errors"]:
                assert {"type", "message", "details"} <= error.keys() <= {"type", "message", "details", "input_name"}
    else:
        assert all(isinstance(node["class_type"], str) for node in graph.values())
        for node in graph.values():
            for value in node["inputs"].values():
                assert not is_link(value) or value[0] in graph
                assert value is unwrap(value) or not is_link(unwrap(value))
    assert repr(document) == repr(before)


@given(graphs)
def test_a_right_graph_passes(graph: dict[str, Any]) -> None:
    assert check(graph) is graph


DEADLY = [
    "14-worker-death-bad-node-in-unused-part",
    "14-worker-death-link-to-missing-node-under-unknown-input",
    "14-worker-death-value-looks-like-link",
]


@pytest.mark.parametrize("name", DEADLY)
def test_what_killed_a_real_worker_is_refused(name: str) -> None:
    _, graph, status, _ = next(exchanges(name))
    assert status == 200
    refusal(graph)


@pytest.mark.parametrize("name", sorted(set(recordings.names()) - set(DEADLY)))
def test_what_a_real_engine_ran_is_not_refused(name: str) -> None:
    for note, graph, status, body in exchanges(name):
        if status == 200 and isinstance(graph, dict) and body.get("node_errors") == {}:
            assert check(graph) is graph, note


# Wanted outputs ----------------------------------------------------------------------------------------------------

CLASSES = frozenset({"SaveImage", "PreviewImage", "PreviewAny", "ShowNothing"})


def graph_of(*classes: str) -> dict[str, Any]:
    """Nodes 1, 2, ... of these classes."""
    return {str(number): {"class_type": kind, "inputs": {}} for number, kind in enumerate(classes, 1)}


@pytest.mark.parametrize(
    ("classes", "wanted"),
    [
        (["EmptyImage", "SaveImage", "SaveImage"], ("2", "3")),
        (["SaveImage", "PreviewImage"], ("1",)),
        (["PreviewImage", "PreviewImage"], ("1", "2")),
        (["PreviewAny", "PreviewImage"], ("1",)),
        (["SaveImage", "ShowNothing"], None),
        (["EmptyImage"], ()),
    ],
)
def test_outputs_are_told_where_the_graph_shows_them(classes: list[str], wanted: tuple[str, ...] | None) -> None:
    assert wanted_outputs(graph_of(*classes), None, CLASSES) == wanted


def test_outputs_are_not_told_where_the_classes_are_unknown() -> None:
    assert wanted_outputs(graph_of("SaveImage"), None, None) is None


def test_named_outputs_come_in_the_order_of_the_workflow() -> None:
    assert wanted_outputs(graph_of("SaveImage", "X", "SaveImage"), ["3", "1", "3"], None) == ("1", "3")


def test_named_outputs_must_exist_and_be_outputs() -> None:
    with pytest.raises(InvalidWorkflow) as caught:
        wanted_outputs(graph_of("SaveImage", "EmptyImage"), ["1", "2", "9"], CLASSES)
    assert kinds(caught.value, "2") == ["not_an_output"]
    assert kinds(caught.value, "9") == ["unknown_node"]
    assert "1" not in caught.value.extensions["node_errors"]


# Changes -----------------------------------------------------------------------------------------------------------


def save(prefix: object, **more: Any) -> dict[str, Any]:
    """A graph that saves under a prefix."""
    return {"9": {"class_type": "SaveImage", "inputs": {"filename_prefix": prefix}, **more}}


@pytest.mark.parametrize(
    ("prefix", "prepared"),
    [
        ("out", "out"),
        ("out_%batch_num%", "TAG/out_%batch_num%"),
        ("mine/deep/out_%batch_num%", "mine/deep/TAG/out_%batch_num%"),
        ("%batch_num%", "TAG/%batch_num%"),
        ("out_%batch_num%/", "TAG/out_%batch_num%"),
        ("out_%batch_num%/sub/..", "TAG/out_%batch_num%"),
        ("out_%batch_num%/plain", "out_%batch_num%/plain"),
        ("../out_%batch_num%", "../TAG/out_%batch_num%"),
        ({"__value__": "a/x%batch_num%"}, "a/TAG/x%batch_num%"),
        (["5", 0], ["5", 0]),
        (5, 5),
    ],
)
def test_a_numbered_prefix_gets_a_folder_of_its_own(prefix: object, prepared: object) -> None:
    assert prepare(save(prefix), "TAG") == save(prepared)


@pytest.mark.parametrize(
    ("prefix", "fresh"),
    [("out", "TAG/out"), ("mine/out", "mine/TAG/out"), ("TAG/x%batch_num%", "TAG/TAG/x%batch_num%"), ("", "TAG/.")],
)
def test_a_fresh_graph_saves_elsewhere(prefix: str, fresh: str) -> None:
    assert freshen(save(prefix), "TAG") == save(fresh)


def test_a_stale_is_changed_goes() -> None:
    graph = {**save("x", is_changed=["abc"], _meta={"title": "Save"})}
    assert prepare(graph, "TAG") == save("x", _meta={"title": "Save"})


def test_what_is_unchanged_is_shared() -> None:
    assert prepare(GOOD, "TAG")["2"] is GOOD["2"]


@given(graphs, st.sampled_from(["TAG", "0a1b"]))
def test_changes_never_touch_the_original_and_stay_right(graph: dict[str, Any], tag: str) -> None:
    before = copy.deepcopy(graph)
    prepared, fresh = prepare(graph, tag), freshen(graph, tag)
    assert graph == before
    for changed in (prepared, fresh):
        assert check(changed) is changed
        assert list(changed) == list(graph)
        assert not any("is_changed" in node for node in changed.values())
    for node in fresh.values():
        prefix = node["inputs"].get("filename_prefix")
        assert not isinstance(prefix, str) or prefix.split("/")[-2:][0] == tag or ".." in prefix


def test_inputs_are_replaced_in_a_copy() -> None:
    changed = replace_inputs(GOOD, {("1", "width"): 8, ("1", "new"): "x", ("2", "filename_prefix"): "y"})
    assert changed["1"]["inputs"] == {"width": 8, "height": 64, "batch_size": 1, "color": 0, "new": "x"}
    assert changed["2"]["inputs"]["filename_prefix"] == "y"
    assert GOOD["1"]["inputs"]["width"] == 64
    assert replace_inputs(GOOD, {}) == GOOD


# Fingerprints ------------------------------------------------------------------------------------------------------


def backwards(value: Any) -> Any:
    """The same with the keys of all objects in the opposite order."""
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in reversed(list(value))}
    return [backwards(item) for item in value] if isinstance(value, list) else value


@given(drafts)
def test_the_order_of_keys_makes_no_difference(graph: dict[str, Any]) -> None:
    assert fingerprint(graph) == fingerprint(backwards(graph))


@pytest.mark.parametrize("other", [{"width": 65}, {"width": "64"}, {"width": 64.0}, {"more": 1}])
def test_every_value_makes_a_difference(other: dict[str, Any]) -> None:
    changed = replace_inputs(GOOD, {("1", name): value for name, value in other.items()})
    assert fingerprint(changed) != fingerprint(GOOD)
    assert len(fingerprint(GOOD)) == 64


# What callers are told ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("cannot identify image file '/data/input/broken.png'\n", "cannot identify image file 'broken.png'"),
        (
            "**** ERROR: Saving image outside the output folder is not allowed.\n full_output_folder: /data/x\n",
            "**** ERROR: Saving image outside the output folder is not allowed. full_output_folder: …",
        ),
        ("folder=/data/x, other:/srv/y", "folder=…, other:…"),
        (r"File C:\Users\John Smith\ComfyUI (x86)\nodes.py line 3", "File nodes.py line 3"),
        (r"'C:\\Users\\x\\y.py'", "'y.py'"),
        (r"no \\server\share\a.png there", "no a.png there"),
        ("file:///etc/passwd", "…"),
        ("sqlite:////srv/my/jobs.db is locked", "sqlite:jobs.db is locked"),
        ("File:///srv/my%20models/x.bin", "x.bin"),
        ("~/x/y.bin, /a/b, /c/d.txt (in /opt/my models/x.ckpt)", "y.bin, …, d.txt (in x.ckpt)"),
        ("can't open '/home/me/my pics, old/a b.png'", "can't open 'a b.png'"),
        ("see https://host.example/a/b.html?x=/y", "see https://host.example/a/b.html?x=/y"),
        ("64 / 8, and/or n/a, ./x ../y models/z.safetensors", "64 / 8, and/or n/a, ./x ../y models/z.safetensors"),
        ("'images' object has no attribute 'shape'", "'images' object has no attribute 'shape'"),
        ("\x1b[31mred\x00 \ud800 猫", "[31mred 猫"),
        ("", ""),
    ],
)
def test_server_paths_are_not_told(message: str, told: str) -> None:
    assert scrub(message) == told


@given(st.lists(st.sampled_from(["root", "my models", "a.b", "ü", "(x)", "x,y"]), min_size=1, max_size=5), texts)
def test_no_folder_of_a_path_is_told(folders: list[str], around: str) -> None:
    secret = "/srv-secret/" + "/".join(folders) + "/file.bin"
    for message in (f"{around} {secret}", f"in {secret}: {around}", f"'{secret}'", f"at (file://{secret})"):
        assert "secret" not in scrub(message)


@given(st.text())
def test_what_is_told_is_one_bounded_line(text: str) -> None:
    for told in (scrub(text), clip(text)):
        assert told.isprintable() or told == ""
        assert len(told) <= MAX_MESSAGE
        told.encode()


def test_a_long_message_is_cut() -> None:
    assert scrub("x" * 5000) == "x" * (MAX_MESSAGE - 1) + "…"
    assert clip("abc", 2) == "a…"
