"""Origins: which pages are trusted, and that nothing else ever is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.origins import Verdict, is_loopback, judge, origin_of, parse_origins

ORIGINS = st.builds(
    lambda scheme, host, port: f"{scheme}://{host}{port}",
    st.sampled_from(["http", "https"]),
    st.sampled_from(["app.example", "127.0.0.1", "localhost", "[::1]", "converter", "10.0.0.7"]),
    st.sampled_from(["", ":3000", ":8443"]),
)

LOCAL = tuple(f"{scheme}://{host}:" for scheme in ("http", "https") for host in ("127.0.0.1", "localhost", "[::1]"))


@given(st.lists(ORIGINS, max_size=5), st.sampled_from([",", " , ", ",,"]))
def test_origins_are_kept_as_browsers_send_them(origins: list[str], between: str) -> None:
    assert parse_origins(between.join(origins)) == tuple(dict.fromkeys(origins))


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("HTTPS://App.Example", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("http://app.example:08080", "http://app.example:8080"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_other_ways_to_write_an_origin(text: str, origin: str) -> None:
    assert parse_origins(text) == (origin,)


@pytest.mark.parametrize(
    "text",
    [
        *("app.example", "https://app.example/", "https://*.example", "null", "ftp://a", "https://", "http://a:0"),
        *("http://a:65536", "http://me@a", "https://a https://b"),
    ],
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be origins such as"):
        parse_origins(text)


def test_no_page_at_all_is_not_to_be_had() -> None:
    with pytest.raises(ValueError, match="every web page"):
        parse_origins("https://app.example, *")


@given(
    st.none() | ORIGINS | st.sampled_from(["null", "", "https://app.example.evil", "http://127.0.0.1.evil:3000"]),
    st.sampled_from(["app.example", "127.0.0.1:3000", "LOCALHOST:3000", "[::1]:3000", "", "a", "10.0.0.7:3000"]),
    st.lists(ORIGINS, max_size=2),
    st.none() | ORIGINS,
)
def test_only_what_is_named_or_certainly_our_own_is_trusted(
    origin: str | None, host: str, named: list[str], own: str | None
) -> None:
    verdict = judge(origin, host, named, own)
    if origin is None:
        assert verdict is Verdict.NONE
    elif origin in named:
        assert verdict is Verdict.NAMED
    else:
        local = origin.startswith(LOCAL) and origin.split("//")[1] == host.lower()
        assert verdict is (Verdict.OWN if origin == own or local else Verdict.FOREIGN)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://App.example:443/a/b", "https://app.example"),
        ("http://my_host:8080", "http://my_host:8080"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_the_origin_of_an_address(url: str, origin: str) -> None:
    assert origin_of(url) == origin


def test_a_name_that_was_made_to_lead_here_is_not_our_own() -> None:
    assert judge("http://evil.example:3000", "evil.example:3000", (), None) is Verdict.FOREIGN
    assert judge("http://127.0.0.1:3000", "127.0.0.1:3000", (), None) is Verdict.OWN


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.7", False),
        ("::ffff:10.0.0.7", False),
        ("converter", False),
        ("", False),
    ],
)
def test_loopback_is_what_nobody_else_can_reach(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
