"""Every fault has its words in every dialect, and the hints that tell clients what to do about it."""

import json
from typing import Any

import pytest

from converter.api.dialects import SPOKEN
from converter.errors import Fault
from tests.converter.api.renderings import DETAIL, FAULTS, code_of, make, render_all
from tests.converter.faults.graphs import picture
from tests.converter.faults.replica import converter
from tests.fakes.engine import FakeEngine

ORDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "native": ("/v1/run", {"workflow": picture(1)}),
    "comfyapi": ("/api/v2/jobs", {"workflow": picture(1)}),
    "comfyui-api": ("/prompt", {"prompt": picture(1)}),
    "openai": ("/v1/images/generations", {"prompt": "x"}),
    "runpod": ("/runpod/run", {"input": {"workflow": picture(1)}}),
    "ComfyUI": ("/comfy/prompt", {"prompt": picture(1)}),
}
"""What begins work in each dialect: the path and the body."""


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_every_fault_is_told_in_every_dialect(kind: type[Fault]) -> None:
    for name, response in render_all(make(kind)).items():
        assert 400 <= response.status < 600, name
        assert response.content_type in ("application/json", "application/problem+json"), name
        assert isinstance(response.body, bytes), name
        assert DETAIL in json.dumps(json.loads(response.body)), name
        assert code_of(response), name


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_every_dialect_says_whether_to_come_back(kind: type[Fault]) -> None:
    """As headers, which load balancers and clients obey whatever the body is."""
    for name, response in render_all(make(kind)).items():
        assert response.headers.get("Retry-After") == ("7" if kind.retry == "later" else None), name
        assert response.headers.get("x-should-retry") == ("false" if kind.retry == "never" else None), name
        assert (response.status in (429, 503)) is (kind.retry == "later"), name


def test_strangers_are_told_how_to_show_a_key() -> None:
    (kind,) = (kind for kind in FAULTS if kind.code == "unauthorized")
    for name, response in render_all(make(kind)).items():
        assert response.status == 401, name
        assert response.headers["WWW-Authenticate"].startswith("Bearer"), name


async def test_what_a_dialect_does_not_know_it_refuses_by_its_name(engine: FakeEngine) -> None:
    assert ORDERS.keys() == {"native", *SPOKEN, "ComfyUI"}
    async with converter(engine.url, comfy_passthrough=True) as caller:
        for name, (path, body) in ORDERS.items():
            reply = await caller.post(path, {**body, "unheard_of": True})
            assert reply.status in (400, 422), name
            assert b"unheard_of" in reply.body, name
        assert not caller.tickets
