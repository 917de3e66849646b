"""Everything that a prompt made is listed, in one order, whatever else the engine put beside it."""

import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.outputs import FileRef, Output, collect, name_entries
from tests.converter.core.documents import graphs, texts, values
from tests.fakes import recordings

GRAPH: dict[str, Any] = {
    number: {"class_type": class_type, "inputs": {}}
    for number, class_type in {"9": "SaveImage", "4": "Expands", "10": "PreviewAny", "2": "PreviewImage"}.items()
}


def file(name: str, folder: str = "output", subfolder: str = "") -> dict[str, str]:
    """An entry as SaveImage writes it."""
    return {"filename": name, "subfolder": subfolder, "type": folder}


def names(outputs: object, nodes: list[str] | None = None) -> list[str]:
    """The names of what is collected."""
    return [output.name for output in collect(GRAPH, outputs, nodes)]


def one(key: str, entry: object) -> Output:
    """The only output of a node that lists one entry."""
    [output] = collect(GRAPH, {"9": {key: [entry]}})
    return output


def test_a_picture_is_told_whole() -> None:
    assert one("images", file("a_00001_.png", subfolder="sub/dir")) == Output(
        "9", "SaveImage", "a_00001_.png", "image", "image/png", FileRef("a_00001_.png", "sub/dir", "output")
    )


def test_a_text_is_told_whole() -> None:
    [output] = collect(GRAPH, {"10": {"text": ["hello"]}})
    assert output == Output("10", "PreviewAny", "text_00001.txt", "text", "text/plain; charset=utf-8", text="hello")


@pytest.mark.parametrize(
    ("key", "name", "kind", "content_type"),
    [
        ("images", "a.PNG", "image", "image/png"),
        ("images", "a.webp", "image", "image/webp"),
        ("images", "a.mp4", "video", "video/mp4"),
        ("gifs", "a.gif", "image", "image/gif"),
        ("gifs", "a.webm", "video", "video/webm"),
        ("audio", "a.flac", "audio", "audio/flac"),
        ("audio", "a.mp4", "audio", "audio/mp4"),
        ("audio", "a.webm", "audio", "audio/webm"),
        ("audio", "a.mp3", "audio", "audio/mpeg"),
        ("latents", "a.latent", "latent", "application/octet-stream"),
        ("3d", "a.glb", "file", "model/gltf-binary"),
        ("result", "a.obj", "file", "model/obj"),
        ("files", "a.txt", "text", "text/plain; charset=utf-8"),
        ("images", "a", "image", "application/octet-stream"),
        ("audio", "a.raw", "audio", "application/octet-stream"),
        ("gifs", "a.xyz", "video", "application/octet-stream"),
        ("latents", "a.bin", "latent", "application/octet-stream"),
        ("odd", "a.bin", "file", "application/octet-stream"),
        ("odd", "a.", "file", "application/octet-stream"),
    ],
)
def test_kind_and_type_by_suffix_then_key(key: str, name: str, kind: str, content_type: str) -> None:
    output = one(key, file(name))
    assert (output.kind, output.content_type, output.text) == (kind, content_type, None)


@pytest.mark.parametrize(
    "ui",
    [
        {"animated": [True], "images": [file("a.png")]},
        {"images": [file("a.png")], "unknown": [1, None, "x", {"filename": 5}], "workflow": {"filename": "b.png"}},
        {"images": [file("a.png") | {"format": "image/png", "fullpath": "/srv/out/a.png", "frame_rate": 8}]},
        {"images": [{"filename": "a.png"}]},
        {"images": [{"filename": "a.png", "subfolder": None, "type": None}]},
        {"any key at all": [file("a.png")]},
        {"images": [file("a.png")], "text": "not a list", "tags": ["x"]},
    ],
)
def test_what_stands_beside_a_file_is_passed_over(ui: object) -> None:
    assert names({"9": ui}) == ["a.png"]


def test_half_a_character_of_a_text_is_replaced() -> None:
    [output] = collect(GRAPH, {"10": {"text": ["a\ud800b\U0001f600"]}})
    assert output.text == "a\ufffdb\U0001f600"


def test_texts_may_be_numbers_and_are_numbered() -> None:
    found = collect(GRAPH, {"10": {"text": ["a", 5, 0.5, True, None, ["x"]]}, "4": {"text": ["first"]}})
    assert [(output.name, output.text) for output in found] == [
        ("text_00001.txt", "first"),
        ("text_00002.txt", "a"),
        ("text_00003.txt", "5"),
        ("text_00004.txt", "0.5"),
        ("text_00005.txt", "True"),
    ]


def test_order_is_that_of_the_workflow_then_of_the_engine() -> None:
    outputs = {
        "4": {"images": [file("c.png")]},
        "new": {"images": [file("z.png")]},
        "9": {"images": [file("b.png"), file("a.png")], "audio": [file("d.mp3")]},
    }
    assert names(outputs) == ["b.png", "a.png", "d.mp3", "c.png", "z.png"]


def test_nodes_put_in_at_run_time_stand_where_the_visible_one_does() -> None:
    outputs = {
        "10": {"text": ["x"]},
        "4.0.0.10": {"images": [file("ten.png")]},
        "4.0.0.2": {"images": [file("two.png")]},
        "4": {"images": [file("own.png")]},
        "9": {"images": [file("nine.png")]},
    }
    found = collect(GRAPH, outputs)
    assert [output.name for output in found] == ["nine.png", "own.png", "two.png", "ten.png", "text_00001.txt"]
    assert [(output.node_id, output.class_type) for output in found][1:4] == [("4", "Expands")] * 3


def test_an_id_with_dots_in_the_workflow_itself_is_that_node() -> None:
    graph = {"4": GRAPH["4"], "4.0": {"class_type": "SaveImage", "inputs": {}}}
    [output] = collect(graph, {"4.0.1": {"images": [file("a.png")]}})
    assert (output.node_id, output.class_type) == ("4.0", "SaveImage")


def test_a_node_that_nobody_knows_is_told_at_the_end_without_class() -> None:
    [output] = collect(GRAPH, {"7.1": {"images": [file("a.png")]}})
    assert (output.node_id, output.class_type) == ("7.1", None)


TEMPORARY = {"9": {"images": [file("a.png")]}, "2": {"images": [file("p.png", "temp")]}}


@pytest.mark.parametrize(
    ("outputs", "nodes", "told"),
    [
        (TEMPORARY, None, ["a.png"]),
        (TEMPORARY, ["2"], ["p.png"]),
        (TEMPORARY, ["2", "9"], ["a.png", "p.png"]),
        (TEMPORARY, ["4"], []),
        (TEMPORARY, [], []),
        ({"2": TEMPORARY["2"]}, None, ["p.png"]),
        ({"2": TEMPORARY["2"], "10": {"text": ["x"]}}, None, ["text_00001.txt"]),
        ({"9": {"images": [file("a.png", "input"), file("b.png")]}}, None, ["b.png"]),
        ({}, None, []),
    ],
)
def test_previews_are_told_if_named_or_alone(outputs: object, nodes: list[str] | None, told: list[str]) -> None:
    assert names(outputs, nodes) == told


@pytest.mark.parametrize(
    "entry",
    [
        file(""),
        file("."),
        file(".."),
        file("../a.png"),
        file("/etc/passwd"),
        file("sub/a.png"),
        file("sub\\a.png"),
        file("a\n.png"),
        file("a\ud800.png"),
        file("x" * 252 + ".png"),
        file("a.png", subfolder="../up"),
        file("a.png", subfolder="a/../../b"),
        file("a.png", subfolder="a\\..\\b"),
        file("a.png", subfolder="/abs"),
        file("a.png", subfolder="C:\\abs"),
        file("a.png", subfolder="\\\\server"),
        file("a.png", subfolder="x\0y"),
        file("a.png", subfolder="x/" * 3000),
        file("a.png", "models"),
        {"filename": ["a.png"]},
        {"filename": "a.png", "subfolder": 5},
        {"filename": "a.png", "type": ["output"]},
        "a.png",
        ["a.png"],
        5,
    ],
)
def test_what_leads_out_of_the_folders_or_names_no_file_is_dropped(entry: object) -> None:
    assert names({"9": {"images": [entry, file("good.png")]}}) == ["good.png"]


@pytest.mark.parametrize("name", ["a b.png", "猫　犬_00001_.png", "a..b.png", ".hidden.png", "x" * 251 + ".png"])
def test_odd_names_are_kept(name: str) -> None:
    assert one("images", file(name, subfolder="Wïndows\\dir")).file == FileRef(name, "Wïndows\\dir", "output")


@pytest.mark.parametrize("outputs", [None, [], "x", 5, {"9": None}, {"9": []}, {"9": {"images": None}}, {"9": {}}])
def test_nothing_is_nothing(outputs: object) -> None:
    assert collect(GRAPH, outputs) == ()


# Any answer --------------------------------------------------------------------------------------------------------

entries = (
    st.fixed_dictionaries({"filename": texts | values}, optional={"subfolder": texts | values, "type": texts | values})
    | values
)
documents = st.dictionaries(
    st.sampled_from(["1", "2", "4.0.0.1", "4.0", "x", "."]) | texts,
    st.dictionaries(st.sampled_from(["images", "text", "audio", "odd"]), st.lists(entries, max_size=3) | values)
    | values,
    max_size=4,
)


@given(graphs, documents | values, st.none() | st.lists(st.sampled_from(["1", "2", "4.0"])))
def test_any_answer_makes_a_list(graph: dict[str, Any], outputs: Any, nodes: list[str] | None) -> None:
    for output in collect(graph, outputs, nodes):
        assert (output.file is None) != (output.text is None)
        assert nodes is None or output.node_id in nodes
        assert output.class_type == graph.get(output.node_id, {"class_type": None})["class_type"]
        if output.file:
            assert not set("/\\\0") & set(output.file.filename)
            assert ".." not in output.file.subfolder.replace("\\", "/").split("/")
            output.file.filename.encode()


@given(graphs, documents, st.randoms(use_true_random=False))
def test_the_order_in_which_nodes_are_reported_makes_no_difference(
    graph: dict[str, Any], outputs: dict[str, Any], chance: random.Random
) -> None:
    shuffled = list(outputs.items())
    chance.shuffle(shuffled)
    assert repr(collect(graph, dict(shuffled))) == repr(collect(graph, outputs))


def told_twice() -> Iterator[tuple[dict[str, Any], Any, Any]]:
    """Graph, outputs in the history and outputs in the messages of each recorded prompt that succeeded."""
    heard: dict[str, dict[str, Any]] = {}
    for row in (row for name in recordings.names() for row in recordings.load(name)):
        message, body = row.get("msg") or {}, row.get("body")
        if row["kind"] == "ws_text" and message.get("type") == "executed" and message["data"]["output"]:
            heard.setdefault(message["data"]["prompt_id"], {})[message["data"]["node"]] = message["data"]["output"]
        elif row["kind"] == "http_response" and isinstance(body, dict):
            for prompt_id, record in body.items():
                cut = prompt_id not in heard or not isinstance(record, dict) or "prompt" not in record
                if not cut and record["status"]["status_str"] == "success" and isinstance(record["prompt"][2], dict):
                    yield record["prompt"][2], record["outputs"], heard[prompt_id]


def test_recorded_histories_and_messages_tell_the_same() -> None:
    compared = 0
    for graph, recorded, heard in told_twice():
        assert collect(graph, recorded) == collect(graph, heard) != ()
        compared += 1
    assert compared >= 7


@given(st.lists(st.sampled_from(["a.png", "a_2.png", "a_2_2.png", "a", "a.", ".a", "a.b.c", "ü 1.mp4"]), max_size=12))
def test_every_output_has_a_name_of_its_own(given_names: list[str]) -> None:
    outputs = [Output("1", None, name, "file", "application/octet-stream", text="") for name in given_names]
    found = name_entries(outputs)
    assert len(set(found)) == len(given_names)
    for name, own in zip(found, given_names, strict=True):
        assert re.fullmatch(re.escape(own) + "|" + r".+(_\d+)+(\.\w+)?", name)
