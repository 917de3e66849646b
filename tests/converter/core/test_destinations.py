"""Destinations are taken whole or refused with everything that is wrong; keys never meet and never lead out."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.destinations import (
    DEFAULT_KEY,
    EXPIRY,
    FIELDS,
    Destination,
    parse_destinations,
    render_key,
)

S3 = "s3://bucket/prefix"


def test_what_an_operator_writes_is_taken() -> None:
    document = {
        "results": {"url": S3},
        "other-1": {"url": "file:///srv", "key": "{job}/{number}", "expiry": 0, "options": {"region": "x"}},
    }
    assert parse_destinations(document) == {
        "results": Destination(S3, DEFAULT_KEY, EXPIRY, {}),
        "other-1": Destination("file:///srv", "{job}/{number}", 0, {"region": "x"}),
    }
    assert parse_destinations({}) == {}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"a/b": {"url": S3}}, "letters"),
        ({"a": S3}, "must be a table"),
        ({"a": {}}, "url must be text"),
        ({"a": {"url": 5}}, "url must be text"),
        ({"a": {"url": S3, "bucket": "b"}}, "there is no bucket"),
        ({"a": {"url": S3, "key": 5}}, "key must be text"),
        ({"a": {"url": S3, "key": "{job"}}, "can't be read"),
        ({"a": {"url": S3, "key": "{random}/{seed}"}}, "names seed"),
        ({"a": {"url": S3, "key": "{random!r}"}}, "no conversions"),
        ({"a": {"url": S3, "key": "{random:>9}"}}, "no conversions"),
        ({"a": {"url": S3, "key": "{job}/{name}"}}, "replace each other"),
        ({"a": {"url": S3, "key": "/{random}"}}, "no empty segment"),
        ({"a": {"url": S3, "key": "{random}/../x"}}, "no empty segment"),
        ({"a": {"url": S3, "key": "{random}/./x"}}, "no empty segment"),
        ({"a": {"url": S3, "expiry": -1}}, "expiry must be"),
        ({"a": {"url": S3, "expiry": True}}, "expiry must be"),
        ({"a": {"url": S3, "expiry": 10**9}}, "expiry must be"),
        ({"a": {"url": S3, "expiry": "1h"}}, "expiry must be"),
        ({"a": {"url": S3, "options": ["x"]}}, "options must be"),
        ({"a": {"url": S3, "options": {"x": 1}}}, "options must be"),
    ],
)
def test_what_is_wrong_is_said(document: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_destinations(document)


def test_everything_that_is_wrong_is_said_at_once_and_no_secret() -> None:
    options = {"secret_access_key": "hidden", "port": 1}
    with pytest.raises(ValueError) as raised:
        parse_destinations({"a": {"key": 1, "options": options}, "b b": {"url": S3}})
    assert str(raised.value) == (
        "a: url must be text such as s3://bucket/prefix; a: key must be text; a: options must be a table of texts; "
        "b b: a name has 1 to 64 letters, digits, _ and -"
    )
    assert "hidden" not in repr(Destination(S3, options={"secret_access_key": "hidden"}))


VALUES = st.fixed_dictionaries({name: st.text(max_size=20) | st.sampled_from(["..", ".", "/", ""]) for name in FIELDS})
TEMPLATES = st.lists(st.sampled_from([f"{{{name}}}" for name in FIELDS] + ["/", ".", "a"]), min_size=1, max_size=8).map(
    "".join
)


@given(TEMPLATES, VALUES)
def test_no_key_leads_out_of_its_place(template: str, values: dict[str, str]) -> None:
    try:
        parse_destinations({"a": {"url": S3, "key": template}})
    except ValueError:
        return
    key = render_key(template, values)
    assert not {"", ".", ".."} & set(key.split("/"))
    assert key.count("/") == template.count("/")


def test_a_plain_name_stays_as_it_is() -> None:
    values = dict.fromkeys(FIELDS, "x") | {"name": "größe_00001_.png", "job": "a-1.b"}
    assert render_key("{job}/{random}/{name}", values) == "a-1.b/x/größe_00001_.png"
    assert render_key("{random}{name}", values | {"name": ".env"}) == "x_env"
    assert render_key("{random}/{node}", values | {"node": "4/../" + "b" * 300}) == "x/4_.._" + "b" * 250
