"""Everything goes wrong at once, for a short while and with a fixed seed. `make chaos` is the long form."""

from pathlib import Path

import pytest

from tests.e2e.chaos import orders, strikes
from tests.e2e.chaos.rounds import OVERLOAD, measure, play
from tests.e2e.chaos.scene import Way, open_scene
from tests.e2e.chaos.verdict import judge

SEED = 93
"""One with which the engine stands still, and the network refuses, for longer than the probes may be stale."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", ["supervised", "attached"])
async def test_whatever_goes_wrong_at_once_no_promise_is_broken(way: Way, tmp_path: Path) -> None:
    async with open_scene(tmp_path, way) as scene:
        rate = OVERLOAD * await measure(scene, 60)
        load = orders.draw(SEED, 400)
        log = await play(scene, load, rate, strikes.draw(SEED, len(load), kills=2))
    assert not judge(log, timed=False)
