"""API keys: texts that are read or refused without a word of their secrets, and comparisons that tell nothing."""

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core import keys
from converter.core.keys import find_name, parse_keys, read_token

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
SECRETS = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=","), min_size=1, max_size=40
)
PAIRS = st.lists(st.tuples(NAMES, SECRETS), min_size=1, max_size=8, unique_by=lambda pair: pair[1])


@given(PAIRS, st.sampled_from([",", "\n", " , ", "\r\n", "\n# a comment, with: words\n"]))
def test_whoever_has_a_secret_is_known_by_its_name(pairs: list[tuple[str, str]], between: str) -> None:
    known = parse_keys(between.join(f"{name}:{secret}" for name, secret in pairs))
    assert [key.name for key in known] == [name for name, _ in pairs]
    for name, secret in pairs:
        assert find_name(known, secret) == name
        assert read_token([f"Bearer {secret}"]) == secret


@given(PAIRS, st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40))
def test_nobody_else_is_known(pairs: list[tuple[str, str]], token: str) -> None:
    known = parse_keys(",".join(f"{name}:{secret}" for name, secret in pairs))
    assert (find_name(known, token) is None) == (token not in {secret for _, secret in pairs})


def test_a_name_may_have_several_secrets() -> None:
    known = parse_keys("alice:old-secret,alice:new-secret,bob:other")
    assert [find_name(known, secret) for secret in ("old-secret", "new-secret", "other")] == ["alice", "alice", "bob"]


def test_a_secret_may_have_colons_and_equals_signs() -> None:
    assert find_name(parse_keys("alice:a:b=="), "a:b==") == "alice"


def test_short_secrets_are_marked() -> None:
    assert [key.short for key in parse_keys(f"a:{'x' * 15},b:{'y' * 16}")] == [True, False]


NAME = "must be name:secret, with names of up to 64 letters, digits and ._-, which entry 2 is not"
SECRET = "must have secrets of printable ASCII without spaces and commas, which that of b is not"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a:hunter2, hunter3", NAME),
        ("a:hunter2,:hunter3", NAME),
        ("a:hunter2,b c:hunter3", NAME),
        (f"a:hunter2,{'b' * 65}:hunter3", NAME),
        ("a:hunter2,b:", SECRET),
        ("a:hunter2,b:hunter3 x", SECRET),
        ("a:hunter2,b:hunter3é", SECRET),
        ("a:hunter2,b:hunter2", "must have a secret for each name, but a and b have the same"),
        ("", "must have a key, such as name:secret"),
        (" ,\n# hunter2\n", "must have a key, such as name:secret"),
    ],
)
def test_what_is_wrong_is_said_without_the_secret(text: str, words: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        parse_keys(text)
    assert str(caught.value) == words


def test_a_key_shows_nothing_of_its_secret() -> None:
    (key,) = parse_keys("alice:hunter2")
    assert repr(key) == "Key(name='alice', short=True)"


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([], None),
        (["Basic YTpi"], None),
        ([""], None),
        (["Bearerabc"], None),
        (["Bearer"], ""),
        (["Bearer "], ""),
        (["Bearer a b"], ""),
        (["Bearer é"], ""),
        (["Bearer \udcff"], ""),
        (["Bearer a", "Bearer a"], ""),
        (["bEARER  a "], "a"),
        (["Bearer a"], "a"),
    ],
)
def test_tokens_are_read_as_the_standard_says(headers: list[str], token: str | None) -> None:
    assert read_token(headers) == token


@pytest.mark.parametrize("token", ["first", "last", "none of them", ""])
def test_every_key_is_compared_in_constant_time(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = parse_keys("a:first,b:middle,c:last")
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        assert len(one) == len(other)
        return hmac.compare_digest(one, other)

    class Spy:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(keys, "hmac", Spy)
    find_name(known, token)
    assert compared == [key.digest for key in known]
