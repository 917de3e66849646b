"""OpenAI's parameters and words: what a template takes is filled in, all else is refused by name."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core import openai
from converter.core.offers import Offer
from converter.core.template import Input, Template, fill
from converter.errors import (
    DeadlineExceeded,
    ExecutionFailed,
    Fault,
    InvalidRequest,
    NotFound,
    QueueFull,
    RateLimited,
    Unauthorized,
)

GRAPH = {"1": {"class_type": "Draw", "inputs": {}}}


def template(name: str, *holes: Input) -> Template:
    return Template(name, name, "", GRAPH, holes)


def hole(name: str, kind: str = "string", **rest: Any) -> Input:
    return Input(name, kind, (("1", name),), **rest)


PROMPT = hole("prompt")
IMAGE = hole("image", "image")
MASK = hole("mask", "image")
STEPS = hole("steps", "integer", default=20, minimum=1, maximum=30)
WIDTH = hole("width", "integer", default=512, minimum=64)
HEIGHT = hole("height", "integer", default=256, minimum=64)

DRAW = template("draw", PROMPT, STEPS, WIDTH, HEIGHT)
PLAIN = template("plain", PROMPT)
EDIT = template("edit", PROMPT, IMAGE)
INPAINT = template("another", PROMPT, IMAGE, MASK)
ALL = [
    DRAW,
    PLAIN,
    EDIT,
    INPAINT,
    template("txt2img", PROMPT, hole("negative", default="")),
    template("img2img", PROMPT, IMAGE, hole("mask", "image", optional=True)),
    template("upscale", IMAGE),
    template("choosy", PROMPT, hole("style", "choice", choices=("a",))),
    template("film", PROMPT, hole("clip", "video")),
    template("heard", PROMPT, IMAGE, hole("mask", "audio")),
    template("silent", STEPS),
    template("numbers", hole("prompt", "number", default=1)),
]


def test_models_draw_from_a_text_alone() -> None:
    assert list(openai.find_drawers(ALL)) == ["txt2img", "draw", "plain"]


def test_editors_take_a_picture_and_perhaps_a_mask() -> None:
    assert list(openai.find_editors(ALL)) == ["img2img", "another", "edit"]


def test_what_the_engine_lacks_is_no_model() -> None:
    offers = [Offer(DRAW, True), Offer(PLAIN, None), Offer(EDIT, False)]
    assert openai.find_runnable(offers) == [DRAW, PLAIN]
    assert openai.find_runnable(offers, surely=True) == [DRAW]


def test_the_first_model_that_does_with_a_mask_or_without_is_taken() -> None:
    models = {each.name: each for each in (INPAINT, EDIT)}
    assert openai.choose(models, None) is EDIT
    assert openai.choose(models, None, mask=True) is INPAINT
    assert openai.choose({"edit": EDIT}, None, mask=True) is EDIT
    assert openai.choose(models, "edit", mask=True) is EDIT


@pytest.mark.parametrize(
    ("models", "name", "words"), [([DRAW], "gpt", "no model gpt"), ([DRAW], "", "draw"), ([], None, "none")]
)
def test_a_model_that_is_not_there(models: list[Template], name: str | None, words: str) -> None:
    with pytest.raises(NotFound, match=words) as caught:
        openai.choose({model.name: model for model in models}, name)
    assert openai.envelope(caught.value)["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("quality", "steps"),
    [("auto", None), ("standard", None), ("medium", None), ("low", 10), ("high", 30), ("hd", 30)],
)
def test_quality_is_a_share_of_the_steps_within_their_limits(quality: str, steps: int | None) -> None:
    assert openai.compose(DRAW, "x", "auto", quality, {}).get("steps") == steps


def test_steps_without_limits_are_not_bounded() -> None:
    free = template("free", PROMPT, hole("steps", "integer", default=20))
    assert openai.compose(free, "x", "auto", "high", {})["steps"] == 40
    assert openai.compose(template("one", hole("steps", "integer", default=1)), "x", "auto", "low", {})["steps"] == 1


def test_a_size_and_files_are_filled_in() -> None:
    inputs = openai.compose(DRAW, "x", "640x480", "auto", {})
    assert inputs == {"prompt": "x", "width": 640, "height": 480}
    assert openai.compose(EDIT, "x", "auto", "auto", {"image": {"part": "image"}})["image"] == {"part": "image"}


def test_all_that_a_model_has_no_input_for_is_named() -> None:
    with pytest.raises(InvalidRequest) as caught:
        openai.compose(PLAIN, "x", "64x64", "low", {"mask": {"part": "mask"}})
    assert [problem["pointer"] for problem in caught.value.problems] == ["/mask", "/size", "/quality"]


def test_steps_without_a_default_are_no_measure_of_quality() -> None:
    odd = template("odd", PROMPT, hole("steps", "integer", optional=True))
    with pytest.raises(InvalidRequest, match="quality"):
        openai.compose(odd, "x", "auto", "high", {})


@pytest.mark.parametrize(
    ("size", "valid"),
    [
        ("auto", True),
        ("1024x768", True),
        ("8x8", True),
        ("100x100", False),
        ("1024x", False),
        ("0x8", False),
        ("1024x768\n", False),
        ("-8x8", False),
        ("100000x8", False),
        ("\uff18x\uff18", False),
        ("", False),
    ],
)
def test_sizes(size: str, valid: bool) -> None:
    assert openai.is_size(size) is valid


@given(st.integers(1, 99_999 // 8), st.integers(1, 99_999 // 8))
def test_every_size_that_is_taken_is_filled_in_as_it_is(width: int, height: int) -> None:
    size = f"{width * 8}x{height * 8}"
    assert openai.is_size(size)
    inputs = openai.compose(DRAW, "x", size, "auto", {})
    assert openai.describe("auto", "png", inputs)["size"] == size


def test_what_is_wrong_with_inputs_is_said_of_parameters() -> None:
    with pytest.raises(InvalidRequest) as caught:
        fill(DRAW, {"prompt": 1, "width": 8, "height": 8, "steps": 99}, lambda: 0)
    named = openai.name_parameters(caught.value)
    assert [problem["pointer"] for problem in named.problems] == ["/prompt", "/quality", "/size", "/size"]
    assert named.problems[2]["detail"] == "width must be at least 64"


@pytest.mark.parametrize(
    ("quality", "used", "told"),
    [
        ("auto", {"width": 64, "height": 32}, ("medium", "64x32")),
        ("hd", {"width": 64}, ("high", "auto")),
        ("low", {}, ("low", "auto")),
    ],
)
def test_an_answer_says_what_was_used(quality: str, used: Mapping[str, Any], told: tuple[str, str]) -> None:
    about = openai.describe(quality, "webp", used)
    assert (about["quality"], about["size"]) == told
    assert (about["output_format"], about["background"]) == ("webp", "opaque")


@given(st.integers(0, 3), st.integers(1, 100))
def test_partial_images_are_spread_over_the_steps(wanted: int, steps: int) -> None:
    shown: list[int] = []
    for step in range(1, steps + 1):
        if openai.is_due(len(shown), wanted, step, steps):
            shown.append(step)
    assert len(shown) == min(wanted, steps)
    if steps > 3:
        assert steps not in shown
        assert all(later - earlier >= steps // 4 - 1 for earlier, later in pairwise(shown))


def test_a_preview_without_steps_is_shown_at_once() -> None:
    assert openai.is_due(0, 1, None, None)
    assert openai.is_due(0, 1, 1, None)
    assert not openai.is_due(1, 1, None, None)


@pytest.mark.parametrize(
    ("fault", "kind", "param", "code"),
    [
        (InvalidRequest([{"pointer": "/size", "detail": "x"}]), "invalid_request_error", "size", "invalid_request"),
        (InvalidRequest([{"pointer": "/a/0/b", "detail": "x"}]), "invalid_request_error", "a", "invalid_request"),
        (InvalidRequest([{"pointer": "", "detail": "x"}]), "invalid_request_error", None, "invalid_request"),
        (InvalidRequest([]), "invalid_request_error", None, "invalid_request"),
        (Unauthorized("x"), "invalid_request_error", None, "invalid_api_key"),
        (RateLimited("x", retry_after=1), "rate_limit_error", None, "rate_limit_exceeded"),
        (QueueFull("x", retry_after=1), "rate_limit_error", None, "queue_full"),
        (NotFound("x"), "invalid_request_error", None, "not_found"),
        (NotFound("x", param="model"), "invalid_request_error", "model", "model_not_found"),
        (ExecutionFailed("x"), "invalid_request_error", None, "execution_failed"),
        (DeadlineExceeded("x"), "server_error", None, "deadline_exceeded"),
    ],
)
def test_faults_are_told_in_its_envelope(fault: Fault, kind: str, param: str | None, code: str) -> None:
    assert openai.envelope(fault) == {"error": {"message": fault.detail, "type": kind, "param": param, "code": code}}
