"""Seals: what comes back was given, and nothing else is believed."""

import string

from hypothesis import given
from hypothesis import strategies as st

from converter.core.seals import seal, unseal

SECRETS = st.binary(min_size=1, max_size=40)
TAGS = st.text(string.ascii_letters + string.digits, min_size=1, max_size=16)
SAID = st.binary(max_size=100)


@given(SECRETS, TAGS, SAID)
def test_what_was_sealed_comes_back(secret: bytes, tag: str, said: bytes) -> None:
    text = seal(secret, "kind-1", tag, said)
    assert unseal(secret, "kind-1", text) == said
    assert text.startswith(f"{tag}-")
    assert set(text) <= set(string.ascii_letters + string.digits + "-_.")


@given(SECRETS, TAGS, SAID, SECRETS)
def test_another_secret_or_kind_reads_nothing(secret: bytes, tag: str, said: bytes, other: bytes) -> None:
    text = seal(secret, "kind-1", tag, said)
    assert unseal(secret, "kind-2", text) is None
    # RFC 2104 fills keys up with zeros.
    assert (unseal(other, "kind-1", text) is not None) is (other.rstrip(b"\0") == secret.rstrip(b"\0"))


@given(SECRETS, TAGS, SAID, st.data())
def test_one_changed_character_reads_nothing(secret: bytes, tag: str, said: bytes, data: st.DataObject) -> None:
    text = seal(secret, "kind-1", tag, said)
    place = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.characters().filter(lambda c: c != text[place]))
    assert unseal(secret, "kind-1", text[:place] + character + text[place + 1 :]) is None


@given(SECRETS, st.text(max_size=60))
def test_any_other_text_says_nothing(secret: bytes, text: str) -> None:
    assert unseal(secret, "kind-1", text) is None
