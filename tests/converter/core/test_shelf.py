"""A content is uploaded once as long as it is there, and removed once when nobody needs it."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from converter.core import shelf
from converter.core.shelf import Shelf


def test_what_lies_there_is_not_uploaded_again_within_a_while() -> None:
    shelf = Shelf(600.0)
    assert shelf.take(b"a", "engine", 0.0) is None
    shelf.put("a.png", b"a", "engine", 0.0)
    assert shelf.take(b"a", "engine", 599.0) == "a.png"
    assert shelf.take(b"b", "engine", 0.0) is None
    assert not shelf.release("a.png")
    assert not shelf.release("a.png")
    assert shelf.take(b"a", "engine", 600.0) is None


@pytest.mark.parametrize("instance", ["another", None])
def test_an_engine_that_has_restarted_may_have_lost_it(instance: str | None) -> None:
    shelf = Shelf(600.0)
    shelf.put("a.png", b"a", "engine", 0.0)
    assert shelf.take(b"a", instance, 1.0) is None
    shelf.put("b.png", b"a", "another", 1.0)
    assert shelf.take(b"a", "another", 1.0) == "b.png"


def test_what_is_forgotten_first_is_what_nobody_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "MAX_KNOWN", 2)
    it = Shelf(600.0)
    for name in ("needed", "done", "new"):
        it.put(name, name.encode(), "engine", 0.0)
        if name == "done":
            it.release(name)
    assert [it.take(name.encode(), "engine", 1.0) for name in ("needed", "done", "new")] == ["needed", None, "new"]
    it.put("more", b"more", "engine", 0.0)
    assert it.take(b"needed", "engine", 1.0) == "needed"


class Sharing(RuleBasedStateMachine):
    """Jobs that put and release contents in a folder where they are removed."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf(0.0)
        self.needed: list[str] = []
        self.there: set[str] = set()
        self.count = 0

    @rule(digest=st.sampled_from([b"a", b"b"]), instance=st.sampled_from(["x", "y", None]))
    def stage(self, digest: bytes, instance: str | None) -> None:
        name = self.shelf.take(digest, instance, float(self.count))
        if name is None:
            self.count += 1
            name = f"{digest.decode()}{self.count}"
            self.shelf.put(name, digest, instance, float(self.count))
            self.there.add(name)
        assert name.startswith(digest.decode())
        self.needed.append(name)

    @precondition(lambda self: self.needed)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        name = self.needed.pop(data.draw(st.integers(0, len(self.needed) - 1)))
        if self.shelf.release(name):
            self.there.remove(name)

    @invariant()
    def what_is_needed_is_there_and_nothing_else(self) -> None:
        assert self.there == set(self.needed)


TestSharing = Sharing.TestCase
