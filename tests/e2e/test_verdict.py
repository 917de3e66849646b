"""The verdict on a log of chaos: what is broken is found, and what is not is not."""

from dataclasses import replace
from typing import Any

import pytest

from tests.e2e.chaos import orders, strikes
from tests.e2e.chaos.callers import JUNK, read_last_event
from tests.e2e.chaos.figures import describe, score
from tests.e2e.chaos.orders import Order
from tests.e2e.chaos.records import Answer, Log, Post, Probe, Run, Sample, Struck
from tests.e2e.chaos.strikes import Kind, Strike
from tests.e2e.chaos.verdict import judge

PID, LATER_PID = 7, 8


def peaceful() -> Log:
    """Order 1 at second 10, submitted at 11, answered at 15; nothing went wrong."""
    order = Order(1, "json", 1.0)
    return Log(
        orders=[order],
        answers=[Answer("1", order, asked=10.0, answered=15.0, status=200, picture=1)],
        posts=[Post(11.0, "p", 1)],
        runs=[Run(12.0, PID, "p", "execution_success", 14.0)],
        lives={PID: 0.0},
        probes=[Probe(10.0, 10.01, "/readyz", 200, "READY")],
        samples=[Sample(10.0, 100, 20)],
    )


def struck(kind: Kind, begun: float, ended: float | None = None, about: str = "") -> Struck:
    return Struck(Strike(0, kind), begun, begun if ended is None else ended, about)


def rerun(at: float, pid: int = LATER_PID) -> Log:
    """The order runs a second time."""
    log = peaceful()
    log.posts.append(Post(at - 0.1, "q", 1))
    log.runs.append(Run(at, pid, "q", "execution_success", at + 1))
    return log


def test_peace_is_no_violation() -> None:
    assert judge(peaceful()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": 0, "trouble": "reset"}, "no answer"),
        ({"status": 0}, "no answer"),
        ({"picture": 2}, "the picture 2"),
        ({"picture": None}, "the picture None"),
        ({"status": 502, "code": "engine_failed"}, "502"),
        ({"status": 409, "code": "canceled"}, "409"),
        ({"status": 429}, "Retry-After None"),
        ({"status": 503, "retry_after": "0"}, "Retry-After 0"),
        ({"status": 429, "retry_after": "1.5"}, "Retry-After 1.5"),
    ],
)
def test_answers_that_are_wrong(change: dict[str, Any], words: str) -> None:
    log = peaceful()
    log.answers = [replace(log.answers[0], **change)]
    [violation] = judge(log)
    assert words in violation


def test_answers_that_are_missing_or_too_many() -> None:
    log = peaceful()
    log.answers *= 2
    assert "-1 answers" in judge(log)[0]
    log.answers = []
    assert "1 answers are missing" in judge(log)[0]


def test_who_was_disturbed_may_be_canceled() -> None:
    log = peaceful()
    log.answers = [replace(log.answers[0], status=409, code="canceled")]
    log.struck = [struck("interrupt", 16.0)]
    assert judge(log)
    for kind in ("clear", "forget"):
        log.struck = [struck(kind, 12.0)]
        assert judge(log) == []
    log.answers = [replace(log.answers[0], status=502, code="engine_failed")]
    assert judge(log) == []
    log.struck = [struck("clear", 12.0)]
    assert judge(log)


@pytest.mark.parametrize("shape", ["junk", "failing"])
def test_what_is_at_fault_must_be_told_so(shape: orders.Shape) -> None:
    log = peaceful()
    log.orders = [Order(1, shape, 1.0)]
    log.answers = [replace(log.answers[0], order=log.orders[0])]
    assert "200" in judge(log)[0]
    log.answers = [replace(log.answers[0], status=422, code="execution_failed")]
    assert judge(log) == []


def test_what_was_answered_has_run() -> None:
    log = peaceful()
    log.runs[0].ended = ""
    assert "has not run" in judge(log)[0]


def test_what_ran_twice() -> None:
    assert "twice on one engine" in judge(rerun(14.5, PID))[0]
    log = rerun(14.5, PID)
    log.struck = [struck("forget", 13.0)]
    assert judge(log) == []
    log = rerun(20.0)
    log.lives[LATER_PID] = 18.0
    log.struck = [struck("kill", 14.5)]
    assert judge(log) == []
    log = rerun(40.0)
    log.lives[LATER_PID] = 38.0
    log.struck = [struck("kill", 36.0)]
    assert "after it had succeeded" in judge(log)[0]


def test_twins_run_once_unless_the_first_fails() -> None:
    log = rerun(14.5, PID)
    log.orders = [Order(1, "twins", 1.0)]
    log.answers = [replace(log.answers[0], order=log.orders[0])] * 2
    assert "twice on one engine" in judge(log)[0]
    log.struck = [struck("interrupt", 12.0)]
    log.answers = [replace(log.answers[0], status=409, code="canceled"), log.answers[0]]
    assert judge(log) == []


def test_engines_that_died_unasked() -> None:
    log = peaceful()
    log.lives[LATER_PID] = 20.0
    assert "started 2 times" in judge(log)[0]


def test_who_had_left_is_not_worked_for() -> None:
    log = peaceful()
    log.answers = [replace(log.answers[0], status=0, left=5.0)]
    assert judge(log) == [], "it was not known"
    log.noticed = {"1": 9.5}
    assert "1.5 s after its caller had left" in judge(log)[0]
    log.struck = [struck("stall_http", 8.0, 10.5)]
    assert judge(log) == [], "the submission was under way"
    log.struck, log.noticed = [], {"1": 10.5}
    assert judge(log) == []


@pytest.mark.parametrize("kind", ["stop", "refuse", "kill"])
def test_probes_that_do_not_know_of_a_standstill(kind: Kind) -> None:
    log = peaceful()
    log.struck = [struck(kind, 9.0, 13.0)]
    if kind == "kill":
        log.lives[LATER_PID] = 10.0
        log.runs.append(Run(12.0, LATER_PID, "warm-up", "execution_success", 13.0))
    assert judge(log) == [], "it may be stale"
    log.probes.append(Probe(12.0, 12.1, "/readyz", 503, "FAILED"))
    assert judge(log) == []
    log.probes.append(Probe(12.5, 12.6, "/readyz", 503, "BUSY"))
    assert f"3.5 s after a {kind}" in judge(log)[0]


def test_strangers_are_let_alone() -> None:
    log = peaceful()
    log.struck = [struck("stranger", 11.0, about="s")]
    assert "never ran" in judge(log)[0]
    log.runs.append(Run(12.0, PID, "s", "execution_interrupted", 13.0))
    assert "execution_interrupted" in judge(log)[0]
    log.struck.append(struck("interrupt", 12.5))
    assert judge(log) == []


def test_what_is_left_and_what_was_a_mistake() -> None:
    log = peaceful()
    log.left, log.errors = ["a file"], ["KeyError"]
    assert judge(log) == ["an error of its own: KeyError", "left: a file"]


def test_figures_say_what_is_missed() -> None:
    log = peaceful()
    met = {figure.name: figure.met for figure in describe(log, peaceful(), 1.0)}
    assert [name for name, good in met.items() if good is False] == []
    log.answers = []
    log.probes = [Probe(10.0, 10.2, "/readyz", 200, "READY")]
    log.samples = [Sample(float(second), 100 + 10 * second, 20) for second in range(20)]
    assert [figure.met for figure in describe(log, peaceful(), 1.0) if figure.goal] == [False] * 4


def test_standstills_are_counted_by_what_caused_them() -> None:
    log = peaceful()
    log.probes = [Probe(moment, moment, "/readyz", 200, "READY") for moment in (10.0, 30.0)]
    log.struck = [struck("stop", 11.0, 14.0), struck("cut_http", 15.0), struck("kill", 20.0)]
    log.lives[LATER_PID] = 22.0
    figures = {figure.name: figure.value for figure in describe(log, peaceful(), 1.0)}
    assert figures["time in which the engine stood still, was dead or not reached"] == "25 %"


def test_the_truth_of_retry_after() -> None:
    order = Order(1, "json", 0.0)
    served = [[Answer("a", order, 0.0, float(second), status=200)] for second in range(1, 21)]
    refused = Answer("b", order, 0.0, 0.0, status=429, retry_after="20")
    back = Answer("b", order, 20.0, 21.0, status=200)
    admitted, ratio = score([*served, [refused, back]])
    assert (admitted.value, admitted.met) == ("100 %", True)
    assert (ratio.value, ratio.met) == (f"{20 / 16:.2f}", True)
    admitted, ratio = score([*served, [replace(refused, retry_after="40"), refused]])
    assert (admitted.met, ratio.met) == (False, False)


def test_load_and_strikes_follow_from_their_seed() -> None:
    load = orders.draw(1, 500)
    assert load == orders.draw(1, 500) != orders.draw(2, 500)
    assert {order.shape for order in load} == {*orders.SHARES}
    assert {order.variety % len(JUNK) for order in load if order.shape == "junk"} == {*range(len(JUNK))}
    fall = strikes.draw(1, 500, kills=3)
    assert fall == strikes.draw(1, 500, kills=3) != strikes.draw(2, 500, kills=3)
    assert {strike.kind for strike in fall} == {"kill", *strikes.RATES}
    assert sum(strike.kind == "kill" for strike in fall) == 3


@pytest.mark.parametrize(
    "body", ["", "event: status\ndata: {}\n\n", "event: error\ndata: {}\n\nevent: result\ndata: {}\n\n"]
)
def test_streams_without_exactly_one_end(body: str) -> None:
    with pytest.raises(ValueError, match="a stream"):
        read_last_event(Answer("1", Order(1, "events", 0.0), 0.0), body.encode())
