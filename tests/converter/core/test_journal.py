"""Every reader of a journal gets every lasting entry once and in order, at whatever pace it reads."""

from hypothesis import given
from hypothesis import strategies as st

from converter.core.journal import Entry, Journal


def test_lasting_entries_stay_and_snapshots_are_replaced() -> None:
    journal = Journal()
    journal.append("output", "first")
    journal.show("progress", 0.1)
    journal.show("status", "running")
    journal.show("progress", 0.2)
    journal.append("output", "second")
    assert journal.since(0) == [
        Entry(1, "output", "first"),
        Entry(3, "status", "running"),
        Entry(4, "progress", 0.2),
        Entry(5, "output", "second"),
    ]
    assert journal.since(3) == [Entry(4, "progress", 0.2), Entry(5, "output", "second")]
    assert journal.since(5) == []
    assert journal.sequence == 5


def test_the_last_entry_ends_it() -> None:
    journal = Journal()
    journal.append("output", "first")
    journal.show("progress", 0.9)
    assert not journal.closed
    journal.close("result", "all")
    whole = [Entry(1, "output", "first"), Entry(3, "result", "all")]
    assert journal.since(0) == whole
    journal.close("error", "too late")
    journal.append("output", "too late")
    journal.show("progress", 1.0)
    assert journal.since(0) == whole
    assert (journal.closed, journal.sequence) == (True, 3)


WRITES = st.lists(st.tuples(st.sampled_from(["append", "show", "close", "read"]), st.sampled_from("abc")), max_size=40)


@given(WRITES)
def test_a_reader_at_any_pace_gets_all_that_lasts_and_the_latest_of_the_rest(writes: list[tuple[str, str]]) -> None:
    journal, read, seen = Journal(), list[Entry](), 0
    lasting, latest = list[tuple[str, int]](), dict[str, int]()
    for number, (kind, name) in enumerate([*writes, ("read", "a")]):
        if kind == "read":
            read += journal.since(seen)
            seen = read[-1].sequence if read else 0
            newest = {entry.event: entry.data for entry in read if entry.event.startswith("show")}
            assert {name: newest[name] for name in latest} == latest
        elif not journal.closed:
            if kind == "show":
                journal.show(f"show {name}", number)
                latest[f"show {name}"] = number
            else:
                (journal.append if kind == "append" else journal.close)(name, number)
                lasting.append((name, number))
                latest = {} if kind == "close" else latest
        else:
            getattr(journal, kind)(name, number)
    assert [(entry.event, entry.data) for entry in read if not entry.event.startswith("show")] == lasting
    numbers = [entry.sequence for entry in read]
    assert numbers == sorted(set(numbers))
    assert journal.since(seen) == []
