"""What an engine has: read whatever it says, shown as choices, and held against templates only where it is known."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.catalog import Catalog, Kind, Port, read_kind
from converter.core.offers import offer
from converter.core.template import schema
from converter.core.template_toml import parse
from tests.converter.core.documents import values

WORKFLOW: dict[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "old.safetensors"}},
    "2": {"class_type": "KSampler", "inputs": {"sampler_name": "euler", "scheduler": "normal", "model": ["1", 0]}},
    "3": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
}
DECLARATION: dict[str, Any] = {
    "inputs": {
        "model": {"type": "choice", "node": "1.ckpt_name", "choices": "models/checkpoints", "default": "demo"},
        "sampler": {"type": "choice", "node": "2.sampler_name", "choices": "engine", "optional": True},
        "photo": {"type": "image", "node": "3.image"},
    }
}
KINDS: dict[str, Kind | None] = {
    "CheckpointLoaderSimple": Kind({"ckpt_name": Port("COMBO", ("demo", "other"))}),
    "KSampler": Kind({"sampler_name": Port("COMBO", ("euler", "ddim")), "scheduler": Port("COMBO", ("normal",))}),
    "LoadImage": Kind({"image": Port("COMBO", ("there.png",))}),
    "SaveImage": Kind({}, is_output=True),
}
FOLDERS = {"checkpoints": ("demo", "other")}


@pytest.mark.parametrize(
    ("spec", "port"),
    [
        ([["a", "b"]], Port("COMBO", ("a", "b"))),
        ([["a"], {"default": "a"}], Port("COMBO", ("a",))),
        (["COMBO", {"options": ["a"]}], Port("COMBO", ("a",))),
        (["COMBO", {}], Port("COMBO")),
        ([[1, 2]], Port("COMBO")),
        ([["a.png"], {"image_upload": True}], Port("COMBO", media="image")),
        ([["a.mp4"], {"video_upload": True}], Port("COMBO", media="video")),
        (["INT", {"min": 0, "max": 9}], Port("INT", minimum=0, maximum=9)),
        (["INT", {"min": 16, "step": 8}], Port("INT", minimum=16, step=8)),
        (["FLOAT", {"min": "x", "max": True, "step": None}], Port("FLOAT")),
        (["STRING", {"multiline": True}], Port("STRING")),
        (["MODEL"], Port("MODEL")),
    ],
)
def test_inputs_of_a_node_are_read(spec: object, port: Port) -> None:
    kind = read_kind({"input": {"optional": {"x": spec}}, "display_name": "Title", "output_node": True})
    assert kind == Kind({"x": port}, "Title", is_output=True)


@given(values)
def test_whatever_an_engine_says_is_read(described: object) -> None:
    assert (read_kind(described) is None) == (not isinstance(described, dict))
    nested = {"input": {"required": {"x": described}, "optional": described}, "display_name": described}
    assert isinstance(read_kind(nested), Kind)
    assert read_kind({"input": described}) is not None


def test_choices_are_the_engines() -> None:
    found = offer(parse("t", WORKFLOW, DECLARATION), Catalog(KINDS, FOLDERS))
    assert (found.available, found.reason) == (True, "")
    properties = schema(found.template)["properties"]
    assert properties["model"]["enum"] == ["demo", "other"]
    assert properties["sampler"]["enum"] == ["euler", "ddim"]
    assert "enum" not in properties["photo"]


def test_what_is_not_known_is_held_against_nobody() -> None:
    template = parse("t", WORKFLOW, DECLARATION)
    for kinds in ({}, {"KSampler": KINDS["KSampler"]}):
        found = offer(template, Catalog(kinds))
        assert found.available is None
        assert "enum" not in schema(found.template)["properties"]["model"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"KSampler": None, "LoadImage": None}, "the engine has no node KSampler, LoadImage"),
        (
            {"CheckpointLoaderSimple": Kind({"ckpt_name": Port("COMBO", ("other",))})},
            "the engine does not have demo (input model)",
        ),
        (
            {"KSampler": Kind({"sampler_name": Port("COMBO", ("ddim",)), "scheduler": Port("COMBO", ())})},
            ("the engine does not have euler (input sampler), normal (scheduler of node 2, KSampler)"),
        ),
        ({"KSampler": Kind({})}, ""),
    ],
)
def test_what_the_engine_lacks_is_said(changed: dict[str, Kind | None], reason: str) -> None:
    found = offer(parse("t", WORKFLOW, DECLARATION), Catalog(KINDS | changed, FOLDERS))
    assert (found.available, found.reason) == (not reason, reason)


def test_a_required_choice_is_the_callers_and_many_lacks_are_cut_short() -> None:
    required = {"inputs": {"model": {"type": "choice", "node": "1.ckpt_name", "choices": "engine"}}}
    assert offer(parse("t", WORKFLOW, required), Catalog(KINDS)).available
    many = {str(number): {"class_type": f"X{number}", "inputs": {}} for number in range(9)}
    found = offer(parse("t", many, {}), Catalog(dict.fromkeys((f"X{number}" for number in range(9)), None)))
    assert found.reason == "the engine has no node X0, X1, X2 and more"


@given(st.dictionaries(st.sampled_from(sorted(KINDS)), values.map(read_kind)), st.lists(st.text(max_size=3)))
def test_any_catalog_gives_an_offer(kinds: dict[str, Kind | None], names: list[str]) -> None:
    template = parse("t", WORKFLOW, DECLARATION)
    found = offer(template, Catalog(kinds, {"checkpoints": tuple(names)}))
    assert found.template.workflow is template.workflow
    assert bool(found.reason) == (found.available is False)
