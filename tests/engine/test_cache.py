"""The cache of node results and its bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.cache import Cache, Entry, compact, weigh


def entry(size: int = 0) -> Entry:
    return Entry([["x" * size]], None)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 600), st.booleans()), max_size=40))
def test_bounds_hold_and_the_least_used_goes_first(steps: list[tuple[str, int, bool]]) -> None:
    cache = Cache(max_entries=3, max_bytes=1500)
    order: list[str] = []
    for key, size, use in steps:
        if use:
            assert (cache.get(key) is not None) == (key in order) == (key in cache)
        else:
            cache.put(key, entry(size))
            order = [k for k in order if k != key]
        if key in cache:
            order = [k for k in order if k != key] + [key]
        assert len(cache) <= 3
        assert cache.size <= 1500
        order = [k for k in order if k in cache]
        assert len(order) == len(cache)
        dropped = {k for k in "abcdef" if k not in cache}
        assert dropped.isdisjoint(order)


def test_an_entry_larger_than_everything_is_not_kept() -> None:
    cache = Cache(max_bytes=500)
    cache.put("a", entry(1))
    cache.put("b", entry(501))
    assert "b" not in cache
    assert cache.get("a") is not None
    cache.put("a", entry(501))
    assert "a" not in cache
    assert cache.size == 0


def test_clearing_and_dropping() -> None:
    cache = Cache()
    cache.put("a", entry())
    cache.drop("nobody")
    cache.drop("a")
    assert cache.size == 0
    cache.put("a", entry())
    cache.clear()
    assert (len(cache), cache.size, cache.get("a"), cache.get(None)) == (0, 0, None, None)


@dataclass(frozen=True)
class Held:
    picture: object


def test_weights() -> None:
    picture = np.zeros((4, 64, 64, 3), np.float32)
    assert weigh(picture) >= picture.nbytes
    assert weigh([[picture]]) >= picture.nbytes
    assert weigh(Held(picture)) >= picture.nbytes
    assert weigh({"samples": picture}) >= picture.nbytes
    assert weigh("x" * 1000) >= 1000
    assert weigh(object()) > 0
    assert weigh(picture[:1, :1]) == weigh(picture), "what counts is what it keeps"
    assert weigh(np.broadcast_to(np.float32(0), (1000, 1000))) < 1000
    endless: list[object] = []
    endless.append(endless)
    assert weigh(endless) < 10_000


def test_what_shows_a_small_part_of_an_array_becomes_one_of_its_own() -> None:
    picture = np.arange(4 * 64 * 64 * 3, dtype=np.float32).reshape(4, 64, 64, 3).copy()
    part = picture[:, :16]
    own = compact(part)
    assert weigh(own) <= part.nbytes + 64
    np.testing.assert_array_equal(own, part)
    for value in (picture, picture[:3], np.broadcast_to(np.float32(0), (9, 9)), "text", None):
        assert compact(value) is value
