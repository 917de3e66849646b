"""Seals: what comes back was given, and nothing else is believed."""

from hypothesis import given
from hypothesis import strategies as st

from converter.core.seals import seal, unseal

SECRETS = st.binary(min_size=1, max_size=40)


@given(SECRETS, st.binary(max_size=200))
def test_what_was_sealed_comes_back(secret: bytes, said: bytes) -> None:
    assert unseal(secret, seal(secret, said)) == said


@given(SECRETS, st.binary(max_size=200), SECRETS)
def test_another_secret_reads_nothing(secret: bytes, said: bytes, other: bytes) -> None:
    assert (unseal(other, seal(secret, said)) == said) is (other.rstrip(b"\0") == secret.rstrip(b"\0"))


@given(SECRETS, st.binary(max_size=40), st.data())
def test_one_changed_character_reads_nothing(secret: bytes, said: bytes, data: st.DataObject) -> None:
    text = seal(secret, said)
    place = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.characters().filter(lambda c: c != text[place]))
    assert unseal(secret, text[:place] + character + text[place + 1 :]) is None


@given(SECRETS, st.text(max_size=60))
def test_any_text_is_read_or_refused(secret: bytes, text: str) -> None:
    said = unseal(secret, text)
    assert said is None or seal(secret, said) == text


@given(SECRETS, st.binary(max_size=200))
def test_a_seal_is_a_path_segment(secret: bytes, said: bytes) -> None:
    assert set(seal(secret, said)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
