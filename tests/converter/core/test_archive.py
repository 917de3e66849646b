"""Ended jobs are remembered within bounds of time, bytes and number, whatever is added when."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from converter.core import archive
from converter.core.archive import FLEETING, LASTING, TOMBS, Archive

SECONDS = 600.0
SIZE = 1000


def test_a_record_is_there_for_its_time_then_expired_for_as_long_again_then_unknown() -> None:
    kept: Archive[str] = Archive(SECONDS, 10 * SIZE)
    kept.add("a", "A", 0, 0.0, lasting=True)
    assert (kept.find("a", 599.9), kept.expired("a", 599.9)) == ("A", False)
    assert (kept.find("a", 600.0), kept.expired("a", 600.0)) == (None, True)
    assert kept.expired("a", 1199.9)
    assert not kept.expired("a", 1200.0)
    assert (kept.find("b", 1200.0), kept.expired("b", 1200.0)) == (None, False)


def test_the_oldest_give_way_to_bytes_and_the_fleeting_before_the_lasting() -> None:
    kept: Archive[str] = Archive(SECONDS, 3 * SIZE)
    kept.add("a", "A", SIZE, 0.0, lasting=True)
    kept.add("b", "B", 2 * SIZE, 0.0, lasting=False)
    assert kept.find("a", 0.0) == "A", "the bound itself is allowed"
    kept.add("c", "C", 2 * SIZE, 1.0, lasting=True)
    assert [kept.find(id, 1.0) for id in "abc"] == ["A", None, "C"]
    kept.add("d", "D", 1, 2.0, lasting=True)
    assert [kept.find(id, 1.0) for id in "acd"] == [None, "C", "D"]
    assert kept.expired("a", 1.0)


def test_records_without_bytes_need_no_room() -> None:
    kept: Archive[str] = Archive(SECONDS, 0)
    kept.add("a", "A", 0, 0.0, lasting=True)
    assert kept.find("a", 0.0) == "A"


def test_lasting_records_are_bounded_in_number() -> None:
    kept: Archive[int] = Archive(SECONDS, 0)
    for number in range(LASTING + 1):
        kept.add(str(number), number, 0, 0.0, lasting=True)
    assert [kept.find(str(number), 0.0) for number in range(2)] == [None, 1]


def test_a_record_above_the_bound_is_expired_at_once() -> None:
    kept: Archive[str] = Archive(SECONDS, SIZE)
    kept.add("a", "A", SIZE + 1, 0.0, lasting=True)
    assert (kept.find("a", 0.0), kept.expired("a", 0.0)) == (None, True)


def test_of_fleeting_records_the_latest_few_are_kept_and_no_lasting_one_goes_for_them() -> None:
    kept: Archive[int] = Archive(SECONDS, 2**30)
    kept.add("lasting", -1, 0, 0.0, lasting=True)
    for number in range(FLEETING + 5):
        kept.add(str(number), number, 0, 0.0, lasting=False)
    assert kept.find("lasting", 0.0) == -1
    assert [kept.find(str(number), 0.0) for number in range(6)] == [None] * 5 + [5]
    assert kept.expired("4", 0.0)


def test_ids_of_dropped_records_are_bounded() -> None:
    kept: Archive[int] = Archive(SECONDS, 0)
    for number in range(TOMBS + 3):
        kept.add(str(number), number, 1, 0.0, lasting=True)
    assert [kept.expired(str(number), 0.0) for number in range(4)] == [False, False, False, True]


def test_an_id_that_is_used_again_is_not_expired_and_is_remembered_from_its_second_end() -> None:
    kept: Archive[str] = Archive(SECONDS, 2 * SIZE)
    kept.add("a", "A", 0, 0.0, lasting=True)
    kept.add("x", "X", 0, 0.0, lasting=True)
    kept.find("a", 600.0)
    kept.add("a", "again", 0, 700.0, lasting=True)
    assert (kept.find("a", 700.0), kept.expired("a", 700.0)) == ("again", False)
    assert (kept.find("a", 1300.0), kept.expired("a", 1300.0), kept.expired("x", 1300.0)) == (None, True, False)
    assert kept.expired("a", 1899.9)


def test_a_key_finds_its_record_and_goes_with_it() -> None:
    kept: Archive[str] = Archive(SECONDS, SIZE)
    kept.add("a", "A", SIZE, 0.0, lasting=True, key=("", "first"))
    assert kept.find_by_key(("", "first"), 0.0) == "A"
    assert kept.find_by_key(("me", "first"), 0.0) is None
    kept.add("b", "B", SIZE, 0.0, lasting=True, key=("", "second"))
    assert kept.find_by_key(("", "first"), 0.0) is None, "there is no room for both"
    assert kept.find_by_key(("", "second"), 599.9) == "B"
    assert kept.find_by_key(("", "second"), 600.0) is None


def test_a_key_that_is_given_again_is_the_younger_ones_and_an_id_that_is_has_its_key_no_more() -> None:
    kept: Archive[str] = Archive(SECONDS, SIZE)
    kept.add("a", "A", 0, 0.0, lasting=True, key="key")
    kept.add("b", "B", 0, 100.0, lasting=True, key="key")
    assert kept.find("a", 600.0) is None
    assert kept.find_by_key("key", 600.0) == "B", "the elder's end is not its own"
    kept.add("b", "again", 1, 600.0, lasting=False)
    assert (kept.find("b", 600.0), kept.find_by_key("key", 600.0)) == ("again", None)
    assert kept.find("b", 1000.0) == "again", "the record that was replaced does not end it early"


@dataclass
class Known:
    """What a test remembers of a record."""

    size: int
    since: float
    lasting: bool
    key: str | None = None


KEYS = st.sampled_from([None, "a", "b"])


class Schedule(RuleBasedStateMachine):
    """Any adding and asking at any pace; small bounds, so that each is met."""

    def __init__(self) -> None:
        super().__init__()
        self.fleeting, archive.FLEETING = archive.FLEETING, 3
        self.tombs, archive.TOMBS = archive.TOMBS, 5
        self.archive: Archive[str] = Archive(10.0, 4 * SIZE)
        self.known: dict[str, Known] = {}
        self.keys: dict[str, str] = {}
        self.now = 0.0
        self.count = 0

    def teardown(self) -> None:
        archive.FLEETING, archive.TOMBS = self.fleeting, self.tombs

    @rule(size=st.integers(0, 2 * SIZE), lasting=st.booleans(), key=KEYS)
    def add(self, size: int, lasting: bool, key: str | None) -> None:
        self.count += 1
        self.put(f"new {self.count}", size, lasting, key)

    @rule(id=st.integers(1, 30).map(str), size=st.integers(0, SIZE), lasting=st.booleans(), key=KEYS)
    def add_again(self, id: str, size: int, lasting: bool, key: str | None) -> None:
        self.put(id, size, lasting, key)

    def put(self, id: str, size: int, lasting: bool, key: str | None) -> None:
        self.known.pop(id, None)
        self.known[id] = Known(size, self.now, lasting, key)
        if key is not None:
            self.keys[key] = id
        self.archive.add(id, id, size, self.now, lasting=lasting, key=key)

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 9.9, 10.0, 25.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.known)
    @rule()
    def ask(self) -> None:
        for id in self.known:
            assert self.archive.find(id, self.now) in (id, None)

    @invariant()
    def within_bounds(self) -> None:
        there = {id: known for id, known in self.known.items() if self.archive.find(id, self.now) is not None}
        gone = {id for id in self.known if self.archive.expired(id, self.now)}
        assert not gone & there.keys()
        assert len(gone) <= 5
        assert sum(known.size for known in there.values()) <= 4 * SIZE
        assert sum(not known.lasting for known in there.values()) <= 3
        assert all(self.now - known.since < 10.0 for known in there.values())

    @invariant()
    def a_key_finds_the_last_record_that_has_it_or_none(self) -> None:
        for key, id in self.keys.items():
            there = self.archive.find(id, self.now) if self.known[id].key == key else None
            assert self.archive.find_by_key(key, self.now) == there
        assert len(self.archive._ids) <= len(self.keys)

    @invariant()
    def lasting_records_go_for_bytes_alone_and_the_oldest_first(self) -> None:
        """A lasting record that is gone before its time is older than any that is left."""
        young = [(id, known) for id, known in self.known.items() if self.now - known.since < 10.0]
        there = [self.archive.find(id, self.now) is not None for id, known in young if known.lasting]
        assert there == sorted(there)


TestSchedule = Schedule.TestCase
TestSchedule.settings = settings(max_examples=100, stateful_step_count=40)


def test_every_record_that_goes_is_told_of_once() -> None:
    gone: list[str] = []
    kept: Archive[str] = Archive(SECONDS, 2 * SIZE, gone.append)
    kept.add("a", "first", SIZE, 0.0, lasting=True)
    kept.add("a", "second", SIZE, 1.0, lasting=True)
    assert gone == ["first"], "another has its place"
    kept.add("b", "third", SIZE, 2.0, lasting=True)
    kept.add("c", "fourth", SIZE, 3.0, lasting=False)
    assert gone == ["first", "fourth"], "the bytes are spent, and what was delivered goes first"
    kept.tidy(1.0 + SECONDS)
    kept.tidy(2.0 + SECONDS)
    assert gone == ["first", "fourth", "second", "third"]
