"""Drafts: what a person would have declared for common workflows, and a template for any."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.catalog import Catalog, Kind, Port
from converter.core.draft import draft
from converter.core.template import Template
from converter.core.template_toml import parse
from converter.core.workflow import check
from converter.errors import InvalidWorkflow
from tests.converter.core.documents import values

SHIPPED = Path(__file__).parents[3] / "workflows"


def declare(graph: dict[str, Any], catalog: Catalog | None = None) -> dict[str, Any]:
    """The values of a draft, which is known to be a declaration."""
    text = draft(check(graph), catalog or Catalog(), "A title")
    declaration = tomllib.loads(text)
    parse("t", graph, declaration)
    return declaration


def node(class_type: str, title: str | None = None, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs} | ({} if title is None else {"_meta": {"title": title}})


def shipped(name: str) -> tuple[dict[str, Any], Template]:
    graph = json.loads((SHIPPED / f"{name}.json").read_text())
    return graph, parse(name, graph, tomllib.loads((SHIPPED / f"{name}.toml").read_text()))


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.json")))
def test_what_ships_is_drafted_much_as_it_was_written(name: str) -> None:
    graph, template = shipped(name)
    inputs = declare(graph)["inputs"]
    drafted = {place for table in inputs.values() for place in [table["node"]]}
    written = {".".join(place) for hole in template.inputs for place in hole.places}
    assert written - drafted <= {"10.weight_dtype"}
    for hole in template.inputs:
        for found in inputs.values():
            if found["node"] == ".".join(hole.places[0]):
                assert found["type"] == hole.type, hole.name
    assert inputs["prompt"]["type"] == "string"
    assert "default" not in inputs["prompt"]


def test_names_and_roles_come_from_links_titles_and_inputs() -> None:
    graph = {
        "1": node("CLIPTextEncode", text="good", clip=["9", 1]),
        "2": node("CLIPTextEncode", text="bad", clip=["9", 1]),
        "3": node("ControlNetApply", positive=["1", 0], negative=["2", 0]),
        "4": node("KSampler", seed=1, steps=20, positive=["3", 0], negative=["3", 1]),
        "5": node("KSampler", seed=2, steps=9, positive=["1", 0], negative=["2", 0]),
        "6": node("LoadImage", "Photo of a cat", image="cat.png"),
        "7": node("LoadVideo", file="a.mp4"),
        "8": node("PrimitiveInt", "How many?", value=3),
        "9": node("CheckpointLoaderSimple", ckpt_name="x"),
        "10": node("SaveImage", "Final picture", images=["6", 0], filename_prefix="a"),
        "11": node("SaveImage", images=["6", 0], filename_prefix="b"),
        "12": node("CLIPTextEncode", "Negative too", text="worse", clip=["9", 1]),
        "13": node("Odd", "Titled", mode="a", number=1),
    }
    found = declare(graph)
    assert {name: table["node"] for name, table in found["inputs"].items()} == {
        "prompt": "1.text",
        "prompt_2": "2.text",  # both reach both ends of node 4: only a person can tell
        "seed": ["4.seed", "5.seed"],
        "steps": "4.steps",
        "steps_2": "5.steps",
        "photo_of_a_cat": "6.image",
        "video": "7.file",
        "how_many": "8.value",
        "model": "9.ckpt_name",
        "negative": "12.text",
        "titled_number": "13.number",
    }
    assert found["inputs"]["model"]["choices"] == "models/checkpoints"
    assert found["inputs"]["negative"]["default"] == "worse"
    assert found["outputs"] == {"final_picture": {"node": "10"}, "saveimage": {"node": "11"}}


def test_what_the_engine_says_is_used() -> None:
    kinds: dict[str, Kind | None] = {
        "KSampler": Kind({"steps": Port("INT", minimum=2, maximum=99), "cfg": Port("FLOAT", maximum=9.5)}),
        "Mine": Kind(
            {
                "mode": Port("COMBO", ("a", "b")),
                "on": Port("BOOLEAN"),
                "note": Port("STRING"),
                "size": Port("INT", minimum=1),
                "sound": Port("COMBO", media="audio"),
            },
            title="My node",
        ),
        "Plain": Kind({}, title="Plain"),
        "Writer": Kind({}, is_output=True),
        "SaveNothing": Kind({}),
    }
    graph = {
        "1": node("KSampler", steps=20, cfg=7),
        "2": node("Mine", "Knobs", mode="a", on=True, note="x", size=3, sound="a.mp3", rest=None),
        "3": node("Mine", "My node", mode="a"),
        "4": node("Plain", "Plain", value=1),
        "5": node("Writer", a=["4", 0]),
        "6": node("Writer", a=["4", 0]),
        "7": node("SaveNothing"),
    }
    found = declare(graph, Catalog(kinds))
    assert found["inputs"]["steps"] | {"description": ""} == {
        "type": "integer",
        "node": "1.steps",
        "default": 20,
        "minimum": 2,
        "maximum": 99,
        "description": "",
    }
    assert (found["inputs"]["cfg"]["type"], found["inputs"]["cfg"]["maximum"]) == ("number", 9.5)
    assert {name: table["type"] for name, table in found["inputs"].items() if table["node"].startswith("2.")} == {
        "knobs_mode": "choice",
        "knobs_on": "boolean",
        "knobs_note": "string",
        "knobs_size": "integer",
        "knobs": "audio",
    }
    assert not any(table["node"][0] in "34" for table in found["inputs"].values())
    assert list(found["outputs"].values()) == [{"node": "5"}, {"node": "6"}]


def test_steps_are_drafted_where_the_value_goes_by_them() -> None:
    ports = {
        "width": Port("INT", minimum=16, step=8.0),
        "height": Port("INT", minimum=16, step=8),
        "length": Port("INT", minimum=1, step=4),
        "steps": Port("INT", minimum=1, step=1),
        "cfg": Port("FLOAT", minimum=0, step=2),
    }
    graph = {"1": node("Video", width=512, height=500, length=33, steps=20, cfg=4)}
    found = declare(graph, Catalog({"Video": Kind(ports)}))["inputs"]
    assert {name: table.get("step") for name, table in found.items()} == {**dict.fromkeys(ports), "width": 8}


def test_what_is_not_guessed_is_listed() -> None:
    text = draft({"1": node("Odd", depth=3, steps="many"), "2": node("A", seed=1)}, Catalog(), "x")
    assert "# Inputs of nodes that stay as they are in the workflow: 1.depth, 1.steps\n" in text
    assert "stay as they are" not in draft({"2": node("A", seed=1)}, Catalog(), "x")


def test_a_place_that_reads_as_another_one_is_left_alone() -> None:
    found = declare({"3": {"class_type": "A", "inputs": {"5.seed": 1}}, "3.5": node("A", seed=1, steps=1)})
    assert {name: table["node"] for name, table in found["inputs"].items()} == {"steps": "3.5.steps"}


texts = st.text(max_size=5) | st.sampled_from(["seed", "text", "steps", "value", "ckpt_name", "cfg", "image", "a.b"])
graphs = st.dictionaries(
    st.sampled_from(["1", "1.a", "a", "\ud800", "2\n"]),
    st.builds(
        node,
        st.sampled_from(["KSampler", "LoadImage", "SaveImage", "X"]),
        st.none() | st.text(max_size=9) | st.sampled_from(["Negative", "Zoom in"]),
    ).flatmap(
        lambda made: st.dictionaries(texts, values | st.integers() | st.text(max_size=4)).map(
            lambda inputs: {**made, "inputs": inputs}
        )
    ),
    min_size=1,
)
kinds = st.dictionaries(
    st.sampled_from(["KSampler", "X", "SaveImage"]),
    st.builds(
        Kind,
        st.dictionaries(
            texts,
            st.builds(
                Port,
                st.sampled_from(["INT", "FLOAT", "COMBO", "STRING"]),
                st.none() | st.just(("a", "b")),
                st.none() | st.integers() | st.floats(),
                st.none() | st.integers(),
                st.sampled_from(["", "image", "audio"]),
            ),
        ),
        st.text(max_size=3),
        st.booleans(),
    ),
)


@given(graphs, kinds, st.text(max_size=9))
def test_any_workflow_has_a_draft_that_is_a_template(graph: dict[str, Any], known: dict[str, Kind], title: str) -> None:
    try:
        checked = check(graph)
    except InvalidWorkflow:
        return
    text = draft(checked, Catalog(known), title)
    parse("t", graph, tomllib.loads(text.encode().decode()))
