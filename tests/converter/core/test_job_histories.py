"""A job's promises, carried by a simulated runner at a simulated engine, and under events that make no sense."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from hypothesis import example, given, settings
from hypothesis import strategies as st

from converter import errors
from converter.core import deeds, job
from converter.core.deeds import Effect, Event
from converter.core.events import (
    Alive,
    Began,
    Entered,
    Executed,
    Failed,
    Interrupted,
    QueueView,
    Record,
    Released,
    Sight,
)
from converter.core.events import Succeeded as RanWell
from converter.core.evidence import Accepted, EngineGone, Finished, SocketBack, SocketLost, Unanswered, Unseen, Wake
from converter.core.job import Job, Phase
from tests.converter.core.simulation import MOMENTS, PLANS, Clock, Engine, Plan

FAULT = errors.InvalidWorkflow("no")
LEFT = "left"
LONGEST = 300.0
"""Seconds after which every job has ended: the deadline, what the engine may be busy with, and all patiences."""


@dataclass(frozen=True)
class Story:
    """What befalls a job beside what befalls the engine. `leave`: when its caller goes. `stray`: when an interrupt of
    ours that is meant for another prompt hits whatever of ours runs.
    """

    plan: Plan = field(default_factory=Plan)
    stages: Literal["nothing", "well", "badly"] = "nothing"
    post: Literal["as planned", "refused", "halved", "unreached"] = "as planned"
    files: Literal["there", "gone once", "gone", "broken"] = "there"
    leave: float | None = None
    stray: float | None = None
    timeout: float = 95.0
    max_attempts: int = 3
    delay: float = 0.0


STORIES = st.builds(
    Story,
    plan=PLANS,
    stages=st.sampled_from(["nothing", "nothing", "well", "badly"]),
    post=st.sampled_from(["as planned", "as planned", "as planned", "as planned", "refused", "halved", "unreached"]),
    files=st.sampled_from(["there", "there", "there", "gone once", "gone", "broken"]),
    leave=st.one_of(st.none(), MOMENTS),
    stray=st.one_of(st.none(), MOMENTS),
    timeout=st.sampled_from([95.0, 95.0, 95.0, 0.0, 0.1, 3.0, 12.0]),
    max_attempts=st.integers(1, 3),
    delay=st.sampled_from([0.0, 0.001, 0.5, 4.0]),
)


class Runner:
    """Does what the machine demands, as `runner.Run` does, and checks what it may demand."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.clock = Clock()
        self.engine = engine = Engine(self.clock, story.plan)
        engine.hear = lambda prompt_id, sound: self.follow(sound) if prompt_id == self.following else None
        engine.lost = lambda: self.follow(SocketLost())
        engine.back = lambda: self.follow(SocketBack())
        engine.gone = lambda: self.follow(EngineGone(ended=story.plan.supervised))
        self.ids = count(1)
        self.submitted: list[str] = []
        self.unreached = 0
        self.interrupting = False
        self.following: str | None = None
        self.instance = 0
        self.epoch = 0
        self.steps = 0
        self.turn = False
        self.done: dict[type[Effect], int] = {deeds.Answer: 0, deeds.Depart: 0}
        self.outcome: deeds.Outcome | None = None
        self.answered_at = 0.0
        self.state, effects = job.begin(story.timeout, story.max_attempts, 0.0, stages=story.stages != "nothing")
        if story.leave is not None:
            self.clock.after(story.leave, lambda: self.feed(deeds.Left(errors.Canceled(LEFT))))
        if story.stray is not None:
            self.clock.after(story.stray, self.interrupt_another)
        if story.plan.views:
            self.watch()
        self.set_alarm(in_vain=False)
        for effect in effects:
            self.perform(effect)

    def watch(self) -> None:
        self.engine.view(self.follow)
        self.clock.after(0.5, self.watch)

    def interrupt_another(self) -> None:
        """Followers are told before, and whoever follows a prompt meanwhile, as `link.engine` does."""
        self.interrupting = True
        self.follow(deeds.Endangered())
        self.clock.after(0.01, self.engine.stop_ours)
        self.clock.after(0.02, lambda: setattr(self, "interrupting", False))

    def follow(self, event: Event) -> None:
        if self.following is not None:
            self.feed(event)

    def later(self, event: Event, seconds: float | None = None) -> None:
        """Report it after a while, unless the job has been put back into the queue by then."""
        self.clock.after(self.story.delay if seconds is None else seconds, self.reply(event))

    def reply(self, event: Event) -> Callable[[], None]:
        reply = self.replies()
        return lambda: reply(event)

    def replies(self) -> Callable[[Event], None]:
        epoch = self.epoch
        return lambda event: self.feed(event) if epoch == self.epoch else None

    def feed(self, event: Event) -> None:
        self.steps += 1
        before = self.state
        self.state, effects = job.step(before, event, self.clock.now)
        spent = job.timings(self.state, self.clock.now)
        assert all(seconds >= 0 for seconds in spent.values())
        assert sum(spent.values()) <= self.clock.now + 1e-9
        if before.phase is Phase.DONE:
            assert (self.state, effects) == (before, ())
        for effect in effects:
            self.perform(effect)
        self.set_alarm(in_vain=isinstance(event, Wake) and self.state == before)

    def set_alarm(self, *, in_vain: bool) -> None:
        moment = job.wake_at(self.state)
        if moment is None:
            return
        assert moment > self.clock.now or not in_vain, "no alarm is set in vain again"
        self.clock.after(max(moment - self.clock.now, 0.0) + 1e-9, lambda: self.ring(moment))

    def ring(self, moment: float) -> None:
        if job.wake_at(self.state) == moment:
            self.feed(Wake())

    def perform(self, effect: Effect) -> None:
        story, engine = self.story, self.engine
        match effect:
            case deeds.Stage():
                self.later(deeds.Staged() if story.stages == "well" else deeds.StagingFailed(FAULT))
            case deeds.Ready():
                self.clock.after(story.delay, self.give_turn)
            case deeds.Submit(prompt_id):
                self.submit(prompt_id)
            case deeds.Look(prompt_id):
                assert prompt_id == self.following
                engine.look(prompt_id, self.replies())
            case deeds.CheckInstance():
                self.check_instance()
            case deeds.Withdraw(prompt_id):
                engine.withdraw(prompt_id, self.reply(deeds.Withdrawn()))
            case deeds.Collect(finished):
                self.collect(finished)
            case deeds.Answer(outcome):
                self.outcome, self.answered_at = outcome, self.clock.now
                self.done[deeds.Answer] += 1
                if isinstance(outcome, deeds.Succeeded):
                    self.later(deeds.Delivered())
            case deeds.LetGo(served):
                assert self.turn, "a turn is given back once"
                assert served is None or served >= 0
                self.turn = False
                self.check_let_go()
            case deeds.Requeue():
                self.epoch += 1
                self.following = None
                self.clock.after(story.delay, self.give_turn)
            case deeds.Depart():
                self.done[deeds.Depart] += 1
                assert not self.turn
                self.check_let_go()
            case deeds.RenewSocket():
                engine.socket = None
                self.clock.after(0.0, engine.lost)
                self.clock.after(0.01, engine.renew)
            case deeds.FreeMemory():
                raise AssertionError("nothing here is out of memory")

    def give_turn(self) -> None:
        if self.state.phase is not Phase.WAITING:
            return
        if not self.engine.alive:
            self.clock.after(0.5, self.give_turn)
            return
        self.turn = True
        self.feed(deeds.Turn(f"p{next(self.ids)}", listening=self.engine.socket is not None))

    def submit(self, prompt_id: str) -> None:
        story = self.story
        assert self.outcome is None, "nothing is submitted after a cancel"
        assert self.clock.now < story.timeout, "nothing is submitted after the deadline"
        self.check_let_go()
        for earlier in self.submitted:
            record = self.engine.ended.get(earlier)
            if record is None:
                continue
            forgotten = story.plan.crash is not None or story.plan.evicted or story.plan.cleared is not None
            excused = forgotten or story.files.startswith("gone") or (story.stray is not None and record.interrupted)
            assert excused, "nothing that ended for all to see is run again"
        self.submitted.append(prompt_id)
        self.following = prompt_id
        if self.interrupting:
            self.clock.after(0.0, lambda: self.follow(deeds.Endangered()))
        self.instance = self.engine.generation
        first = len(self.submitted) == 1
        if story.post == "refused":
            self.later(deeds.Refused(FAULT))
        elif not self.engine.alive or (story.post == "unreached" and first):
            self.unreached += 1
            self.later(deeds.Unreached())
        elif story.post == "halved":
            self.engine.submit(prompt_id, self.replies(), deeds.Halved(FAULT))
        else:
            self.engine.submit(prompt_id, self.replies())

    def check_instance(self) -> None:
        if self.engine.alive:
            self.later(deeds.InstanceChecked(same=self.engine.generation == self.instance))
        else:
            self.clock.after(0.5, self.check_instance)

    def collect(self, finished: Finished) -> None:
        record = self.engine.ended[self.submitted[-1]]
        assert record is not None
        assert finished.outputs == record.outputs
        files = self.story.files
        if files == "broken":
            self.later(deeds.CollectionFailed(errors.EngineFailed("no file can be read")))
        elif files == "gone" or (files == "gone once" and not self.state.fresh):
            self.later(deeds.FileGone())
        else:
            self.later(deeds.Collected())

    def check_let_go(self) -> None:
        """The engine has none of the job's prompts, unless its end is out and only the worker's farewell is missing."""
        for prompt_id in self.submitted:
            assert not self.engine.holds(prompt_id) or prompt_id in self.engine.ended


def carry(story: Story) -> Runner:
    runner = Runner(story)
    runner.clock.run(lambda: runner.state.phase is Phase.DONE, LONGEST)
    assert runner.state.phase is Phase.DONE, "every job ends"
    runner.clock.run(lambda: False, runner.clock.now + 15.0)
    return runner


def is_true(outcome: deeds.Outcome | None, runner: Runner) -> bool:
    """Whether what the job was answered can be so, as far as the story tells; outputs are compared as they come. That
    one was blocked is told by the socket alone.
    """
    story, plan = runner.story, runner.story.plan
    broke = plan.end in ("failed", "blocked", "cycle")
    forgotten = plan.evicted or plan.cleared is not None
    match outcome:
        case deeds.Succeeded():
            return plan.end in ("success", "silent", "blocked") and story.files in ("there", "gone once")
        case errors.ExecutionFailed():
            return broke
        case errors.InvalidWorkflow():
            return story.stages == "badly" or story.post in ("refused", "halved")
        case errors.DeadlineExceeded():
            return runner.answered_at >= story.timeout
        case errors.Canceled(detail=detail):
            left = detail == LEFT and story.leave is not None
            stopped = "interrupted" in detail and plan.interrupted is not None
            removed = "removed" in detail and (plan.deleted is not None or forgotten)
            return left or stopped or removed
        case errors.EngineFailed():
            lost = plan.crash is not None or plan.post != "answered" or forgotten
            return lost or story.files != "there" or story.stray is not None
    return False


@settings(max_examples=2000)
@given(STORIES)
@example(Story(Plan(post="late", stall=(0.0, 7.0), views=False)))
@example(Story(Plan(post="answer slow"), post="halved", timeout=3.0))
@example(Story(Plan(nodes=(8.0,), crash=2.0, supervised=True, down=5.0)))
@example(Story(Plan(nodes=(8.0,), crash=0.0, down=0.0, notice=4.0)))
@example(Story(files="gone once", max_attempts=1))
def test_every_job_is_answered_once_and_gives_back_all_that_it_had(story: Story) -> None:
    runner = carry(story)
    assert runner.done == {deeds.Answer: 1, deeds.Depart: 1}
    assert not runner.turn
    assert len(runner.submitted) - runner.unreached <= story.max_attempts + (
        story.files == "gone once" or story.files == "gone"
    )
    assert runner.steps < 600
    assert is_true(runner.outcome, runner)


def test_a_job_without_mishap_succeeds() -> None:
    for post in ("answered", "answer slow", "answer lost", "lost", "late"):
        runner = carry(Story(Plan(post=post)))
        if post == "lost":
            assert isinstance(runner.outcome, errors.EngineFailed)
        else:
            assert runner.outcome == deeds.Succeeded()
            assert runner.engine.ran == runner.submitted == ["p1"]


def test_a_crash_in_mid_run_is_survived() -> None:
    for supervised in (True, False):
        runner = carry(Story(Plan(nodes=(8.0,), crash=2.0, supervised=supervised, down=5.0)))
        assert runner.outcome == deeds.Succeeded()
        assert runner.engine.ran == ["p1", "p2"]


def test_a_prompt_that_reached_the_next_engine_before_anybody_noticed_is_not_run_twice() -> None:
    runner = carry(Story(Plan(nodes=(8.0,), crash=0.0, down=0.0, notice=4.0), delay=0.5))
    assert runner.outcome == deeds.Succeeded()
    assert runner.engine.ran == ["p1"]


# Events that make no sense -----------------------------------------------------------------------------------------

MOMENT = st.floats(0, 200)
FAILURE = Failed("1", "Node", "no", "torch.OutOfMemoryError")
RECORDS = st.sampled_from(
    [None, Record(True, {"1": {}}), Record(False, {}, failure=FAILURE), Record(False, {}, interrupted=True)]
)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.sampled_from([deeds.Staged(), deeds.StagingFailed(FAULT), deeds.Refused(FAULT), deeds.Halved(FAULT)]),
    st.sampled_from([deeds.Unreached(), deeds.Withdrawn(), deeds.Collected(), deeds.FileGone(), deeds.Delivered()]),
    st.sampled_from([deeds.CollectionFailed(FAULT), deeds.Left(FAULT), Accepted(), Unanswered(), SocketLost()]),
    st.sampled_from(
        [SocketBack(), Unseen(), Unseen(unreachable=True), EngineGone(), Began(), Alive(), Entered("1"), RanWell()]
    ),
    st.sampled_from([FAILURE, Executed("1", {}), Interrupted("1"), Released(), deeds.EngineLost()]),
    st.sampled_from([Wake()]),
    st.builds(deeds.Turn, st.just("p"), st.booleans()),
    st.builds(deeds.InstanceChecked, st.booleans()),
    st.builds(QueueView, MOMENT, st.sampled_from([(), ("p",)]), st.sampled_from([(), ("p",)])),
    st.builds(Sight, MOMENT, st.booleans(), st.booleans(), RECORDS),
)


@settings(max_examples=1000)
@given(st.booleans(), st.lists(st.tuples(EVENTS, st.sampled_from([0.0, 0.0, 0.1, 1.0, 7.0, 50.0])), max_size=40))
def test_whatever_is_told_nothing_is_given_back_twice(stages: bool, told: list[tuple[Event, float]]) -> None:
    state, first = job.begin(95.0, 2, 0.0, stages=stages)
    now, turn, effects = 0.0, False, list(first)
    for event, seconds in told:
        now += seconds
        before: Job = state
        state, demanded = job.step(before, event, now)
        effects += demanded
        assert before.phase is not Phase.DONE or (state is before and not demanded)
        turn = turn or (isinstance(event, deeds.Turn) and before.phase is Phase.WAITING)
        for effect in demanded:
            if isinstance(effect, deeds.LetGo):
                assert turn
                turn = False
            if isinstance(effect, deeds.Submit):
                assert now < 95.0
                assert state.outcome is None
        assert turn == state.turn
        spent = job.timings(state, now)
        assert min(spent.values()) >= 0
        assert sum(spent.values()) <= now + 1e-9
        moment = job.wake_at(state)
        in_vain = isinstance(event, Wake) and state == before
        assert not in_vain or moment is None or moment > now
    answers = sum(isinstance(effect, deeds.Answer) for effect in effects)
    departures = sum(isinstance(effect, deeds.Depart) for effect in effects)
    assert answers == (state.outcome is not None)
    assert departures == (state.phase in (Phase.DELIVERING, Phase.DONE))
