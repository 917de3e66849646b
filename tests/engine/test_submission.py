"""Bodies of POST /prompt, but for their graph."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import RefusedError
from engine.submission import MAX_DEPTH, is_deep, read_submission

ID = "0f9e8d7c-6b5a-4c3d-8e2f-1a0b9c8d7e6f"


def refusal(body: object) -> Any:
    """The `error` of the refusal."""
    with pytest.raises(RefusedError) as caught:
        read_submission(body)
    return caught.value.body["error"]


def nest(depth: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(depth - 1):
        nested = [nested]
    return nested


def test_everything_given() -> None:
    submission = read_submission(
        {
            "prompt": {"1": {}},
            "prompt_id": ID,
            "client_id": "me",
            "number": "2.5",
            "front": True,
            "extra_data": {"extra_pnginfo": {"workflow": {}}, "client_id": "not me", "auth_token_comfy_org": "secret"},
            "partial_execution_targets": ["1", 2],
        }
    )
    assert submission.graph == {"1": {}}
    assert submission.prompt_id == ID
    assert (submission.number, submission.front) == (2.5, True)
    assert submission.extra_data == {"extra_pnginfo": {"workflow": {}}, "client_id": "me"}
    assert submission.targets == frozenset({"1"})


def test_nothing_but_a_graph() -> None:
    submission = read_submission({"prompt": None, "prompt_id": None})
    assert (submission.graph, submission.prompt_id, submission.number, submission.front) == (None, None, None, False)
    assert (submission.extra_data, submission.targets) == ({}, None)


def test_a_client_in_extra_data_alone_counts() -> None:
    assert read_submission({"prompt": {}, "extra_data": {"client_id": "me"}}).extra_data == {"client_id": "me"}


@pytest.mark.parametrize("body", [[], [1, 2], {}, {"client_id": "me"}])
def test_no_prompt(body: object) -> None:
    assert refusal(body) == {
        "type": "no_prompt",
        "message": "No prompt provided",
        "details": "No prompt provided",
        "extra_info": {},
    }


@pytest.mark.parametrize("body", [None, "text", 5])
def test_a_body_that_is_no_object(body: object) -> None:
    assert refusal(body)["type"] == "invalid_prompt"


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "abc", None, 10**400])
def test_a_number_that_cannot_be_ordered(number: object) -> None:
    refused = refusal({"prompt": {}, "number": number})
    assert (refused["type"], refused["message"]) == ("invalid_prompt", "number must be a finite number.")


@pytest.mark.parametrize("extra", [None, [], "text", nest(MAX_DEPTH + 2), {"a": nest(MAX_DEPTH + 1)}])
def test_extra_data_that_would_end_the_worker_of_comfyui(extra: object) -> None:
    assert refusal({"prompt": {}, "extra_data": extra})["type"] == "invalid_prompt"


@pytest.mark.parametrize("prompt_id", ["q1", "", 5, [], ID.upper(), ID.replace("-", ""), f"{{{ID}}}"])
def test_a_prompt_id_is_a_canonical_uuid(prompt_id: object) -> None:
    assert refusal({"prompt": {}, "prompt_id": prompt_id})["type"] == "invalid_prompt_id"


def test_depth() -> None:
    assert not is_deep(5, 1)
    assert not is_deep(nest(3), 3)
    assert is_deep(nest(4), 3)
    assert is_deep({"a": [{"b": {}}]}, 3)
    assert is_deep(nest(100_000), 64)
