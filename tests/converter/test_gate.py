"""Tickets are returned once, whoever holds them and however it ends."""

import logging

import pytest

from converter.core import admission, readiness
from converter.errors import Draining, Fault, QueueFull, Starting
from converter.gate import FreePlace, Gate, Limits
from converter.telemetry import Metrics


class Clock:
    """Stands still unless it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Holder:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def turn(self) -> None:
        self.told.append("turn")

    def evicted(self, fault: Fault) -> None:
        self.told.append(fault.code)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    """Of two places, one prompt at a time, open."""
    limits = readiness.Limits(
        busy_at=2,
        ready_at=1,
        busy_is_ready=False,
        staleness=2.0,
        stall_patience=60.0,
        stranger_patience=60.0,
        startup_patience=60.0,
    )
    gate = Gate(Limits(admission.Limits(2, 2, engine_depth=1), limits, engine_depth=1), clock, Metrics())
    gate.observe(readiness.EngineUp("a"))
    gate.observe(readiness.WarmedUp())
    return gate


def test_a_failed_engine_is_a_warning_and_its_return_is_not(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "converter.gate"):
        gate.observe(readiness.EngineDown("it died"))
        gate.observe(readiness.EngineUp("b"))
    levels = {record.getMessage(): record.levelno for record in caplog.records}
    assert levels == {"state FAILED": logging.WARNING, "state STARTING": logging.INFO}


def depth(gate: Gate) -> int:
    queue = gate.queue()
    return queue["running"] + queue["waiting"]


def test_a_ticket_that_nobody_holds_is_returned(gate: Gate) -> None:
    with gate.knock():
        assert depth(gate) == 1
    assert depth(gate) == 0
    with pytest.raises(ValueError), gate.knock():
        raise ValueError
    assert depth(gate) == 0


def test_a_ticket_that_somebody_holds_is_not(gate: Gate) -> None:
    with gate.knock() as ticket:
        ticket.apply(0, 10.0)
        ticket.hold(Holder())
    assert depth(gate) == 1
    ticket.depart()
    ticket.depart()
    assert depth(gate) == 0


def test_a_second_return_takes_nobody_elses_place(gate: Gate) -> None:
    first, second = gate.knock(), gate.knock()
    first.depart()
    first.depart()
    assert depth(gate) == 1
    third = gate.knock()
    with pytest.raises(QueueFull) as caught:
        gate.knock()
    assert caught.value.retry_after is not None
    assert 1 <= caught.value.retry_after <= 120
    for ticket in (second, third):
        ticket.depart()
    assert depth(gate) == 0


def test_turns_go_round_and_departed_holders_hear_nothing(gate: Gate) -> None:
    holders = [Holder(), Holder()]
    tickets = []
    for holder in holders:
        ticket = gate.knock()
        ticket.apply(0, 10.0)
        ticket.hold(holder)
        ticket.ready()
        tickets.append(ticket)
    assert [holder.told for holder in holders] == [["turn"], []]
    tickets[0].depart()
    assert holders[1].told == ["turn"]
    tickets[1].let_go(30.0)
    assert gate.service is None, "the first after a start pays for what it loads"
    tickets[1].depart()
    assert depth(gate) == 0


def test_nobody_knocks_before_the_engine_is_up(clock: Clock, gate: Gate) -> None:
    gate.observe(readiness.EngineDown("gone"))
    gate.observe(readiness.EngineUp("b"))
    with pytest.raises(Starting) as caught:
        gate.knock()
    assert caught.value.retry_after is not None
    assert depth(gate) == 0


def test_a_draining_replica_takes_orders_until_it_is_closed(gate: Gate) -> None:
    gate.observe(readiness.DrainStarted())
    assert not gate.view().ready
    with gate.knock() as ticket:
        ticket.apply(0, 10.0)
        gate.close()
        with pytest.raises(Draining):
            ticket.apply(0, 10.0)
    with pytest.raises(Draining):
        gate.knock()
    assert depth(gate) == 0


def test_what_is_known_grows_stale(clock: Clock, gate: Gate) -> None:
    assert not gate.view().ready  # the queue has never been read
    gate.observe(readiness.Looked(clock.now, (), (), (), ()))
    assert gate.view().ready
    clock.now += 2.1
    assert not gate.view().ready
    with gate.knock() as ticket:  # an engine that is silent for a moment refuses nobody
        ticket.apply(0, 10.0)
    gate.observe(readiness.Looked(clock.now, (), (), (), ()))
    assert gate.view().ready


def test_a_free_place_has_one_turn() -> None:
    holder = Holder()
    place = FreePlace(1.0)
    place.ready()
    place.requeue(alone=False)
    place.hold(holder)
    place.ready()
    place.requeue(alone=False)
    assert holder.told == ["turn", "engine_failed"]
    assert (place.position(), place.estimate()) == (0, None)
    place.let_go(1.0)
    place.depart()


def test_a_replica_that_is_drained_takes_no_orders_for_an_engine_that_is_lost(gate: Gate) -> None:
    gate.observe(readiness.DrainStarted())
    gate.knock().depart()
    gate.observe(readiness.BudgetSpent("it died too often"))
    with pytest.raises(Draining):
        gate.knock()


def test_an_estimate_counts_down_and_then_says_nothing(gate: Gate, clock: Clock) -> None:
    tickets = [gate.knock() for _ in range(2)]
    for ticket in tickets:
        ticket.apply(0, 1000.0)
        ticket.hold(Holder())
        ticket.ready()
    for _ in range(2):
        gate.decide(admission.Served(10.0))
    assert [ticket.estimate() for ticket in tickets] == [10.0, 20.0]
    clock.now += 4.0
    assert [ticket.estimate() for ticket in tickets] == [6.0, 16.0]
    clock.now += 7.0
    assert [ticket.estimate() for ticket in tickets] == [None, None]
    tickets[0].let_go(None)
    assert [ticket.estimate() for ticket in tickets] == [0.0, 10.0]
