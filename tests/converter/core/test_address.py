"""Addresses are taken as people give them, and none with a secret or with more than a place."""

import pytest

from converter.core.address import parse_url


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("https://host/", "https://host"),
        ("http://host/replica/1//", "http://host/replica/1"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_an_address_can_be_put_before_a_path(given: str, taken: str) -> None:
    assert parse_url(given) == taken


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nonsense", "such as http"),
        ("ftp://host", "such as http"),
        ("http://", "such as http"),
        ("http://a b", "spaces"),
        ("http://h\n", "spaces or control"),
        ("http://me:secret@host", "credentials"),
        ("http://host?a=1", "query"),
        ("http://host#a", "fragment"),
        ("http://host:99999", "port"),
    ],
)
def test_anything_else_is_refused_without_being_repeated(given: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        parse_url(given)
    assert "secret" not in str(raised.value)
