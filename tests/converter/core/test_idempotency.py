"""Idempotency keys: how they are written, what makes two requests the same, and which ends are remembered."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter import errors
from converter.core.deeds import Succeeded
from converter.core.idempotency import LONGEST, PATTERN, Claim, check, fingerprint, is_kept, read_key
from converter.core.order import Part
from converter.errors import IdempotencyMismatch, InvalidRequest
from converter.media.spool import hold
from tests.converter.core.documents import values

PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=LONGEST)
TOKENS = st.text("!#$%&'*+-.^_`|~:/=@09azAZ", min_size=1, max_size=LONGEST)
PARTS = st.dictionaries(
    st.text(max_size=3),
    st.builds(Part, st.sampled_from(["image/png", "text/plain"]), st.binary(max_size=6).map(hold)),
    max_size=3,
)
REQUESTS = st.tuples(st.sampled_from(["POST", "PUT"]), st.sampled_from(["/v1/run", "/v1/workflows/x"]), values, PARTS)


def quote(key: str) -> str:
    """As a string of structured fields."""
    return '"' + key.replace("\\", r"\\").replace('"', r"\"") + '"'


def shuffle(value: Any) -> Any:
    """The same JSON, its members the other way round."""
    if isinstance(value, dict):
        return {name: shuffle(value[name]) for name in reversed(value)}
    return [shuffle(each) for each in value] if isinstance(value, list) else value


def canonical(request: tuple[str, str, Any, dict[str, Part]]) -> Any:
    """What two requests have in common if they are the same."""
    method, path, document, parts = request
    return (
        method,
        path,
        json.dumps(document, sort_keys=True),
        sorted((n, p.content_type, p.content.digest) for n, p in parts.items()),
    )


def test_no_header_is_no_key() -> None:
    assert read_key([]) is None


@given(PRINTABLE)
def test_any_printable_text_may_be_quoted(key: str) -> None:
    assert read_key([quote(key)]) == key
    assert read_key([f" {quote(key)}\t"]) == key


@given(TOKENS)
def test_a_token_means_the_same_with_and_without_quotes(key: str) -> None:
    assert read_key([key]) == read_key([quote(key)]) == key


UNREADABLE = ["", " ", '""', '"a', 'a"', '"a" "b"', '"a";b', "a b", "a,b", r'"a\b"', r"a\b", "(a)", '"a"\n', "é", '"é"']


@pytest.mark.parametrize("value", [*UNREADABLE, '"\t"', "x" * 256, quote("x" * 256)])
def test_what_is_no_key_is_refused_and_not_ignored(value: str) -> None:
    with pytest.raises(InvalidRequest, match="Idempotency-Key"):
        read_key([value])


@given((PRINTABLE.map(quote) | TOKENS | st.sampled_from(UNREADABLE) | st.text(max_size=300)).map(str.strip))
def test_the_pattern_says_which_values_are_keys(value: str) -> None:
    if re.fullmatch(PATTERN, value):
        assert read_key([value])
    else:
        with pytest.raises(InvalidRequest):
            read_key([value])


def test_two_keys_are_none() -> None:
    with pytest.raises(InvalidRequest):
        read_key(["a", "a"])


@given(st.lists(st.text(max_size=300), min_size=1, max_size=2))
def test_no_header_does_anything_else(headers: list[str]) -> None:
    try:
        key = read_key(headers)
    except InvalidRequest:
        return
    assert key is not None
    assert 1 <= len(key) <= LONGEST
    assert key.isascii()
    assert key.isprintable()


@given(REQUESTS)
def test_layout_and_order_make_no_difference(request: tuple[str, str, Any, dict[str, Part]]) -> None:
    method, path, document, parts = request
    again = dict(reversed(parts.items()))
    assert fingerprint(method, path, shuffle(document), again) == fingerprint(method, path, document, parts)


@given(REQUESTS, REQUESTS)
def test_requests_are_the_same_only_if_all_of_them_is(
    one: tuple[str, str, Any, dict[str, Part]], other: tuple[str, str, Any, dict[str, Part]]
) -> None:
    assert (fingerprint(*one) == fingerprint(*other)) is (canonical(one) == canonical(other))


def test_what_moves_from_one_part_to_the_next_is_another_request() -> None:
    pairs = ((b"12", b"3"), (b"1", b"23"))
    split = [{"a": Part("x", hold(first)), "b": Part("x", hold(second))} for first, second in pairs]
    assert fingerprint("POST", "/", {}, split[0]) != fingerprint("POST", "/", {}, split[1])


def test_a_document_that_is_too_deep_is_refused() -> None:
    document: Any = []
    for _ in range(200_000):
        document = [document]
    with pytest.raises(InvalidRequest, match="too deeply"):
        fingerprint("POST", "/", document, {})
    while document:  # taken apart piece by piece
        [document] = document


def test_another_request_under_a_known_key_is_a_mismatch() -> None:
    claim = Claim("", "key", b"one")
    check(claim, None)
    check(claim, Claim("", "key", b"one"))
    with pytest.raises(IdempotencyMismatch):
        check(claim, Claim("", "key", b"other"))


def test_keys_of_two_callers_are_two() -> None:
    assert Claim("one", "key", b"").name != Claim("other", "key", b"").name


@pytest.mark.parametrize(
    ("outcome", "kept"),
    [
        (Succeeded(), True),
        (errors.ExecutionFailed(""), True),
        (errors.InvalidWorkflow(""), True),
        (errors.InvalidInput(""), True),
        (errors.InvalidInput("").passing(), False),
        (errors.Canceled(""), False),
        (errors.Shed("", retry_after=1), False),
        (errors.EngineFailed(""), False),
        (errors.Draining("", retry_after=1), False),
        (errors.DeadlineExceeded(""), False),
        (errors.OutOfMemory(""), False),
        (errors.Internal(""), False),
    ],
)
def test_only_what_would_come_out_again_is_kept(outcome: Succeeded | errors.Fault, kept: bool) -> None:
    assert is_kept(outcome) is kept
