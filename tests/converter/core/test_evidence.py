"""Evidence: each sentence of its rules by example, the recordings, and the truth under any mishap of an engine."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import example, given, settings

from converter.core import evidence
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
    Sound,
    Succeeded,
)
from converter.core.evidence import (
    ABSENCE,
    DELIVERY,
    FIRST_RETRY,
    HEARING,
    LAST_RETRY,
    LATENESS,
    SILENCE,
    Accepted,
    Broke,
    EngineGone,
    Evidence,
    Finished,
    News,
    SocketBack,
    SocketLost,
    Stopped,
    Unanswered,
    Unseen,
    Vanished,
    Verdict,
    Wake,
)
from converter.link.answers import parse_history
from converter.link.wire import Message, parse
from tests.converter.core.simulation import PLANS, Clock, Engine, Plan
from tests.fakes import recordings

OURS = "ours"
UI = {"images": [{"filename": "a.png"}]}
WHOLE: tuple[News, ...] = (Accepted(), Began(), Entered("1"), Executed("1", UI), Succeeded())
RECORD = Record(True, {"1": UI}, ("1",))
FAILURE = Failed("1", "Node", "no", "ValueError")
AWAY = Unseen(unreachable=True)


class Prompt:
    """One prompt's evidence on a clock of its own; `looks` counts the looks that were begun."""

    def __init__(self, *news: News, unbroken: bool = True, wanted: str = "") -> None:
        self.now = 100.0
        self.state = evidence.submit(OURS, self.now, unbroken=unbroken, wanted=frozenset(wanted.split()))
        self.looks = 0
        self.tell(*news)

    def tell(self, *news: News) -> "Prompt":
        for one in news:
            self.state, look = evidence.step(self.state, one, self.now)
            self.looks += look
        return self

    def wait(self, seconds: float) -> "Prompt":
        """Let time pass and its alarm ring, if it is due."""
        self.now += seconds
        return self.tell(Wake())

    def see(self, *, running: bool = False, pending: bool = False, record: Record | None = None) -> "Prompt":
        """The look that is under way ends, a moment after it was begun."""
        assert self.looking
        asked_at, self.now = self.now, self.now + 0.001
        return self.tell(Sight(asked_at, running, pending, record))

    def view(self, *, running: str = "", pending: str = "") -> "Prompt":
        return self.tell(QueueView(self.now, tuple(running.split()), tuple(pending.split())))

    def until_gone(self) -> float:
        """Seconds for which looks find nothing until there is a verdict."""
        began = self.now
        while self.verdict is None:
            if not self.looking:
                assert self.state.wake_at is not None
                self.wait(self.state.wake_at - self.now)
            self.see()
        return self.now - began

    @property
    def looking(self) -> bool:
        return self.state.looking

    @property
    def verdict(self) -> Verdict | None:
        return self.state.verdict


# The fast path -----------------------------------------------------------------------------------------------------


def test_what_one_socket_saw_from_start_to_success_needs_no_look() -> None:
    prompt = Prompt(*WHOLE)
    assert prompt.verdict == Finished({"1": UI}, requested=None)
    assert (prompt.looks, prompt.state.deaf) == (0, False)


def test_the_answer_to_the_submission_may_come_last() -> None:
    prompt = Prompt(*WHOLE[1:])
    assert prompt.verdict is None
    assert prompt.tell(Accepted()).verdict == Finished({"1": UI})


def test_a_node_that_answers_again_replaces_what_it_said_and_a_twin_says_nothing() -> None:
    prompt = Prompt(Accepted(), Began(), Executed("1", {"text": ["old"]}), Executed("1", UI), Executed("1", None))
    assert prompt.tell(Succeeded()).verdict == Finished({"1": UI})


@pytest.mark.parametrize(
    "news",
    [
        (Unanswered(), *WHOLE[1:]),
        (*WHOLE[1:], Unanswered()),
        (Accepted(), *WHOLE[2:]),
        (Accepted(), Began(), Entered("1"), Succeeded()),
        (Accepted(), Began(), Executed("1", None), Succeeded()),
        (Accepted(), Began(), replace(FAILURE, midway=True), Executed("1", UI), Succeeded()),
        (Accepted(), SocketLost(), *WHOLE[1:]),
        (Accepted(), SocketBack(), *WHOLE[1:]),
        (SocketLost(), *WHOLE),
    ],
    ids=["no answer", "no answer later", "no start", "no output", "a twin's", "blocked", "lost", "back", "lost early"],
)
def test_any_doubt_means_a_look(news: tuple[News, ...]) -> None:
    prompt = Prompt(*news)
    assert prompt.verdict is None
    assert prompt.looking or prompt.wait(FIRST_RETRY).looking


def test_a_prompt_that_no_socket_listened_for_is_looked_at() -> None:
    assert Prompt(*WHOLE, unbroken=False).wait(FIRST_RETRY).looking


def test_a_success_without_an_output_that_is_wanted_is_looked_at() -> None:
    assert Prompt(*WHOLE, wanted="1").verdict == Finished({"1": UI})
    prompt = Prompt(*WHOLE, wanted="1 2")
    assert prompt.verdict is None
    assert prompt.wait(FIRST_RETRY).looking


# What a sight says -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "verdict"),
    [
        (RECORD, Finished({"1": UI}, ("1",))),
        (Record(False, {}, failure=FAILURE), Broke(FAILURE)),
        (Record(True, {}, failure=FAILURE), Broke(FAILURE)),
        (Record(False, {}, interrupted=True), Stopped()),
        (Record(False, {}), Broke(Failed(None, None, "the engine recorded an error without saying which", ""))),
    ],
    ids=["success", "failure", "cycle", "interrupted", "unsaid"],
)
def test_a_record_settles_the_matter(record: Record, verdict: Verdict) -> None:
    assert Prompt(Unanswered()).see(record=record).verdict == verdict


def test_an_output_that_was_blocked_is_known_from_the_socket_alone() -> None:
    blocked = replace(FAILURE, midway=True)
    prompt = Prompt(Accepted(), Began(), blocked, Succeeded()).wait(FIRST_RETRY)
    assert prompt.see(record=RECORD).verdict == Broke(blocked)


@pytest.mark.parametrize("end", [FAILURE, Interrupted("1"), Released()], ids=["failed", "interrupted", "released"])
def test_an_end_that_is_no_plain_success_is_looked_at_until_the_record_is_there(end: Sound) -> None:
    prompt = Prompt(Accepted(), Began(), end)
    if not prompt.looking:
        prompt.wait(FIRST_RETRY)
    prompt.see(running=True)
    assert prompt.wait(FIRST_RETRY).looking, "the record is only late"
    assert prompt.see(record=Record(False, {}, failure=FAILURE)).verdict == Broke(FAILURE)


def test_an_end_that_was_heard_stays_heard() -> None:
    prompt = Prompt(Accepted(), Began(), Released(), replace(FAILURE, midway=True)).see()
    assert LATENESS <= prompt.until_gone() <= LATENESS + 2 * LAST_RETRY


def test_a_verdict_is_reached_once() -> None:
    prompt = Prompt(*WHOLE)
    settled = prompt.state
    prompt.tell(Unanswered(), SocketLost(), Wake(), EngineGone(), FAILURE, Sight(prompt.now, False, False, RECORD))
    assert prompt.state is settled
    assert prompt.looks == 0


def test_a_submission_is_answered_once() -> None:
    for first in (Accepted(), Unanswered()):
        answered = Prompt(first).wait(1.0)
        state = answered.state
        assert answered.tell(Accepted(), Unanswered()).state is state


def test_a_sight_that_nobody_asked_for_changes_nothing() -> None:
    prompt = Prompt(Accepted())
    state = prompt.state
    assert prompt.tell(Sight(prompt.now, False, False, RECORD), Unseen()).state is state


# When to look ------------------------------------------------------------------------------------------------------


def test_silence_causes_a_look_and_another_for_as_long_as_it_lasts() -> None:
    prompt = Prompt(Accepted())
    assert not prompt.wait(SILENCE - 0.01).looking
    assert prompt.wait(0.01).looking
    prompt.see(pending=True)
    assert not prompt.wait(SILENCE - 0.01).looking
    assert prompt.wait(0.01).looking
    prompt.see(running=True)
    assert prompt.state.running
    prompt.wait(4.0).tell(Alive())
    assert not prompt.wait(4.0).looking, "any news will do"


def test_a_look_that_fails_is_repeated_at_growing_distances() -> None:
    prompt = Prompt(Unanswered())
    pauses = []
    for _ in range(8):
        prompt.tell(Unseen())
        assert prompt.state.wake_at is not None
        pauses.append(prompt.state.wake_at - prompt.now)
        prompt.wait(pauses[-1])
    assert pauses == pytest.approx([FIRST_RETRY * 2**n for n in range(6)] + [LAST_RETRY] * 2)
    prompt.see(pending=True).wait(SILENCE).tell(Unseen())
    assert prompt.state.wake_at == pytest.approx(prompt.now + FIRST_RETRY)


def test_nothing_is_looked_at_before_the_submission_is_answered_and_no_alarm_is_set() -> None:
    for news in (Began(), Released(), Succeeded(), SocketLost(), EngineGone(), Wake(), FAILURE):
        prompt = Prompt(news)
        assert (prompt.looking, prompt.state.wake_at) == (False, None)
    prompt.state = prompt.state._replace(wake_at=prompt.now)
    assert prompt.wait(0.0).state.wake_at is None, "an alarm that can do nothing is not set again"


def test_an_alarm_during_a_look_is_not_set_again_and_causes_one_more_look() -> None:
    prompt = Prompt(Unanswered(), Alive()).wait(SILENCE)
    assert prompt.state.wake_at is None
    assert prompt.looks == 1
    prompt.see(running=True)
    assert (prompt.looks, prompt.looking) == (2, True)
    prompt.see(running=True)
    assert (prompt.looks, prompt.looking) == (2, False)


def test_an_alarm_that_rings_early_is_set_again() -> None:
    prompt = Prompt(Accepted())
    assert prompt.wait(1.0).state.wake_at == 100.0 + SILENCE


def test_a_lost_socket_costs_one_look_when_the_record_is_there() -> None:
    prompt = Prompt(Accepted(), Began(), SocketLost(), SocketLost(), SocketBack())
    assert prompt.looks == 1
    prompt.see(record=RECORD)
    assert (prompt.verdict, prompt.looks, prompt.state.deaf) == (Finished({"1": UI}, ("1",)), 1, False)


def test_what_no_socket_listens_for_is_looked_at_as_soon_as_it_is_accepted() -> None:
    for prompt in (Prompt(Accepted(), unbroken=False), Prompt(SocketLost(), Accepted())):
        assert prompt.state.wake_at == prompt.now + FIRST_RETRY


def test_what_is_seen_to_run_and_no_socket_tells_of_is_looked_at_soon() -> None:
    prompt = Prompt(Accepted(), SocketLost()).see(pending=True)
    for _ in range(20):
        prompt.wait(LAST_RETRY).see(pending=True)
    assert prompt.view(pending=OURS).state.wake_at == pytest.approx(prompt.now + LAST_RETRY)
    assert prompt.view(running=OURS).state.wake_at == pytest.approx(prompt.now + FIRST_RETRY)


def test_without_a_socket_that_tells_an_end_is_noticed_late_by_no_more_than_the_prompt_has_run() -> None:
    prompt = Prompt(Accepted(), SocketLost()).see(pending=True)
    for _ in range(20):
        prompt.wait(LAST_RETRY).see(pending=True)
    prompt.wait(LAST_RETRY).see(running=True)
    begun = prompt.now
    for _ in range(20):
        prompt.tell(Alive())
        assert prompt.state.wake_at is not None
        late = prompt.state.wake_at - prompt.now
        assert late <= min(LAST_RETRY, FIRST_RETRY + prompt.now - begun) + 1e-6
        prompt.wait(late).see(running=True)


def test_a_record_beats_a_look_that_is_asked_for_meanwhile() -> None:
    prompt = Prompt(Accepted(), SocketLost(), Released()).see(record=RECORD)
    assert (prompt.verdict, prompt.looks) == (Finished({"1": UI}, ("1",)), 1)


def test_absence_from_a_whole_view_causes_a_look_once_messages_under_way_have_arrived() -> None:
    prompt = Prompt(Accepted()).view(running="other", pending=OURS)
    assert prompt.state.wake_at == 100.0 + SILENCE
    prompt.wait(1.0).view(running=OURS)
    assert prompt.state.running
    prompt.wait(1.0).view(running="other")
    assert prompt.state.wake_at == pytest.approx(prompt.now + HEARING)
    prompt.wait(HEARING / 2).view()
    assert prompt.wait(HEARING / 2).looking, "later views do not put it off"
    prompt.view()
    assert prompt.see(record=RECORD).verdict == Finished({"1": UI}, ("1",))


def test_a_view_that_is_older_than_what_is_known_says_nothing() -> None:
    for news in (Accepted(), Unanswered()):
        prompt = Prompt(news)
        if prompt.looking:
            prompt.tell(Unseen())
        before = prompt.state
        assert prompt.tell(QueueView(99.0, (), ())).state == before
    assert Prompt().view().state.wake_at is None, "the submission is under way"


def test_a_view_sees_what_was_never_answered() -> None:
    prompt = Prompt(Unanswered()).tell(Unseen())
    assert prompt.view(pending=OURS).state.known


# Absence -----------------------------------------------------------------------------------------------------------


def test_an_accepted_prompt_is_gone_after_its_absence_has_lasted() -> None:
    prompt = Prompt(Accepted()).wait(SILENCE)
    assert ABSENCE <= prompt.until_gone() <= ABSENCE + LAST_RETRY
    assert prompt.verdict == Vanished(known=True, begun=False)
    assert not prompt.state.deaf


def test_a_prompt_whose_end_was_heard_has_a_late_record() -> None:
    prompt = Prompt(Accepted(), Began(), Released())
    assert LATENESS <= prompt.until_gone() <= LATENESS + 2 * LAST_RETRY
    assert prompt.verdict == Vanished(known=True, begun=True)


def test_a_prompt_whose_node_was_heard_to_run_had_begun() -> None:
    prompt = Prompt(Accepted(), Entered("1")).wait(SILENCE)
    prompt.until_gone()
    assert prompt.verdict == Vanished(known=True, begun=True)


def test_a_prompt_that_was_seen_running_had_begun_although_no_socket_said_so() -> None:
    prompt = Prompt(Accepted(), unbroken=False).view(running=OURS).wait(SILENCE)
    prompt.until_gone()
    assert prompt.verdict == Vanished(known=True, begun=True)


def test_a_submission_without_an_answer_has_longer_to_appear() -> None:
    prompt = Prompt(Unanswered())
    assert DELIVERY <= prompt.until_gone() <= DELIVERY + 2 * LAST_RETRY
    assert prompt.verdict == Vanished(known=False, begun=False)


def test_one_look_that_is_answered_late_proves_nothing() -> None:
    prompt = Prompt(Unanswered())
    prompt.now += 60.0
    assert prompt.tell(Sight(100.0, False, False)).verdict is None
    assert prompt.wait(FIRST_RETRY).see(pending=True).state.known


def test_a_look_that_was_begun_before_the_prompt_was_heard_says_nothing() -> None:
    prompt = Prompt(Unanswered())
    prompt.now += 1.0
    prompt.tell(Began())
    assert prompt.tell(Sight(100.0, False, False)).state.absent_since is None
    assert prompt.wait(FIRST_RETRY).looking


def test_whatever_shows_the_prompt_begins_its_absence_anew() -> None:
    for shown in (Alive(), QueueView(102.0, (OURS,), ()), QueueView(102.0, (), (OURS,))):
        prompt = Prompt(Unanswered()).see().wait(1.0)
        prompt.tell(Unseen())
        prompt.now = 102.0
        assert prompt.tell(shown).state.absent_since is None


# The engine is gone ------------------------------------------------------------------------------------------------


def test_an_engine_that_is_gone_and_not_there_again_took_the_prompt_along() -> None:
    prompt = Prompt(Accepted(), Began(), EngineGone())
    assert prompt.looking
    assert prompt.tell(AWAY).verdict == Vanished(known=True, begun=True)


@pytest.mark.parametrize("answer", [Accepted(), Unanswered()])
def test_an_engine_that_has_ended_and_has_no_successor_yet_took_everything_along(answer: News) -> None:
    prompt = Prompt(answer, EngineGone(ended=True))
    assert prompt.verdict == Vanished(known=answer == Accepted(), begun=False)
    assert prompt.state.gone
    waiting = Prompt(EngineGone(ended=True))
    assert waiting.verdict is None, "the submission may go on to its successor"
    assert waiting.tell(answer).looking


def test_where_somebody_listens_again_a_look_that_fails_proves_nothing() -> None:
    prompt = Prompt(Accepted(), EngineGone()).tell(Unseen())
    assert prompt.verdict is None
    assert prompt.wait(FIRST_RETRY).see(running=True).state.gone is False


def test_an_engine_that_is_not_reached_and_not_said_to_be_gone_may_be_there_all_the_same() -> None:
    assert Prompt(Accepted(), SocketLost()).tell(AWAY).verdict is None


def test_a_prompt_that_the_next_engine_does_not_know_is_gone() -> None:
    prompt = Prompt(Accepted(), EngineGone())
    assert ABSENCE <= prompt.until_gone() <= ABSENCE + LAST_RETRY
    assert prompt.verdict == Vanished(known=True, begun=False)


def test_a_prompt_that_had_reached_the_next_engine_goes_on() -> None:
    prompt = Prompt(Accepted(), EngineGone()).see(running=True)
    assert not prompt.state.gone
    assert prompt.wait(SILENCE).see(record=RECORD).verdict == Finished({"1": UI}, ("1",))


def test_a_look_at_the_engine_before_does_not_speak_for_the_next() -> None:
    prompt = Prompt(Accepted(), SocketLost(), EngineGone()).see(running=True)
    assert (prompt.state.gone, prompt.looking) == (True, True)
    assert prompt.tell(AWAY).verdict == Vanished(known=True, begun=True)


def test_what_is_heard_after_the_engine_was_gone_is_looked_at() -> None:
    prompt = Prompt(Accepted(), Began(), Executed("1", UI), EngineGone()).tell(Succeeded())
    assert prompt.verdict is None
    assert prompt.see(record=RECORD).verdict == Finished({"1": UI}, ("1",))


def test_a_submission_under_way_is_answered_first() -> None:
    assert Prompt(EngineGone(), Accepted()).looking
    prompt = Prompt(EngineGone(), Unanswered())
    assert prompt.tell(AWAY).verdict is None
    assert prompt.wait(FIRST_RETRY).until_gone() >= DELIVERY


# Deafness ----------------------------------------------------------------------------------------------------------


def test_a_socket_that_says_nothing_of_a_prompt_long_gone_from_the_queue_is_deaf() -> None:
    prompt = Prompt(Accepted(), Began()).wait(0.5).view().wait(HEARING).see(record=RECORD)
    assert prompt.state.deaf


@pytest.mark.parametrize("sound", [Alive(), Executed("1", UI), Succeeded(), Released()])
def test_a_socket_that_is_merely_late_is_not_deaf(sound: Sound) -> None:
    prompt = Prompt(Accepted()).wait(0.5).view().wait(HEARING).tell(sound).see(record=RECORD)
    assert not prompt.state.deaf


def test_a_record_that_is_read_before_its_message_arrives_says_nothing_of_the_socket() -> None:
    assert not Prompt(Unanswered()).see(record=RECORD).state.deaf
    assert not Prompt(Accepted(), Began()).wait(SILENCE).see(record=RECORD).state.deaf


def test_a_record_that_is_read_before_messages_under_way_can_have_arrived_says_nothing_of_the_socket() -> None:
    prompt = Prompt(Accepted()).wait(SILENCE - HEARING / 4).view().wait(HEARING / 4)
    assert not prompt.see(record=RECORD).state.deaf


def test_views_that_follow_do_not_put_off_that_a_socket_is_deaf() -> None:
    prompt = Prompt(Accepted()).wait(0.5).view().wait(HEARING / 2).view().wait(HEARING / 2)
    assert prompt.see(record=RECORD).state.deaf


def test_of_a_prompt_that_is_gone_no_socket_had_to_tell() -> None:
    prompt = Prompt(Accepted()).wait(0.5).view().wait(HEARING)
    prompt.until_gone()
    assert prompt.verdict == Vanished(known=True, begun=False)
    assert not prompt.state.deaf


def test_a_socket_that_was_lost_is_not_called_deaf() -> None:
    prompt = Prompt(Accepted(), SocketLost()).see(running=True).view().wait(HEARING).see(record=RECORD)
    assert not prompt.state.deaf


# Recordings --------------------------------------------------------------------------------------------------------


def recorded(name: str) -> Iterator[tuple[Evidence, Record | None]]:
    """What was heard of every accepted prompt of a recording, and its history record if that was read.

    Some recordings use an id twice, which makes two records one; this service never does.
    """
    rows = recordings.load(name)
    records: dict[str, Record] = {}
    for row in rows:
        body = row.get("body")
        if row["kind"] == "http_response" and isinstance(body, dict):
            for prompt_id, entry in body.items():
                if isinstance(entry, dict) and "status" in entry and "outputs" in entry:
                    record = parse_history(json.dumps({prompt_id: entry}).encode(), prompt_id)
                    assert record is not None
                    records[prompt_id] = record
    states: dict[str, Evidence] = {}
    twice: set[str] = set()
    for row in rows:
        body = row.get("body")
        if row["kind"] == "http_response" and isinstance(body, dict) and "number" in body and not body["node_errors"]:
            state = evidence.submit(body["prompt_id"], row["t"], unbroken=True)
            twice |= states.keys() & {state.prompt_id}
            states[state.prompt_id] = evidence.step(state, Accepted(), row["t"])[0]
        elif row["kind"] == "ws_text":
            heard = parse(json.dumps(row["msg"]), lambda prompt_id: True)
            if isinstance(heard, Message) and heard.prompt_id in states:
                states[heard.prompt_id] = evidence.step(states[heard.prompt_id], heard.sound, row["t"])[0]
    for state in (states[prompt_id] for prompt_id in states.keys() - twice):
        yield state, records.get(state.prompt_id)


def test_in_every_recording_the_fast_path_says_what_the_history_says() -> None:
    compared = 0
    for name in recordings.names():
        for state, record in recorded(name):
            if state.verdict is not None and record is not None:
                assert state.verdict == Finished(record.outputs), name
                assert record.success
                assert record.failure is None
                compared += 1
    assert compared >= 20


# Any history -------------------------------------------------------------------------------------------------------

PATIENCE = SILENCE + max(LATENESS, DELIVERY) + 4 * LAST_RETRY + 1.0
"""Seconds after the last mishap in which there is a verdict."""


class Follower:
    """Follows one prompt of a simulated engine as the runner does, and checks the promises at each step."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.clock = Clock()
        self.engine = Engine(self.clock, plan)
        self.engine.hear = lambda prompt_id, sound: self.feed(sound) if prompt_id == OURS else None
        self.engine.lost = lambda: self.feed(SocketLost())
        self.engine.back = lambda: self.feed(SocketBack())
        self.engine.gone = lambda: self.feed(EngineGone(ended=self.engine.plan.supervised))
        self.state = evidence.submit(OURS, 0.0, unbroken=True)
        self.blocked = False
        self.asked = self.answered = False
        self.engine.submit(OURS, self.answer)
        if plan.views:
            self.watch()

    def answer(self, news: News) -> None:
        self.answered = True
        self.feed(news)

    def watch(self) -> None:
        self.engine.view(self.feed)
        self.clock.after(0.5, self.watch)

    def see(self, news: Sight | Unseen) -> None:
        self.asked = False
        self.feed(news)

    def feed(self, news: News) -> None:
        before, now = self.state, self.clock.now
        self.blocked |= isinstance(news, Failed) and news.midway
        self.state, look = evidence.step(before, news, now)
        if before.verdict is not None:
            assert (self.state, look) == (before, False), "a verdict is reached once"
            return
        if self.state.verdict is not None:
            self.check(self.state.verdict)
            return
        if look:
            assert not self.asked, "one look at a time"
            assert self.answered
            self.asked = True
            self.engine.look(OURS, self.see)
        assert self.state.looking == self.asked
        assert self.asked or not self.answered or self.state.wake_at is not None, "something will happen"
        wake_at = self.state.wake_at
        if wake_at is not None and (isinstance(news, Wake) or wake_at != before.wake_at):
            assert wake_at > now, "no alarm is set in vain"
            if wake_at != before.wake_at:
                self.clock.after(wake_at - now + 1e-9, lambda: self.feed(Wake()))

    def check(self, verdict: Verdict) -> None:
        """A verdict is what the simulated engine knows to be true."""
        engine = self.engine
        record = engine.ended.get(OURS)
        match verdict:
            case Finished(outputs):
                assert record is not None
                assert record.success
                assert record.failure is None
                assert outputs == record.outputs
                assert not self.blocked
            case Broke(failure):
                assert record is not None
                assert failure == record.failure or (failure.midway and self.blocked)
            case Stopped():
                assert record is not None
                assert record.interrupted
            case Vanished(known, begun):
                assert not engine.holds(OURS), "nothing of it is left to run beside another"
                assert engine.records.get(OURS) is None
                assert known <= (OURS in engine.ended)
                assert begun <= (OURS in engine.ran)


MISHAPS = settings(max_examples=3000)


@MISHAPS
@given(PLANS)
@example(Plan(post="late", views=False))
@example(Plan(post="answer slow", nodes=(8.0, 8.0), views=False))
@example(Plan(crash=0.05, down=0.0, notice=4.0, post="answer slow", nodes=(8.0,)))
@example(Plan(stall=(0.0, 7.0), post="late"))
@example(Plan(4892793, nodes=(0.0, 0.002), post="answer slow", latency=0.0, notice=0.3, slow=0.0, crash=0.05, down=0.0))
@example(Plan(seed=1, nodes=(0.0,), crash=0.0, down=0.0, gap=1.2, slow=0.4, views=False))
def test_the_truth_is_found_once_and_in_bounded_time(plan: Plan) -> None:
    follower = Follower(plan)
    work = sum(plan.nodes) + (plan.ahead or 0.0) + plan.gap
    limit = plan.quiet_at + work + 9.0 + 4.0 + PATIENCE + 20 * plan.slow
    follower.clock.run(lambda: follower.state.verdict is not None, limit)
    assert follower.state.verdict is not None
    follower.clock.run(lambda: False, limit + 20.0)
