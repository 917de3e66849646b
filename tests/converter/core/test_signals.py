"""One Ctrl-C drains, however often it is repeated; a second one ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.signals import ECHO, Drain, Effect, EndNow, Signal, Signals, step

GAPS = st.floats(min_value=0.0, max_value=10.0)


@pytest.mark.parametrize("interactive", [True, False])
def test_first_signal_drains(interactive: bool) -> None:
    assert step(Signals(), Signal(interactive), 5.0) == (Signals(first=5.0), (Drain(interactive),))


@pytest.mark.parametrize("gap", [0.0, 0.3, ECHO])
def test_signals_close_to_the_first_are_echoes(gap: float) -> None:
    state = Signals(first=5.0)
    assert step(state, Signal(interactive=False), 5.0 + gap) == (state, ())


def test_later_signal_ends() -> None:
    state = Signals(first=5.0)
    assert step(state, Signal(interactive=True), 5.0 + ECHO + 0.01) == (state, (EndNow(),))


@given(st.lists(st.tuples(GAPS, st.booleans()), min_size=1))
def test_one_drain_comes_first_and_each_later_signal_ends(arrivals: list[tuple[float, bool]]) -> None:
    state, now = Signals(), 0.0
    effects: list[tuple[Effect, ...]] = []
    moments: list[float] = []
    for gap, interactive in arrivals:
        now += gap
        state, effect = step(state, Signal(interactive), now)
        effects.append(effect)
        moments.append(now)
    assert effects[0] == (Drain(arrivals[0][1]),)
    for moment, effect in zip(moments[1:], effects[1:], strict=True):
        assert effect == ((EndNow(),) if moment - moments[0] > ECHO else ())
