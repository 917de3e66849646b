"""The simulated fleet of the benchmarks: it agrees with what queueing theory knows, and loses no order."""

import math
from dataclasses import replace
from typing import get_args

import pytest

from benchmarks.fleet_simulation import SIGMA, Balance, Scene, Steering, simulate

SCENE = Scene("least connections", "readiness", 8, 0.9, orders=2000)


def test_one_replica_waits_as_pollaczek_and_khinchine_say() -> None:
    """The mean wait of a queue with one server and service times of any distribution."""
    load, service = 0.5, 2.0
    result = simulate(Scene("round robin", "none", 10**6, load, (1.0,), service, timeout=1e9, orders=20_000))
    wait = load * service * math.exp(SIGMA**2) / (2 * (1 - load))
    assert sum(result.latencies) / len(result.latencies) == pytest.approx(wait + service, rel=0.1)
    assert result.used == pytest.approx(load, rel=0.05)


@pytest.mark.parametrize("balance", get_args(Balance))
@pytest.mark.parametrize("steering", get_args(Steering))
@pytest.mark.parametrize("load", [0.9, 3.0])
def test_every_order_is_served_or_refused_within_its_bounds(balance: Balance, steering: Steering, load: float) -> None:
    scene = replace(SCENE, balance=balance, steering=steering, load=load, slowness=(1.0, 3.0))
    result = simulate(scene)
    assert len(result.latencies) + result.refused.total() == scene.orders
    assert max(result.latencies) <= scene.timeout
    assert 0 < result.used <= 1
    assert simulate(scene) == result, "the same each time"


def test_least_connections_gives_a_slow_replica_less() -> None:
    slow = replace(SCENE, slowness=(1.0, 1.0, 3.0))
    assert simulate(slow).refusals < simulate(replace(slow, balance="round robin", steering="none")).refusals / 2
