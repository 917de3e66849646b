"""Comfy API v2 in words: each decision by itself."""

import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core import comfyapi
from converter.core.comfyapi import Named, Record
from converter.core.outputs import FileRef, Kind, Output
from converter.errors import Canceled, ExecutionFailed, Expired, InvalidWorkflow, NotFound, OutOfMemory, QueueFull

RECORD = Record("tag-1", "", 1_700_000_000.0, 1_700_000_600.5)
TEXTS = st.text(max_size=20)
FILES = st.builds(FileRef, TEXTS, TEXTS, st.sampled_from(["output", "temp", "input"]))
INTEGERS = st.integers(0, 2**40)
KINDS: st.SearchStrategy[Kind] = st.sampled_from(["image", "text"])
MOMENTS = st.floats(0, 2**33, allow_nan=False)


def reference(id: str) -> dict[str, Any]:
    return {"__type": "core/ASSET", "info": {"id": id, "hash": "blake3:1", "file_path": "a.png"}}


@given(st.builds(Named, TEXTS, TEXTS, INTEGERS, TEXTS, TEXTS, INTEGERS, MOMENTS, MOMENTS, KINDS, st.none() | FILES))
def test_what_an_id_says_is_what_it_was_made_of(named: Named) -> None:
    assert Named.decode(named.encode()) == named


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("waiting", "queued"),
        ("staging", "queued"),
        ("restarted", "queued"),
        ("running", "running"),
        ("collecting", "running"),
        ("succeeded", "succeeded"),
        ("failed", "failed"),
        ("canceled", "canceled"),
    ],
)
def test_states_have_their_words(state: str, status: str) -> None:
    assert comfyapi.call_state(state) == status
    assert Record("1", "", 0.0, 1.0, status=status).ended is (status in ("succeeded", "failed", "canceled"))


def test_times_are_of_utc() -> None:
    assert comfyapi.show_time(1_700_000_000.25) == "2023-11-14T22:13:20.250+00:00"
    assert comfyapi.show_time(None) is None


@pytest.mark.parametrize(
    ("class_type", "step", "message"),
    [(None, None, None), ("KSampler", None, "KSampler"), ("KSampler", 3, "KSampler 3/20")],
)
def test_progress_says_in_words_where_it_is(class_type: str | None, step: int | None, message: str | None) -> None:
    snapshot = {"value": 0.5, "nodes_done": 1, "nodes_total": 2, "node_id": "3", "class_type": class_type}
    shown = comfyapi.show_progress({**snapshot, "step": step, "steps": None if step is None else 20})
    assert (shown["current_node"], shown["current_node_class"], shown["message"]) == ("3", class_type, message)


def test_only_queued_jobs_have_a_position() -> None:
    assert comfyapi.show_job(RECORD, (), 3)["queue_position"] == 3
    running = Record("tag-1", "", 0.0, 1.0, status="running")
    assert comfyapi.show_job(running, (), 3)["queue_position"] is None


@pytest.mark.parametrize(
    ("completed", "started", "updated"), [(None, None, 0.0), (None, 5.0, 5.0), (9.0, 5.0, 9.0), (9.0, None, 9.0)]
)
def test_a_summary_says_when_something_happened_last(
    completed: float | None, started: float | None, updated: float
) -> None:
    record = Record("1", "", 0.0, 99.0, started=started, completed=completed)
    assert comfyapi.show_summary(record)["update_time"] == comfyapi.show_time(updated)


def test_what_has_not_begun_has_not_been_executed() -> None:
    times = {"waiting": 1.0, "staging": 0.5, "queued": 0.25, "executing": 2.0, "collecting": 0.0}
    assert comfyapi.measure(times, 10.0, begun=False) == (None, {"queue_ms": 1750, "execution_ms": None})
    assert comfyapi.measure(times, 10.0, begun=True) == (11.75, {"queue_ms": 1750, "execution_ms": 2000})


def test_all_labels_must_be_there() -> None:
    record = Record("1", "", 0.0, 1.0, labels={"a": "1", "b": "2"})
    assert comfyapi.matches(record, {})
    assert comfyapi.matches(record, {"a": "1"})
    assert not comfyapi.matches(record, {"a": "1", "c": "2"})


def test_faults_have_the_codes_of_the_api() -> None:
    assert comfyapi.call_fault(QueueFull("full", retry_after=1)) == (429, "queue_full")
    assert comfyapi.call_fault(Expired("gone")) == (404, "not_found")
    assert comfyapi.call_fault(comfyapi.ui_export()) == (422, "workflow_format_ui")
    assert comfyapi.call_fault(comfyapi.missing_assets(["a"])) == (422, "missing_asset")


def test_details_are_what_helps() -> None:
    shown = comfyapi.show_fault(NotFound("nothing", location="/secret"))
    assert shown == {"error": {"code": "not_found", "message": "nothing", "details": None}}
    errors = {"1": {"class_type": "A", "errors": []}}
    assert comfyapi.show_fault(InvalidWorkflow("no", node_errors=errors))["error"]["details"] == {"node_errors": errors}


def test_a_failure_says_which_node_it_was() -> None:
    raised = comfyapi.show_failure(ExecutionFailed("boom", node_id="3", class_type="KSampler"))
    assert raised is not None
    assert (raised["code"], raised["node_id"], raised["class_type"]) == ("node_execution_error", "3", "KSampler")
    refused = comfyapi.show_failure(InvalidWorkflow("no", node_errors={"4": {"class_type": "A", "errors": []}}))
    assert refused is not None
    assert (refused["code"], refused["node_id"], refused["class_type"]) == ("invalid_workflow", "4", "A")
    assert comfyapi.show_failure(OutOfMemory("full")) == {
        "code": "out_of_memory",
        "message": "full",
        "node_id": None,
        "class_type": None,
        "traceback": None,
    }
    assert comfyapi.show_failure(Canceled("by request")) is None


@pytest.mark.parametrize(
    ("workflow", "ui"),
    [({"nodes": [], "links": []}, True), ({"nodes": []}, False), ({"nodes": {}, "links": {}}, False), ({}, False)],
)
def test_the_format_of_the_editor_is_known(workflow: dict[str, Any], ui: bool) -> None:
    assert comfyapi.is_ui_export(workflow) is ui


VALUES = st.recursive(
    st.none() | st.integers() | st.text(string.ascii_letters, max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(string.ascii_letters, max_size=3), inner),
    max_leaves=5,
)
WORKFLOWS = st.dictionaries(
    st.text(string.digits, min_size=1, max_size=2),
    st.fixed_dictionaries({"class_type": st.just("A"), "inputs": st.dictionaries(st.sampled_from("abc"), VALUES)}),
    max_size=4,
)


@given(WORKFLOWS, st.data())
def test_every_reference_becomes_a_part_and_nothing_else_changes(workflow: dict[str, Any], data: st.DataObject) -> None:
    wraps = [lambda value: value, lambda value: [value, 1], lambda value: {"a": [{"b": value}]}]
    ids: list[str] = []

    def put(value: Any, mark: bool) -> tuple[Any, Any]:
        """What stands in the workflow, and what is to stand in its place."""
        if not mark:
            return value, value
        ids.append(data.draw(st.sampled_from(["x", "y", "z"])))
        wrap = data.draw(st.sampled_from(wraps))
        return wrap(reference(ids[-1])), wrap({"part": ids[-1]})

    given, expected = {}, {}
    for id, node in workflow.items():
        values = {name: put(value, data.draw(st.booleans())) for name, value in node["inputs"].items()}
        given[id] = {**node, "inputs": {name: before for name, (before, _) in values.items()}}
        expected[id] = {**node, "inputs": {name: after for name, (_, after) in values.items()}}
    found, problems = comfyapi.find_references(given)
    assert (sorted(found), problems) == (sorted(set(ids)), [])
    assert comfyapi.replace_references(given) == expected


@pytest.mark.parametrize(
    "info", [{}, {"info": {"id": ""}}, {"info": {"id": 3}}, {"info": {"id": "\ud800"}}, {"info": []}]
)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [{"a": value}]], ids=["whole", "within"])
def test_other_references_are_named(info: Any, wrap: Callable[[Any], Any]) -> None:
    value = wrap({"__type": "core/ASSET", **info})
    found, [problem] = comfyapi.find_references({"7": {"class_type": "A", "inputs": {"image": value}}})
    assert found == []
    assert "node 7, input image" in problem
    assert "info.id" in problem


def test_outputs_have_addresses_and_say_when_these_end() -> None:
    file = FileRef("a.png", "", "output")
    named = Named("tag-1", "", 0, "a.png", "image/png", 7, 1_700_000_000.0, 1_700_000_600.0, "image", file)
    assert named.output == Output("", None, "a.png", "image", "image/png", file=file)
    asset = comfyapi.show_named(named, "the-id", "http://a/b", "2023-11-14T22:13:20Z")
    assert (asset["id"], asset["url"], asset["url_expires_at"]) == ("the-id", "http://a/b", "2023-11-14T22:13:20Z")
    assert (asset["size_bytes"], asset["job_id"]) == (7, "tag-1")
    kept = {"node_id": "2", "name": "a", "type": "text", "content_type": "text/plain", "size_bytes": 5, "id": "the-id"}
    shown = comfyapi.show_output({**kept, "text": "words"}, "tag-1", "http://a/b", None)
    assert shown == {**kept, "hash": None, "url": "http://a/b", "url_expires_at": None, "job_id": "tag-1"}


def test_uploads_and_outputs_are_told_apart_by_their_ids() -> None:
    assert comfyapi.is_named("tag-said.mark")
    assert not comfyapi.is_named("tag-0123")


def test_refusals_have_the_codes_of_the_api() -> None:
    faults = (comfyapi.hash_mismatch("blake3:1"), comfyapi.asset_in_use(), comfyapi.blob_not_found())
    assert [comfyapi.call_fault(fault) for fault in faults] == [
        (409, "hash_mismatch"),
        (409, "asset_in_use"),
        (404, "blob_not_found"),
    ]


def test_what_is_no_node_is_passed_over() -> None:
    assert comfyapi.find_references({"1": 2, "2": {}, "3": {"inputs": []}}) == ([], [])
