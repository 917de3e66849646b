"""What goes wrong, and when: drawn from a seed, without I/O. Leaves doing it to `mischief`."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "kill", "stop", "cut_http", "cut_socket", "stall_http", "stall_socket", "refuse", "twin", "interrupt", "clear",
    "forget", "stranger",
]  # fmt: skip

RATES: Mapping[Kind, float] = {
    "stop": 1.0,
    "cut_http": 4.0,
    "cut_socket": 4.0,
    "stall_http": 1.0,
    "stall_socket": 2.0,
    "refuse": 1.0,
    "twin": 1.0,
    "interrupt": 2.0,
    "clear": 1.0,
    "forget": 1.0,
    "stranger": 4.0,
}
"""Strikes in 1000 orders, beside kills.

stop: the engine's process stands still for a while. cut, stall: what is open is reset, or one direction of it stands
still. refuse: all is cut, and nothing new is taken for a while. twin: somebody opens a websocket under our id and
closes it, which makes ours deaf. interrupt, clear, forget: somebody stops whatever runs, empties the queue, or the
history. stranger: somebody queues a prompt of their own.
"""

LONGEST: Mapping[Kind, float] = {"stop": 4.0, "stall_http": 2.0, "stall_socket": 2.0, "refuse": 4.0}
"""Seconds that those last at most which last: most are brief, some are longer than the probes may be stale."""

SHORTEST = 0.1
"""Seconds that they last at least."""


@dataclass(frozen=True, slots=True)
class Strike:
    """One thing that goes wrong, once `after` orders were sent, for `lasts` seconds (0: a moment)."""

    after: int
    kind: Kind
    lasts: float = 0.0
    to_engine: bool = False
    """The direction that stalls."""


def draw(seed: int, orders: int, kills: int, density: float = 1.0) -> list[Strike]:
    """What goes wrong in so many orders, the same for the same seed; the engine is killed `kills` times, evenly.

    `density` multiplies `RATES`.
    """
    dice = random.Random(f"strikes {seed}")
    strikes = [Strike(int(orders * (turn + dice.uniform(0.3, 0.7)) / kills), "kill") for turn in range(kills)]
    for kind, rate in RATES.items():
        for _ in range(max(1, round(density * rate * orders / 1000))):
            lasts = max(SHORTEST, LONGEST[kind] * dice.random() ** 3) if kind in LONGEST else 0.0
            strikes.append(Strike(dice.randrange(orders), kind, lasts, dice.random() < 0.5))
    return sorted(strikes, key=lambda strike: strike.after)
