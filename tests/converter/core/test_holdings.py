"""Holdings: nobody takes more than the bound, and what is given back is held by nobody."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from converter.core.holdings import Holdings

NAMES = st.sampled_from(["alice", "bob"])
THINGS = st.integers(0, 5)
MOST = 3


class Bounded(RuleBasedStateMachine):
    """Against plain sets."""

    def __init__(self) -> None:
        super().__init__()
        self.holdings = Holdings(MOST)
        self.model: dict[str, set[int]] = {"alice": set(), "bob": set()}

    @rule(name=NAMES, thing=THINGS)
    def take(self, name: str, thing: int) -> None:
        fits = len(self.model[name]) < MOST
        assert self.holdings.take(name, thing) is fits
        if fits:
            self.model[name].add(thing)

    @rule(name=NAMES, thing=THINGS, other=THINGS)
    def exchange(self, name: str, thing: int, other: int) -> None:
        if thing in self.model[name]:
            self.holdings.keep(name, other)
            self.model[name].add(other)
        self.give_back(name, thing)

    @rule(name=NAMES, thing=THINGS)
    def give_back(self, name: str, thing: int) -> None:
        self.holdings.give_back(name, thing)
        self.model[name].discard(thing)

    @invariant()
    def counts_agree(self) -> None:
        for name, things in self.model.items():
            assert self.holdings.count(name) == len(things)

    def teardown(self) -> None:
        for name in self.model:
            for thing in range(6):
                self.give_back(name, thing)
        assert not self.holdings._held  # nothing is remembered of who holds nothing


TestBounded = Bounded.TestCase


def test_without_a_bound_anything_is_taken() -> None:
    holdings = Holdings(None)
    assert all(holdings.take("alice", number) for number in range(1000))
