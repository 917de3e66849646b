"""Addresses are taken as people give them, and none with a secret, with more than a place, or that leads inside."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from converter.core.address import USUAL_PORTS, Refused, is_public, parse_url, vet
from tests.converter.core.hostile import HOSTILE


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


# What may be fetched -------------------------------------------------------------------------------------------------


def test_the_table_of_hostile_urls_is_a_long_one() -> None:
    assert len(HOSTILE) >= 150


@pytest.mark.parametrize("url", HOSTILE, ids=ascii)
def test_a_hostile_url_is_refused_by_what_it_says(url: str) -> None:
    with pytest.raises(Refused) as refused:
        vet(url, {"http://10.9.8.7", "https://files.corp.internal:8443"})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://example.com", "http://example.com/"),
        ("HTTPS://Example.COM./A%2fB?x=%2F#part", "https://example.com/A%2fB?x=%2F"),
        ("http://example.com?q", "http://example.com/?q"),
        ("http://example.com:80/", "http://example.com/"),
        ("https://example.com:080/", "https://example.com:80/"),
        ("https://example.com:8443/", "https://example.com:8443/"),
        ("http://example.com:/", "http://example.com/"),
        ("http://8.8.8.8/", "http://8.8.8.8/"),
        ("http://8.8.8.8./", "http://8.8.8.8/"),
        ("http://[2606:4700:0:0::1111]:8080/", "http://[2606:4700::1111]:8080/"),
        ("http://[64:ff9b::8.8.8.8]/", "http://[64:ff9b::808:808]/"),
        ("https://xn--bcher-kva.example.com/ü?q=ü", "https://xn--bcher-kva.example.com/ü?q=ü"),
        ("https://a_b.s3.amazonaws.com/k", "https://a_b.s3.amazonaws.com/k"),
        ("https://1.2.3.4.com/", "https://1.2.3.4.com/"),
    ],
)
def test_a_public_url_is_taken_in_one_spelling(url: str, asked: str) -> None:
    target = vet(url)
    assert target.url == asked
    assert not target.trusted
    assert vet(target.url) == target


@pytest.mark.parametrize(
    "url", ["http://10.9.8.7/a", "https://files.corp.internal:8443/b", "http://localhost:22", "http://[::1]:1"]
)
def test_the_operator_may_trust_a_private_origin(url: str) -> None:
    target = vet(url, {"http://10.9.8.7", "https://files.corp.internal:8443", "http://localhost:22", "http://[::1]:1"})
    assert target.trusted


@pytest.mark.parametrize("url", ["https://10.9.8.7/", "http://10.9.8.7:81/", "http://10.9.8.70/", "http://x@10.9.8.7/"])
def test_who_is_trusted_is_one_origin_and_no_other(url: str) -> None:
    with pytest.raises(Refused):
        vet(url, {"http://10.9.8.7"})


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://me:secret@example.com/", "user's name or password"),
        ("ftp://example.com/", "begin with http"),
        ("http://127.1/", "four decimal numbers"),
        ("http://10.0.0.1/", "address that is not public"),
        ("http://redis/", "name is not public"),
        ("http://example.com:25/", "no web server is expected"),
        ("http://b\u00fccher.example.com/", "plain ASCII"),
    ],
)
def test_it_is_said_what_is_wrong(url: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        vet(url)


def test_addresses_are_told_from_names() -> None:
    assert [vet(f"http://{host}").is_literal for host in ("8.8.8.8", "[2606::1]", "example.com")] == [True, True, False]


@pytest.mark.parametrize("text", ["", "x", "8.8.8", "8.8.8.8/32", "2606:4700::1%1", "[2606:4700::1]", "08.8.8.8", "::"])
def test_what_is_no_address_is_not_public(text: str) -> None:
    assert not is_public(text)


@given(st.ip_addresses())
def test_whatever_python_knows_to_be_private_is_refused(address: IPv4Address | IPv6Address) -> None:
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert not is_public(str(address)) or address in IPv6Network("64:ff9b::/96")


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_as_public_in_every_spelling(address: IPv4Address) -> None:
    number = int(address)
    inside = f"64:ff9b::{address}"
    assert is_public(inside) is is_public(str(address))
    spellings = [
        str(number),
        hex(number),
        oct(number).replace("o", ""),
        ".".join(hex(octet) for octet in address.packed),
        ".".join(f"0{octet:o}" for octet in address.packed),
        f"{address.packed[0]}.{number & 0xFFFFFF}",
        f"[::ffff:{address}]",
        f"[::{address}]",
        f"[2002:{number >> 16:x}:{number & 0xFFFF:x}::]",
        *([] if is_public(str(address)) else [str(address), f"{address}.", f"[{inside}]"]),
    ]
    for spelling in spellings:
        with pytest.raises(Refused):
            vet(f"http://{spelling}/")


@given(st.text(max_size=40) | st.from_regex(r"https?://[!-~]{0,30}", fullmatch=True))
def test_what_is_taken_reads_the_same_to_others(url: str) -> None:
    """No reader of URLs sees another host, port or user in what is asked for, nor another name in what was given."""
    try:
        target = vet(url)
    except Refused:
        return
    for reader in (urlsplit(target.url), urlsplit(url)):
        assert (reader.hostname or "").removesuffix(".") == target.host
        assert (reader.port or USUAL_PORTS[target.scheme]) == target.port
        assert reader.username is None
    asked = URL(target.url, encoded=target.url.isascii())
    assert (asked.scheme, asked.host, asked.port) == (target.scheme, target.host, target.port)
    assert target.is_literal is False or is_public(target.host)
