"""The life of a job: each transition by example, and its promises under any mishap of an engine and any event."""

from collections.abc import Callable, Container, Mapping

import pytest

from converter import errors
from converter.core import evidence, job
from converter.core.deeds import (
    Answer,
    Blame,
    CheckInstance,
    Collect,
    Collected,
    CollectionFailed,
    Delivered,
    Depart,
    Effect,
    Endangered,
    EngineLost,
    Event,
    FileGone,
    FreeMemory,
    Halved,
    InstanceChecked,
    Left,
    LetGo,
    Look,
    Ready,
    Refused,
    RenewSocket,
    Requeue,
    Stage,
    Staged,
    StagingFailed,
    Submit,
    Succeeded,
    Turn,
    Unreached,
    Withdraw,
    Withdrawn,
)
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
from converter.core.evidence import Accepted, EngineGone, Finished, SocketLost, Unanswered, Unseen, Wake
from converter.core.job import WITHDRAWAL, Phase

UI = {"images": [{"filename": "a.png"}]}
RECORD = Record(True, {"1": UI}, ("1",))
INTERRUPTED = Record(False, {}, interrupted=True)
RAN: tuple[Event, ...] = (Began(), Executed("1", UI), RanWell())
TURN = Turn("p", listening=True)
CANCELED = errors.Canceled("by request")
REFUSED = errors.InvalidWorkflow("no")
DEADLINE = 95.0
CLOSED = [LetGo(None), Depart()]
AWAY = Unseen(unreachable=True)


class Life:
    """One job on a clock of its own, and all that it has demanded."""

    def __init__(self, *events: Event, stages: bool = False, max_attempts: int = 3) -> None:
        self.now = 0.0
        self.state, effects = job.begin(DEADLINE, max_attempts, self.now, stages=stages)
        self.demanded: list[Effect] = list(effects)
        self.tell(*events)

    def tell(self, *events: Event) -> list[Effect]:
        demanded: list[Effect] = []
        for event in events:
            self.state, effects = job.step(self.state, event, self.now)
            demanded += effects
        self.demanded += demanded
        return demanded

    def wait(self, seconds: float) -> list[Effect]:
        self.now += seconds
        return self.tell(Wake())

    def see(self, *, running: bool = False, pending: bool = False, record: Record | None = None) -> list[Effect]:
        asked_at, self.now = self.now, self.now + 0.001
        return self.tell(Sight(asked_at, running, pending, record))

    def until_gone(self) -> list[Effect]:
        """Looks find nothing until the job acts on it."""
        while True:
            prompt = self.state.prompt
            assert prompt is not None
            if not prompt.looking:
                assert prompt.wake_at is not None
                self.wait(prompt.wake_at - self.now)
            effects = self.see()
            if any(not isinstance(effect, Look | Withdraw) for effect in effects):
                return effects

    @property
    def phase(self) -> Phase:
        return self.state.phase

    @property
    def fault(self) -> errors.Fault:
        [outcome] = [effect.outcome for effect in self.demanded if isinstance(effect, Answer)]
        assert isinstance(outcome, errors.Fault)
        return outcome


def queued() -> Life:
    return Life(TURN, Accepted())


def running(max_attempts: int = 3) -> Life:
    return Life(TURN, Accepted(), Began(), max_attempts=max_attempts)


def checking(*news: Event) -> Life:
    life = Life(TURN, *news)
    life.until_gone()
    return life


def collecting(max_attempts: int = 3) -> Life:
    return Life(TURN, Accepted(), *RAN, max_attempts=max_attempts)


def delivering() -> Life:
    return Life(TURN, Accepted(), *RAN, Collected())


# An engine that does not come back ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("life", "kind", "closed"),
    [
        (Life(stages=True), errors.EngineDown, [Depart()]),
        (Life(), errors.EngineDown, [Depart()]),
        (Life(TURN, Unreached()), errors.EngineDown, [Depart()]),
        (Life(TURN), errors.EngineFailed, CLOSED),
        (queued(), errors.EngineFailed, CLOSED),
        (running(), errors.EngineFailed, CLOSED),
        (checking(Accepted()), errors.EngineFailed, CLOSED),
    ],
)
def test_a_job_without_an_engine_ends_at_once(life: Life, kind: type[errors.Fault], closed: list[Effect]) -> None:
    effects = life.tell(EngineLost())
    assert effects[1:] == closed
    assert isinstance(life.fault, kind)
    assert life.phase is Phase.DONE


def test_a_job_that_waits_for_its_second_attempt_has_lost_its_engine_too() -> None:
    life = running()
    life.tell(EngineGone())
    life.until_gone()
    assert life.phase is Phase.WAITING
    assert life.tell(EngineLost())[1:] == [Depart()]
    assert isinstance(life.fault, errors.EngineFailed)


def test_what_was_made_is_not_lost_with_the_engine() -> None:
    life = collecting()
    assert life.tell(EngineLost()) == []
    assert life.tell(Collected()) == [Depart(), Answer(Succeeded())]
    assert life.tell(EngineLost()) == []
    assert life.phase is Phase.DELIVERING


def test_nothing_is_taken_back_from_an_engine_that_is_lost() -> None:
    life = running()
    life.tell(Left(CANCELED))
    assert life.tell(EngineLost()) == CLOSED
    assert life.fault is CANCELED


# The plain life ----------------------------------------------------------------------------------------------------


def test_a_job_with_inputs_stages_waits_is_submitted_runs_is_collected_and_delivered() -> None:
    life = Life(stages=True)
    assert (life.phase, life.demanded) == (Phase.STAGING, [Stage()])
    assert (life.tell(Staged()), life.phase) == ([Ready()], Phase.WAITING)
    assert (life.tell(TURN), life.phase) == ([Submit("p", fresh=False)], Phase.SUBMITTING)
    assert (life.tell(Accepted()), life.phase) == ([], Phase.QUEUED)
    assert (life.tell(Began()), life.phase) == ([], Phase.RUNNING)
    life.now += 2.0
    assert life.tell(*RAN[1:]) == [LetGo(2.0), Collect(Finished({"1": UI}))]
    assert (life.phase, life.state.turn) == (Phase.COLLECTING, False)
    assert life.tell(Collected()) == [Depart(), Answer(Succeeded())]
    assert life.phase is Phase.DELIVERING
    assert job.wake_at(life.state) is None
    assert (life.tell(Delivered()), life.phase) == ([], Phase.DONE)


def test_a_job_without_inputs_waits_for_its_turn_at_once() -> None:
    assert (Life().phase, Life().demanded) == (Phase.WAITING, [Ready()])


def test_timings_are_the_seconds_of_each_phase() -> None:
    life = Life(stages=True)
    for event in (Staged(), TURN, Accepted(), Began(), *RAN[1:], Collected(), Delivered()):
        life.now += 1.0
        life.tell(event)
    life.now += 5.0
    expected = {"staging": 1.0, "waiting": 1.0, "queued": 2.0, "executing": 2.0, "collecting": 1.0}
    assert job.timings(life.state, life.now) == expected
    assert job.timings(Life(stages=True).state, 3.0)["staging"] == 3.0, "the phase under way counts"


@pytest.mark.parametrize(
    "news",
    [Began(), Entered("1"), QueueView(0.0, ("p",), ()), Sight(0.0, True, False)],
    ids=["start", "node", "view", "sight"],
)
def test_whatever_shows_that_the_prompt_runs_counts(news: Event) -> None:
    life = queued()
    if isinstance(news, Sight):
        life.tell(SocketLost())
    life.tell(news)
    assert life.phase is Phase.RUNNING


def test_a_prompt_may_be_heard_before_its_submission_is_answered() -> None:
    assert Life(TURN, Alive()).phase is Phase.SUBMITTING
    life = Life(TURN, *RAN)
    assert life.phase is Phase.RUNNING
    assert life.tell(Accepted()) == [LetGo(0.0), Collect(Finished({"1": UI}))]


def test_only_what_was_heard_to_begin_in_a_first_attempt_measures_the_engine() -> None:
    unheard = Life(Turn("p", listening=False), Unanswered())
    assert LetGo(None) in unheard.see(record=RECORD)
    second = Life(TURN, Accepted(), EngineGone(), AWAY, Turn("q", listening=True), Accepted(), *RAN)
    assert second.demanded[-2] == LetGo(None)


# Staging and submission --------------------------------------------------------------------------------------------


def test_an_input_that_cannot_be_staged_ends_the_job() -> None:
    life = Life(stages=True)
    assert life.tell(StagingFailed(REFUSED)) == [Answer(REFUSED), Depart()]
    assert life.phase is Phase.DONE


@pytest.mark.parametrize("heard", [(), (Alive(),), (Began(),)], ids=["unheard", "heard", "begun"])
def test_a_refused_prompt_ends_the_job(heard: tuple[Event, ...]) -> None:
    life = Life(TURN, *heard)
    assert life.tell(Refused(REFUSED)) == [Answer(REFUSED), *CLOSED]


def test_a_prompt_that_was_accepted_in_part_is_answered_and_withdrawn() -> None:
    life = Life(TURN)
    assert life.tell(Halved(REFUSED)) == [Answer(REFUSED), Withdraw("p")]
    assert life.tell(Withdrawn()) == [Look("p")]
    assert life.see() == CLOSED


def test_it_is_withdrawn_also_if_it_was_heard_to_begin_first() -> None:
    life = Life(TURN, Began())
    assert life.tell(Halved(REFUSED)) == [Answer(REFUSED), Withdraw("p")]
    assert Life(TURN, *RAN).tell(Halved(REFUSED)) == [Answer(REFUSED), *CLOSED]


def test_an_engine_that_was_not_reached_costs_no_attempt() -> None:
    life = Life(TURN, max_attempts=1)
    for _ in range(5):
        assert life.tell(Unreached()) == [LetGo(None), Requeue(alone=False)]
        assert (life.phase, life.state.attempt, life.state.prompt) == (Phase.WAITING, 0, None)
        assert life.tell(TURN) == [Submit("p", fresh=False)]


def test_an_unknown_submission_is_resolved_before_another_is_made() -> None:
    life = Life(TURN)
    assert life.tell(Unanswered()) == [Look("p")]
    assert life.until_gone() == [CheckInstance()]
    assert life.tell(InstanceChecked(same=True)) == [LetGo(None), Requeue(alone=False)]
    assert life.state.attempt == 1


def test_a_submission_without_an_answer_that_is_found_goes_on() -> None:
    life = Life(TURN, Unanswered())
    assert (life.see(pending=True), life.phase) == ([], Phase.QUEUED)


# Ends --------------------------------------------------------------------------------------------------------------


def test_a_node_that_raised_is_the_workflows_fault() -> None:
    life = running()
    failed = Failed("3", "KSampler", "in /opt/comfy/nodes.py: no", "ValueError")
    life.tell(failed, Released())
    assert life.see(record=Record(False, {}, failure=failed)) == [Answer(life.fault), *CLOSED]
    assert isinstance(life.fault, errors.ExecutionFailed)
    assert life.fault.extensions == {"node_id": "3", "class_type": "KSampler", "exception_type": "ValueError"}
    assert "/opt" not in life.fault.detail


def test_a_node_without_words_gave_no_reason() -> None:
    life = Life(TURN, Unanswered())
    life.see(record=Record(False, {}, failure=Failed(None, None, "", "")))
    assert (life.fault.detail, life.fault.extensions) == ("the node gave no reason", {})


@pytest.mark.parametrize(
    "kind", ["torch.OutOfMemoryError", "torch.cuda.OutOfMemoryError", "OutOfMemoryError", "comfy.OOM_EXCEPTION"]
)
def test_out_of_memory_is_told_by_the_exceptions_type_and_frees_memory(kind: str) -> None:
    life = Life(TURN, Unanswered())
    record = Record(False, {}, failure=Failed("3", "KSampler", "Allocation on device", kind))
    assert life.see(record=record) == [Answer(life.fault), *CLOSED, FreeMemory()]
    assert isinstance(life.fault, errors.OutOfMemory)


@pytest.mark.parametrize("kind", ["ValueError", "", "MemoryErrorReport", "NotAnOutOfMemoryError.Other"])
def test_a_callers_own_words_are_no_trouble_with_memory(kind: str) -> None:
    life = Life(TURN, Unanswered())
    life.see(record=Record(False, {}, failure=Failed("3", "Say", "torch.OutOfMemoryError: out of memory", kind)))
    assert isinstance(life.fault, errors.ExecutionFailed)
    assert FreeMemory() not in life.demanded


def test_a_prompt_that_others_interrupted_is_canceled() -> None:
    life = running()
    life.tell(Interrupted("1"), Released())
    life.see(record=Record(False, {}, interrupted=True))
    assert isinstance(life.fault, errors.Canceled)
    assert "interrupted" in life.fault.detail


def test_a_prompt_that_others_removed_from_the_queue_is_canceled() -> None:
    life = checking(Accepted())
    assert (life.phase, life.demanded[-1]) == (Phase.CHECKING, CheckInstance())
    assert life.tell(InstanceChecked(same=True)) == [Answer(life.fault), *CLOSED]
    assert isinstance(life.fault, errors.Canceled)
    assert "removed" in life.fault.detail


@pytest.mark.parametrize("news", [(Accepted(), Began()), (Accepted(), QueueView(0.0, ("p",), ()))])
def test_a_prompt_that_ran_and_left_no_record_is_the_engines_failure(news: tuple[Event, ...]) -> None:
    life = checking(*news)
    assert life.tell(InstanceChecked(same=True)) == [Answer(life.fault), *CLOSED]
    assert isinstance(life.fault, errors.EngineFailed)


def test_a_socket_that_was_silent_about_the_end_is_renewed() -> None:
    life = running()
    life.now = 0.5
    life.tell(QueueView(0.5, (), ()))
    assert life.wait(evidence.HEARING) == [Look("p")]
    assert life.see(record=RECORD)[0] == RenewSocket()


# Crashes -----------------------------------------------------------------------------------------------------------


def test_a_prompt_that_was_at_the_engine_at_the_crash_is_a_suspect_and_runs_again_alone() -> None:
    for life in (running(), queued()):
        assert life.tell(EngineGone()) == [Look("p")]
        assert life.tell(AWAY) == [LetGo(None), Requeue(alone=True, crashed=True)]
        assert life.phase is Phase.WAITING
        assert life.tell(Turn("q", listening=False)) == [Submit("q", fresh=False)]


def test_who_kills_the_engine_while_alone_is_blamed_and_refused_after_the_second_time() -> None:
    life = running(max_attempts=10)
    assert Blame() not in life.tell(EngineGone(), AWAY), "it was not alone"
    assert life.tell(Turn("q", listening=True), Accepted(), EngineGone(), AWAY)[-3:] == [
        Blame(),
        LetGo(None),
        Requeue(alone=True, crashed=True),
    ]
    effects = life.tell(Turn("r", listening=True), Accepted(), EngineGone(), AWAY)
    assert effects[-4:] == [Blame(), Answer(life.fault), *CLOSED]
    assert isinstance(life.fault, errors.InvalidWorkflow)


def test_who_was_near_a_death_stays_alone() -> None:
    life = running()
    life.tell(EngineGone(), AWAY)
    assert life.tell(Turn("q", listening=True), Unreached()) == [
        Submit("q", fresh=False),
        LetGo(None),
        Requeue(alone=True),
    ]


@pytest.mark.parametrize("event", [InstanceChecked(same=False), EngineGone()])
def test_a_crash_may_be_found_out_by_asking(event: Event) -> None:
    life = checking(Accepted(), Began())
    assert life.tell(event) == [LetGo(None), Requeue(alone=True, crashed=True)]
    assert life.tell(InstanceChecked(same=False)) == [], "asked for the prompt before"


def test_a_crash_while_the_submission_is_under_way_waits_for_its_answer() -> None:
    life = Life(TURN)
    assert life.tell(EngineGone()) == []
    assert life.tell(Accepted()) == [Look("p")]
    life.see(running=True)
    assert life.phase is Phase.RUNNING, "it had reached the next engine"


def test_an_engine_that_fails_too_often_has_failed() -> None:
    life = Life(max_attempts=2)
    life.tell(TURN, Accepted(), EngineGone(), AWAY)
    assert life.tell(Turn("q", listening=True), Accepted(), EngineGone(), AWAY)[-3:] == [
        Answer(life.fault),
        *CLOSED,
    ]
    assert isinstance(life.fault, errors.EngineFailed)
    assert "2 times" in life.fault.detail


def test_a_crash_while_the_outputs_are_collected_changes_nothing_since_files_outlive_the_engine() -> None:
    life = collecting()
    assert life.tell(EngineGone(), Unreached()) == []
    assert life.phase is Phase.COLLECTING


# Collection --------------------------------------------------------------------------------------------------------


def test_a_file_that_is_gone_is_made_once_more_under_a_fresh_name_even_in_the_last_attempt() -> None:
    life = collecting(max_attempts=1)
    assert life.tell(FileGone()) == [Requeue(alone=False)]
    assert life.tell(Turn("q", listening=True)) == [Submit("q", fresh=True)]
    life.tell(Accepted(), *RAN)
    assert life.tell(FileGone()) == [Answer(life.fault), Depart()]
    assert isinstance(life.fault, errors.EngineFailed)


def test_outputs_that_cannot_be_had_end_the_job() -> None:
    assert collecting().tell(CollectionFailed(REFUSED)) == [Answer(REFUSED), Depart()]


# Leaving and the deadline ------------------------------------------------------------------------------------------

ENDS_AT_ONCE: Mapping[str, Callable[[], Life]] = {
    "staging": lambda: Life(stages=True),
    "waiting": Life,
    "collecting": collecting,
    "checking": lambda: checking(Accepted()),
}


@pytest.mark.parametrize("phase", ENDS_AT_ONCE)
@pytest.mark.parametrize("late", [False, True], ids=["canceled", "late"])
def test_where_the_engine_has_nothing_of_the_job_it_ends_at_once(phase: str, late: bool) -> None:
    life = ENDS_AT_ONCE[phase]()
    effects = life.wait(DEADLINE - life.now) if late else life.tell(Left(CANCELED))
    held = [LetGo(None)] if phase == "checking" else []
    assert effects == [Answer(life.fault), *held, Depart()]
    assert life.phase is Phase.DONE
    assert isinstance(life.fault, errors.DeadlineExceeded if late else errors.Canceled)


@pytest.mark.parametrize("late", [False, True], ids=["canceled", "late"])
def test_a_submission_under_way_is_awaited_then_withdrawn(late: bool) -> None:
    life = Life(TURN)
    assert (life.wait(DEADLINE) if late else life.tell(Left(CANCELED))) == [Answer(life.fault)]
    assert life.phase is Phase.STOPPING
    assert job.wake_at(life.state) is None
    assert life.tell(Began()) == [], "what is not known to be there can't be withdrawn"
    assert life.tell(Accepted()) == [Withdraw("p")]
    assert life.tell(Withdrawn()) == [Look("p")]
    assert life.see() == CLOSED


@pytest.mark.parametrize("late", [False, True], ids=["canceled", "late"])
@pytest.mark.parametrize("begin", [queued, running])
def test_a_prompt_at_the_engine_is_answered_for_then_withdrawn(begin: type[Life], late: bool) -> None:
    life = begin()
    assert (life.wait(DEADLINE) if late else life.tell(Left(CANCELED))) == [Answer(life.fault), Withdraw("p")]
    assert life.phase is Phase.STOPPING
    assert life.tell(Left(CANCELED)) == []
    life.tell(Withdrawn(), Interrupted("1"), Released())
    assert life.see(record=Record(False, {}, interrupted=True)) == CLOSED


def test_the_deadline_says_where_the_time_went() -> None:
    life = Life()
    life.now = 80.0
    life.tell(TURN, Accepted(), Began())
    life.wait(DEADLINE - 80.0)
    assert life.fault.extensions["phase"] == "running"
    assert life.fault.extensions["timings"]["waiting"] == 80.0
    assert "most of the time went into waiting" in life.fault.detail


def test_the_time_counts_from_when_the_request_came() -> None:
    state, _ = job.begin(DEADLINE, 3, 30.0, stages=False, begun=20.0)
    _, [answer, *_] = job.step(state, Wake(), DEADLINE)
    assert isinstance(answer, Answer)
    assert isinstance(answer.outcome, errors.DeadlineExceeded)
    assert answer.outcome.extensions["timings"]["total"] == DEADLINE - 20.0


def test_nothing_is_submitted_after_the_deadline_and_a_late_turn_is_given_back() -> None:
    life = Life()
    life.now = DEADLINE
    assert life.tell(TURN) == [Answer(life.fault), *CLOSED]
    assert isinstance(life.fault, errors.DeadlineExceeded)


def test_the_alarm_is_set_for_the_deadline_and_for_nothing_once_all_is_done() -> None:
    assert job.wake_at(Life().state) == DEADLINE
    assert Life().wait(DEADLINE - 0.01) == []
    life = queued()
    assert job.wake_at(life.state) == evidence.SILENCE
    life.tell(Left(CANCELED), Withdrawn())
    life.see()
    assert job.wake_at(life.state) is None


def test_who_leaves_during_the_delivery_ends_it() -> None:
    life = delivering()
    assert life.tell(Left(CANCELED)) == []
    assert life.tell(Delivered(), Left(CANCELED), Wake()) == []


# Stopping ----------------------------------------------------------------------------------------------------------


def test_one_order_to_let_go_is_under_way_at_a_time_and_repeated_until_it_has_worked() -> None:
    life = running()
    life.tell(Left(CANCELED))
    assert life.wait(10 * WITHDRAWAL) == [Look("p")], "the order is still under way"
    assert life.tell(Withdrawn()) == []
    assert life.see(running=True) == [Look("p")]
    assert life.see(running=True) == []
    assert life.wait(WITHDRAWAL) == [Withdraw("p")]
    assert life.tell(Withdrawn(), Withdrawn()) == [Look("p")]


@pytest.mark.parametrize("event", [Refused(REFUSED), Unreached()])
def test_a_prompt_that_never_was_needs_no_withdrawal(event: Event) -> None:
    life = Life(TURN, Left(CANCELED))
    assert life.tell(event) == CLOSED
    accepted = Life(TURN, Left(CANCELED), Accepted())
    assert accepted.tell(event) == [], "no answer to a submission that has been answered"


def test_a_prompt_accepted_in_part_is_withdrawn_like_any() -> None:
    assert Life(TURN, Left(CANCELED)).tell(Halved(REFUSED)) == [Withdraw("p")]


def test_a_submission_without_an_answer_is_withdrawn_until_its_absence_is_proven() -> None:
    life = Life(TURN, Left(CANCELED))
    assert life.tell(Unanswered()) == [Look("p"), Withdraw("p")]
    life.see()
    life.tell(Withdrawn())
    assert life.phase is Phase.STOPPING
    assert life.until_gone() == CLOSED
    assert life.now >= evidence.DELIVERY
    assert life.demanded.count(Withdraw("p")) == 2, "at once, and repeated after a while"


def test_a_look_from_before_the_prompt_was_heard_does_not_end_the_job() -> None:
    life = Life(TURN, Left(CANCELED), Unanswered())
    life.now = 1.0
    life.tell(Began())
    life.tell(Sight(0.0, False, False))
    assert life.phase is Phase.STOPPING


def test_an_engine_that_is_gone_has_let_go() -> None:
    life = running()
    life.tell(Left(CANCELED))
    assert life.tell(EngineGone(), AWAY) == [Look("p"), *CLOSED]


def test_a_success_that_comes_first_ends_the_job_as_it_was_answered() -> None:
    life = running()
    life.tell(Left(CANCELED))
    assert life.tell(*RAN[1:]) == CLOSED
    assert life.fault is CANCELED


def interrupt(life: Life) -> list[Effect]:
    """The prompt is interrupted, and its record says so."""
    life.tell(Interrupted(None), Released())
    return life.see(record=INTERRUPTED)


def test_one_of_ours_that_our_own_interrupt_hit_is_run_again() -> None:
    life = running(max_attempts=2)
    assert life.tell(Endangered()) == []
    assert interrupt(life) == [LetGo(None), Requeue(alone=False)]
    assert not life.state.endangered
    life.tell(Turn("q", listening=True), Accepted(), Began(), Endangered())
    interrupt(life)
    assert isinstance(life.fault, errors.EngineFailed), "not for ever, and it was nobody else"


def test_one_that_somebody_else_interrupts_is_not_run_again() -> None:
    life = running(max_attempts=2)
    assert interrupt(life)[-2:] == CLOSED
    assert isinstance(life.fault, errors.Canceled)


FITTING: Mapping[str, tuple[Life, Container[type[Event]]]] = {
    "staging": (Life(stages=True), {Staged, StagingFailed}),
    "waiting": (Life(), {Turn}),
    "checking": (checking(Accepted()), {InstanceChecked, EngineGone}),
    "collecting": (collecting(), {Collected, FileGone, CollectionFailed, EngineGone, Unreached}),
    "delivering": (delivering(), {Delivered}),
    "queued": (queued(), {Unanswered, SocketLost, EngineGone, Alive, Began, QueueView, Endangered}),
}
EVENTS: list[Event] = [Staged(), StagingFailed(REFUSED), TURN, InstanceChecked(same=True), EngineGone(), Collected()]
EVENTS += [
    FileGone(),
    CollectionFailed(REFUSED),
    Unreached(),
    Delivered(),
    Unanswered(),
    SocketLost(),
    Alive(),
    Began(),
]
EVENTS += [Endangered(), Withdrawn(), Refused(REFUSED), Halved(REFUSED), QueueView(0.0, (), ()), Wake(), Accepted()]


@pytest.mark.parametrize("phase", FITTING)
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_that_does_not_fit_the_phase_changes_nothing(phase: str, event: Event) -> None:
    life, fitting = FITTING[phase]
    if type(event) not in fitting:
        assert job.step(life.state, event, life.now + 0.001) == (life.state, ())
