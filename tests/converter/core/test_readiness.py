"""Readiness: each sentence of its rules by example, and its invariants under any schedule, against a model."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from converter import errors
from converter.core.readiness import (
    BudgetSpent,
    Closed,
    Depth,
    DrainStarted,
    Effect,
    EngineDown,
    EngineUp,
    Event,
    Limits,
    Looked,
    Opened,
    Progressed,
    Readiness,
    Resize,
    Stalled,
    State,
    StateChanged,
    Tick,
    View,
    WarmedUp,
    WarmupFailed,
    refusal,
    step,
    view,
)

LIMITS = Limits(
    busy_at=4,
    ready_at=2,
    staleness=2.0,
    stall_patience=10.0,
    pending_patience=3.0,
    stranger_patience=30.0,
    startup_patience=20.0,
)


class Replica:
    """A machine on a clock of its own, and all that it has told."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.now = 50.0
        self.state = Readiness(limits, since=self.now)
        self.told: list[Effect] = []

    def tell(self, *events: Event) -> list[Effect]:
        told: list[Effect] = []
        for event in events:
            self.state, effects = step(self.state, event, self.now)
            told += effects
        self.told += told
        return told

    def wait(self, seconds: float) -> "Replica":
        self.now += seconds
        return self

    def look(
        self, *, ours: str = "", pending: str = "", theirs: str = "", their_pending: str = "", explained: float = 0.0
    ) -> list[Effect]:
        prompts = (tuple(ours), tuple(pending), tuple(theirs), tuple(their_pending))
        return self.tell(Looked(self.now, *prompts, explained))

    def watch(
        self, seconds: float, *, ours: str = "", pending: str = "", theirs: str = "", explained: float = 0.0
    ) -> list[Effect]:
        """Look each second, the last time after so many; the effects of all looks."""
        told = self.look(ours=ours, pending=pending, theirs=theirs, explained=explained)
        for _ in range(int(seconds)):
            told += self.wait(1.0).look(ours=ours, pending=pending, theirs=theirs, explained=explained)
        return told

    @property
    def view(self) -> View:
        return view(self.state, self.now)

    @property
    def stalls(self) -> list[Effect]:
        return [effect for effect in self.told if isinstance(effect, Stalled)]


@pytest.fixture
def warm() -> Replica:
    """Up, warmed up, and looked at."""
    replica = Replica()
    replica.tell(EngineUp("one"), WarmedUp())
    replica.look()
    replica.told.clear()
    assert (replica.view.state, replica.view.ready) == (State.READY, True)
    return replica


class TestStarting:
    def test_it_starts_not_up_then_warming_then_ready(self) -> None:
        replica = Replica()
        assert replica.view == View(State.STARTING, "the engine is not up yet", False, True, False)
        assert replica.tell(EngineUp("one")) == []
        assert replica.view == View(State.STARTING, "the engine is warming up", False, True, False)
        changed, opened = replica.tell(Looked(replica.now), WarmedUp())
        assert (changed, opened) == (StateChanged(State.STARTING, State.READY, "the engine is up and warm"), Opened())
        assert replica.view == View(State.READY, "the engine is up and warm", True, True, True)

    def test_a_failed_warm_up_is_a_failure_until_one_succeeds(self) -> None:
        replica = Replica()
        replica.tell(EngineUp("one"), WarmupFailed("no such checkpoint"))
        assert (replica.view.state, replica.view.reason) == (State.FAILED, "no such checkpoint")
        assert not replica.view.started
        replica.tell(WarmedUp())
        replica.look()
        assert replica.view.state is State.READY

    def test_a_warm_up_that_fails_later_closes(self, warm: Replica) -> None:
        assert Closed() in warm.tell(WarmupFailed("out of memory"))
        assert warm.view.started

    def test_why_it_is_not_up_is_told_until_it_is(self) -> None:
        replica = Replica()
        replica.tell(Tick(missed="nothing listens"), Tick())
        assert (replica.view.state, replica.view.reason) == (
            State.STARTING,
            "the engine is not up yet: nothing listens",
        )
        replica.wait(21.0).tell(Tick(missed="it is no engine"))
        assert (replica.view.state, replica.view.reason) == (
            State.FAILED,
            "the engine has not come up within 20 s: it is no engine",
        )
        replica.tell(EngineUp("one"))
        assert replica.view.reason == "the engine is warming up"
        replica.tell(Tick(missed="late"), EngineDown("it has exited"), Tick(missed="nothing listens"))
        assert replica.view.reason == "it has exited"

    @pytest.mark.parametrize("events", [(), (EngineUp("one"),)])
    def test_what_takes_longer_than_its_patience_has_failed(self, events: tuple[Event, ...]) -> None:
        replica = Replica(replace(LIMITS, stall_patience=100.0))
        replica.tell(*events)
        assert replica.wait(20.0).view.state is State.STARTING
        assert replica.wait(0.1).view.state is State.FAILED
        assert [type(effect) for effect in replica.tell(Tick())] == [StateChanged]
        replica.tell(EngineUp("two"))
        assert replica.view.state is State.STARTING

    def test_a_look_alone_does_not_make_it_ready(self) -> None:
        replica = Replica()
        replica.tell(EngineUp("one"))
        replica.look()
        assert not replica.view.ready

    def test_a_warm_up_of_an_engine_that_is_not_up_counts_for_nothing(self) -> None:
        replica = Replica()
        replica.tell(WarmedUp(), WarmupFailed("x"), Progressed(), Looked(replica.now))
        assert replica.state == Readiness(LIMITS, since=replica.now)
        replica.tell(EngineUp("one"))
        assert replica.view.state is State.STARTING


class TestEngine:
    def test_a_dead_engine_is_a_failure_and_closes(self, warm: Replica) -> None:
        told = warm.tell(EngineDown("exited with code 0"))
        assert told == [StateChanged(State.READY, State.FAILED, "exited with code 0"), Closed()]
        assert warm.view == View(State.FAILED, "exited with code 0", False, True, True)

    def test_an_engine_that_never_came_up_can_be_down(self) -> None:
        replica = Replica()
        replica.tell(EngineDown("no such file"))
        assert (replica.view.state, replica.view.reason) == (State.FAILED, "no such file")

    @pytest.mark.parametrize("between", [(), (EngineDown("gone"),)])
    def test_a_restarted_engine_must_warm_up_again(self, warm: Replica, between: tuple[Event, ...]) -> None:
        told = warm.tell(*between, EngineUp("two"))
        assert Closed() in told
        assert warm.view.state is State.STARTING
        assert warm.view.started
        assert Opened() in warm.tell(WarmedUp())

    def test_one_that_was_down_must_warm_up_again_though_it_is_the_same(self, warm: Replica) -> None:
        warm.tell(EngineDown("unreachable"), EngineUp("one"))
        assert warm.view.state is State.STARTING

    def test_an_engine_that_comes_up_twice_is_up(self, warm: Replica) -> None:
        state = warm.state
        assert warm.tell(EngineUp("one")) == []
        assert warm.state == state

    def test_looks_at_the_former_engine_count_for_nothing(self, warm: Replica) -> None:
        before = warm.now
        warm.wait(1.0).tell(EngineUp("two"), WarmedUp(), Looked(before))
        assert not warm.view.ready
        warm.look()
        assert warm.view.ready


class TestStaleness:
    def test_without_a_look_it_is_not_ready(self) -> None:
        replica = Replica()
        replica.tell(EngineUp("one"), WarmedUp())
        reason = "the engine's queue has not been read yet"
        assert replica.view == View(State.STARTING, reason, False, True, True, stale=True)

    def test_what_is_too_old_has_failed_and_says_so_but_refuses_nobody(self, warm: Replica) -> None:
        assert warm.wait(2.0).view.ready
        reason = "the engine's queue was last read 2.2 s ago"
        assert warm.wait(0.2).view == View(State.FAILED, reason, False, True, True, stale=True)
        assert refusal(warm.view) is None
        assert warm.tell(Tick()) == [StateChanged(State.READY, State.FAILED, reason)], "its turns go on"
        warm.look()
        assert (warm.view.state, warm.view.ready) == (State.READY, True)

    def test_a_busy_one_is_stale_all_the_same(self, warm: Replica) -> None:
        warm.tell(Depth(9))
        assert warm.wait(2.1).view.state is State.FAILED
        warm.look()
        assert warm.view.state is State.BUSY

    def test_the_age_counts_from_when_it_was_asked(self, warm: Replica) -> None:
        warm.wait(5.0).tell(Looked(warm.now - 2.5))
        assert not warm.view.ready

    @pytest.mark.parametrize("at", [-1.0, 1.0, float("nan")])
    def test_a_look_from_the_future_or_out_of_order_is_ignored(self, warm: Replica, at: float) -> None:
        state = warm.state
        warm.tell(Looked(warm.now + at, ("a",)))
        assert warm.state == state


class TestDepth:
    def test_busy_from_the_high_to_the_low_water_mark(self, warm: Replica) -> None:
        seen = []
        for depth in (3, 4, 5, 3, 2, 3, 4):
            warm.tell(Depth(depth))
            seen.append((warm.view.state, warm.view.ready))
        ready, busy = (State.READY, True), (State.BUSY, False)
        assert seen == [ready, busy, busy, busy, ready, ready, busy]
        assert warm.view.reason == "4 orders are held; ready again at 2"

    def test_busy_closes_nothing(self, warm: Replica) -> None:
        assert [type(effect) for effect in warm.tell(Depth(9))] == [StateChanged]

    def test_busy_may_count_as_ready(self) -> None:
        replica = Replica(replace(LIMITS, busy_is_ready=True))
        replica.tell(EngineUp("one"), WarmedUp(), Depth(4))
        assert (replica.view.state, replica.view.ready) == (State.STARTING, False)
        replica.look()
        assert (replica.view.state, replica.view.ready) == (State.BUSY, True)
        assert not replica.wait(3.0).view.ready

    def test_new_limits_are_weighed_at_once(self, warm: Replica) -> None:
        assert warm.tell(Depth(3)) == []
        assert warm.tell(Resize(replace(LIMITS, busy_at=3))) == [
            StateChanged(State.READY, State.BUSY, "3 orders are held; ready again at 2")
        ]
        warm.tell(Resize(replace(LIMITS, busy_at=5, ready_at=4)))
        assert warm.view.state is State.READY


class TestStalls:
    def test_a_running_prompt_without_progress(self, warm: Replica) -> None:
        assert warm.watch(10, ours="a") == []
        told = warm.wait(1.0).look(ours="a")
        reason = "a running prompt has made no progress for 10 s"
        assert told == [StateChanged(State.READY, State.FAILED, reason), Closed(), Stalled(reason)]
        assert warm.view == View(State.FAILED, reason, False, True, True)

    def test_silence_that_a_node_s_pace_explains_is_no_stall(self, warm: Replica) -> None:
        assert warm.watch(25, ours="a", explained=25.0) == []
        told = warm.wait(1.0).look(ours="a", explained=25.0)
        assert told[-1] == Stalled("a running prompt has made no progress for 25 s")

    def test_a_pace_that_is_quicker_than_the_patience_takes_nothing_from_it(self, warm: Replica) -> None:
        assert warm.watch(10, ours="a", explained=5.0) == []
        assert warm.wait(1.0).look(ours="a", explained=5.0)[-1] == Stalled(
            "a running prompt has made no progress for 10 s"
        )

    def test_another_prompt_has_a_pace_of_its_own(self, warm: Replica) -> None:
        assert warm.watch(20, ours="a", explained=25.0) == []
        assert warm.watch(10, ours="b") == []
        assert warm.wait(1.0).look(ours="b")[-1] == Stalled("a running prompt has made no progress for 10 s")

    @pytest.mark.parametrize("seen", [0.0, 25.0])
    def test_an_engine_that_its_node_keeps_from_answering_is_given_the_node_s_time(
        self, warm: Replica, seen: float
    ) -> None:
        warm.look(ours="a", explained=seen)
        assert Closed() not in warm.wait(25.0).tell(Tick(25.0 - seen))
        assert Stalled("the engine has not answered for 25 s") in warm.wait(0.1).tell(Tick())

    def test_progress_in_time_is_no_stall(self, warm: Replica) -> None:
        for _ in range(5):
            assert warm.watch(9, ours="a") == []
            warm.tell(Progressed())

    def test_another_running_prompt_is_progress(self, warm: Replica) -> None:
        assert warm.watch(9, ours="a") == []
        assert warm.watch(9, ours="b") == []
        assert warm.watch(9, ours="bc") == []
        assert warm.watch(9, ours="cb")[-1:] == [Stalled("a running prompt has made no progress for 10 s")]

    def test_rest_before_a_prompt_does_not_count(self, warm: Replica) -> None:
        assert warm.watch(30) == []
        assert warm.watch(9, ours="a") == []
        assert warm.watch(30) == []

    @pytest.mark.parametrize(("ours", "theirs"), [("a", ""), ("", "a")])
    def test_pending_with_nothing_running(self, warm: Replica, ours: str, theirs: str) -> None:
        reason = "prompts have been pending with none running for 3 s"
        for _ in range(3):
            assert warm.look(pending=ours, their_pending=theirs) == []
            warm.wait(1.0)
        assert warm.look(pending=ours, their_pending=theirs)[-1] == Stalled(reason)

    def test_more_that_come_do_not_help_and_one_that_leaves_does(self, warm: Replica) -> None:
        assert warm.watch(2, pending="a") == []
        assert warm.watch(1, pending="b") == []
        assert warm.watch(1, pending="bc") == []
        assert Stalled("prompts have been pending with none running for 3 s") in warm.watch(1, pending="bcd")

    @pytest.mark.parametrize(("ours", "theirs"), [("a", ""), ("", "s")])
    def test_pending_behind_a_running_prompt_is_no_stall(self, warm: Replica, ours: str, theirs: str) -> None:
        assert warm.watch(9, pending="b", ours=ours, theirs=theirs) == []

    def test_a_finished_prompt_ends_the_patience_with_pending_ones(self, warm: Replica) -> None:
        assert warm.watch(2, pending="a") == []
        warm.tell(Progressed())
        assert warm.watch(2, pending="a") == []

    def test_one_look_is_not_a_span_however_long_ago(self, warm: Replica) -> None:
        warm.look(pending="a")
        assert [type(effect) for effect in warm.wait(9.0).tell(Tick())] == [StateChanged], "it is only stale"
        assert [type(effect) for effect in warm.look()] == [StateChanged]

    def test_silence(self, warm: Replica) -> None:
        assert [type(effect) for effect in warm.wait(10.0).tell(Tick())] == [StateChanged], "it is only stale"
        reason = "the engine has not answered for 10 s"
        assert warm.wait(0.1).view.reason == reason
        assert warm.tell(Tick()) == [Closed(), Stalled(reason)]
        assert warm.look() == [StateChanged(State.FAILED, State.READY, "the engine is up and warm"), Opened()]

    def test_a_sign_of_life_breaks_the_silence(self, warm: Replica) -> None:
        warm.wait(9.0).tell(Progressed())
        assert warm.wait(9.0).tell(Tick()) == []

    def test_a_look_that_was_begun_before_a_sign_of_life_takes_nothing_from_it(self, warm: Replica) -> None:
        warm.wait(9.0).tell(Progressed(), Looked(warm.now - 4.0))
        assert warm.wait(9.0).tell(Tick()) == []

    def test_each_stall_is_told_once(self, warm: Replica) -> None:
        warm.watch(30, ours="a")
        assert len(warm.stalls) == 1
        warm.tell(Progressed())
        assert warm.view.state is State.READY
        warm.watch(30, ours="a")
        assert len(warm.stalls) == 2

    def test_a_stall_that_changes_its_face_is_the_same_stall(self, warm: Replica) -> None:
        warm.watch(11, ours="a")
        warm.wait(11.0).tell(Tick())
        assert len(warm.stalls) == 1

    def test_a_restart_ends_it_and_the_next_engine_s_is_another(self, warm: Replica) -> None:
        warm.watch(11, ours="a")
        warm.tell(EngineDown("killed"), EngineUp("two"), WarmedUp())
        warm.look()
        assert warm.view.state is State.READY
        warm.watch(11, ours="b")
        assert len(warm.stalls) == 2

    def test_a_warm_up_can_stall(self) -> None:
        replica = Replica()
        replica.tell(EngineUp("one"))
        replica.watch(11, ours="w")
        assert len(replica.stalls) == 1
        replica.tell(WarmedUp())
        assert replica.view.state is State.READY

    def test_strangers_get_more_patience_and_cause_no_restart(self, warm: Replica) -> None:
        assert warm.watch(30, theirs="s", pending="a") == []
        told = warm.wait(1.0).look(theirs="s", pending="a")
        reason = "a prompt of another client has been running for 30 s"
        assert told == [StateChanged(State.READY, State.FAILED, reason), Closed()]
        assert Opened() in warm.look(ours="a")

    def test_strangers_that_take_turns_block_nobody(self, warm: Replica) -> None:
        for name in "stuv":
            assert warm.watch(25, theirs=name) == []

    def test_strangers_beside_a_prompt_of_ours_block_nobody(self, warm: Replica) -> None:
        for _ in range(8):
            assert warm.watch(9, theirs="s", ours="a") == []
            warm.tell(Progressed())

    def test_prompts_of_ours_that_take_turns_show_that_strangers_do_not_block(self, warm: Replica) -> None:
        for name in "abcd":
            assert warm.watch(9, theirs="s", ours=name) == []

    def test_progress_of_ours_shows_that_strangers_do_not_block(self, warm: Replica) -> None:
        for _ in range(3):
            assert warm.watch(25, theirs="s") == []
            warm.tell(Progressed())


class TestEnds:
    def test_draining_is_not_ready_at_once_and_closes_nothing(self, warm: Replica) -> None:
        told = warm.tell(DrainStarted())
        assert told == [StateChanged(State.READY, State.DRAINING, "the replica is shutting down")]
        assert warm.view == View(State.DRAINING, "the replica is shutting down", False, True, True)

    def test_the_engine_is_watched_while_draining(self, warm: Replica) -> None:
        warm.tell(DrainStarted())
        assert warm.tell(EngineDown("killed")) == [Closed()]
        assert warm.tell(EngineUp("two"), WarmedUp()) == [Opened()]
        assert warm.watch(11, ours="a")[-1:] == [Stalled("a running prompt has made no progress for 10 s")]
        assert warm.view.state is State.DRAINING

    def test_a_spent_budget_is_final(self, warm: Replica) -> None:
        warm.tell(EngineDown("killed"), BudgetSpent("died 5 times"), BudgetSpent("died 6 times"))
        dead = View(State.FAILED, "died 5 times", False, False, True)
        assert warm.view == dead
        assert warm.tell(EngineUp("two"), WarmedUp(), Looked(warm.now)) == []
        assert warm.view == dead

    def test_draining_after_a_spent_budget_is_not_live(self, warm: Replica) -> None:
        warm.tell(BudgetSpent("died 5 times"), DrainStarted())
        assert (warm.view.state, warm.view.live) == (State.DRAINING, False)


class TestRefusals:
    @pytest.mark.parametrize(
        ("state", "fault"),
        [
            (State.STARTING, errors.Starting),
            (State.DRAINING, errors.Draining),
            (State.FAILED, errors.EngineDown),
            (State.READY, None),
            (State.BUSY, None),
        ],
    )
    def test_by_state(self, state: State, fault: type[errors.Fault] | None) -> None:
        assert refusal(View(state, "", False, True, True)) is fault


class Model:
    """What must be so, computed from the whole past each time."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.past: list[tuple[float, Event]] = []

    def all(self, kind: type[Event]) -> bool:
        return any(isinstance(event, kind) for _, event in self.past)

    def life(self) -> list[tuple[float, Event]] | None:
        """What has happened since the engine came up, its coming first; None while it is not up."""
        life: list[tuple[float, Event]] | None = None
        for at, event in self.past:
            match event:
                case EngineUp() if life is None or event != life[0][1]:
                    life = [(at, event)]
                case EngineDown():
                    life = None
                case _ if life is not None:
                    life.append((at, event))
        return life

    def looks(self, life: list[tuple[float, Event]]) -> list[tuple[int, Looked]]:
        """Those in order, each with its place in the life."""
        found: list[tuple[int, Looked]] = []
        for index, (at, event) in enumerate(life):
            if isinstance(event, Looked) and (found[-1][1].at if found else life[0][0]) <= event.at <= at:
                found.append((index, event))
        return found

    def span(self, life: list[tuple[float, Event]], kind: str) -> float:
        """How long the condition of this kind has lasted at the last look; below 0 if it does not hold."""
        looks = self.looks(life)
        first: tuple[int, Looked] | None = None
        for index, look in reversed(looks):
            later = first[1] if first else None
            if not self.holds(look, kind) or (later is not None and not self.same(look, later, kind)):
                break
            first = index, look
        if first is None:
            return -1.0
        signs = [at for at, event in life[first[0] :] if isinstance(event, Progressed | WarmedUp)]
        return looks[-1][1].at - max([first[1].at, *signs])

    @staticmethod
    def holds(look: Looked, kind: str) -> bool:
        if kind == "ours":
            return bool(look.ours_running)
        if kind == "strangers":
            return bool(look.strangers_running) and not look.ours_running
        return bool(look.ours_pending + look.strangers_pending) and not (look.ours_running + look.strangers_running)

    @staticmethod
    def same(look: Looked, later: Looked, kind: str) -> bool:
        if kind == "ours":
            return set(look.ours_running) == set(later.ours_running)
        if kind == "strangers":
            return set(look.strangers_running) == set(later.strangers_running)
        return set(look.ours_pending + look.strangers_pending) <= set(later.ours_pending + later.strangers_pending)

    def stalled(self, limits: Limits, now: float) -> bool:
        life = self.life()
        if life is None:
            return False
        signs = [at for at, event in life if isinstance(event, Progressed | WarmedUp)]
        looks = self.looks(life)
        silence = now - max([life[0][0], *signs, *(look.at for _, look in looks)])
        since = looks[-1][0] if looks else 0
        explained = [event.explained for _, event in life[since:] if isinstance(event, Tick)]
        patience = max([limits.stall_patience, *explained, *(look.explained for _, look in looks[-1:])])
        working = self.span(life, "ours") <= patience
        moving = self.span(life, "pending") < limits.pending_patience
        return not (working and moving and silence <= patience)

    def fitness(self, limits: Limits, now: float) -> State:
        life = self.life()
        if self.all(BudgetSpent) or self.stalled(limits, now):
            return State.FAILED
        if life is None:
            late = now - self.since > limits.startup_patience
            return State.FAILED if late or self.all(EngineDown) else State.STARTING
        if self.span(life, "strangers") > limits.stranger_patience:
            return State.FAILED
        warm_ups = [event for _, event in life if isinstance(event, WarmedUp | WarmupFailed)]
        if warm_ups:
            return State.READY if isinstance(warm_ups[-1], WarmedUp) else State.FAILED
        return State.FAILED if now - life[0][0] > limits.startup_patience else State.STARTING

    def fresh(self, limits: Limits, now: float) -> bool:
        looks = self.looks(self.life() or [])
        return bool(looks) and now - looks[-1][1].at <= limits.staleness

    def started(self) -> bool:
        up = False
        for _, event in self.past:
            up = (up or isinstance(event, EngineUp)) and not isinstance(event, EngineDown)
            if up and isinstance(event, WarmedUp):
                return True
        return False

    def busy(self, limits: Limits) -> bool:
        """By the last mark that was passed."""
        for _, event in reversed(self.past):
            if isinstance(event, Depth) and event.depth >= limits.busy_at:
                return True
            if isinstance(event, Depth) and event.depth <= limits.ready_at:
                return False
        return False


running = st.sampled_from([(), ("a",), ("b",), ("b", "a"), ("a", "b")])
pending = st.sampled_from([(), ("c",), ("c", "d"), ("d",)])


class AnySchedule(RuleBasedStateMachine):
    """Random events beside the model."""

    @initialize(busy_is_ready=st.booleans())
    def begin(self, busy_is_ready: bool) -> None:
        self.limits = replace(LIMITS, busy_is_ready=busy_is_ready)
        self.now = 50.0
        self.state = Readiness(self.limits, since=self.now)
        self.model = Model(self.now)
        self.open = False
        self.shown = State.STARTING
        self.was_stalled = False

    def tell(self, event: Event) -> None:
        self.state, effects = step(self.state, event, self.now)
        self.model.past.append((self.now, event))
        stalled = self.model.stalled(self.limits, self.now)
        told = [effect for effect in effects if isinstance(effect, Stalled)]
        assert len(told) == (stalled and not self.was_stalled)
        self.was_stalled = stalled
        for effect in effects:
            match effect:
                case StateChanged(old, new):
                    assert old is self.shown
                    assert new is not old
                    self.shown = new
                case Opened():
                    assert not self.open
                    self.open = True
                case Closed():
                    assert self.open
                    self.open = False
        assert self.open is (self.model.fitness(self.limits, self.now) is State.READY)
        assert self.shown is view(self.state, self.now).state

    @rule(instance=st.sampled_from(["one", "two"]))
    def up(self, instance: str) -> None:
        self.tell(EngineUp(instance))

    @rule(
        ours=running,
        our_pending=pending,
        their_pending=pending,
        repeats=st.integers(1, 5),
        lag=st.floats(0, 0.5),
        explained=st.sampled_from([0.0, 0.0, 5.0, 15.0]),
    )
    def watch_ours(
        self,
        ours: tuple[str, ...],
        our_pending: tuple[str, ...],
        their_pending: tuple[str, ...],
        repeats: int,
        lag: float,
        explained: float,
    ) -> None:
        for _ in range(repeats):
            self.now += 1.0
            self.tell(Looked(self.now - lag, ours, our_pending, (), their_pending, explained))

    @rule(theirs=running, ours=st.sampled_from([(), (), ("c",)]), step=st.sampled_from([1.0, 9.0]))
    def watch_theirs(self, theirs: tuple[str, ...], ours: tuple[str, ...], step: float) -> None:
        for _ in range(4):
            self.now += step
            self.tell(Looked(self.now, ours, (), theirs))

    @rule(at=st.floats(-20, 5))
    def look_astray(self, at: float) -> None:
        self.tell(Looked(self.now + at))

    @rule(event=st.sampled_from([WarmedUp(), WarmedUp(), WarmupFailed("w"), Progressed(), Tick(), Tick(15.0)]))
    def hear(self, event: Event) -> None:
        self.tell(event)

    @rule(
        event=st.sampled_from([EngineDown("d"), EngineDown("e"), DrainStarted(), BudgetSpent("b")]),
        really=st.booleans(),
    )
    def fail(self, event: Event, really: bool) -> None:
        if isinstance(event, EngineDown) or (really and len(self.model.past) > 15):
            self.tell(event)

    @rule(depth=st.integers(0, 6))
    def deepen(self, depth: int) -> None:
        self.tell(Depth(depth))

    @rule(patience=st.sampled_from([2.0, 5.0]))
    def resize(self, patience: float) -> None:
        self.limits = replace(self.limits, pending_patience=patience)
        self.tell(Resize(self.limits))

    @rule(seconds=st.sampled_from([0.5, 1.5, 3.0, 9.0, 21.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_view_is_the_model_s(self) -> None:
        seen = view(self.state, self.now)
        busy = self.model.busy(self.limits)
        expected = self.model.fitness(self.limits, self.now)
        fit, fresh = expected is State.READY, self.model.fresh(self.limits, self.now)
        if fit and busy:
            expected = State.BUSY
        if fit and not fresh:
            expected = State.FAILED if self.model.looks(self.model.life() or []) else State.STARTING
        if self.model.all(DrainStarted):
            expected, fit = State.DRAINING, False
        assert seen.state is expected
        assert seen.stale is (fit and not fresh)
        takes_more = self.limits.busy_is_ready or not busy
        assert seen.ready is (fit and takes_more and fresh)
        assert seen.live is not self.model.all(BudgetSpent)
        assert seen.started is self.model.started()
        assert seen.reason

    @invariant()
    def there_is_a_way_back_from_all_but_the_ends(self) -> None:
        state = self.state
        for event in (EngineUp("three"), WarmedUp(), Looked(self.now), Depth(0)):
            state, _ = step(state, event, self.now)
        final = self.model.all(DrainStarted) or self.model.all(BudgetSpent)
        assert view(state, self.now).ready is not final


AnySchedule.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestAnySchedule = AnySchedule.TestCase
