"""Every fault has its words in every dialect, and the hints that tell clients what to do about it."""

import json

import pytest

from converter.errors import Fault
from tests.converter.api.renderings import DETAIL, FAULTS, code_of, make, render_all


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
