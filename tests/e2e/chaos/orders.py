"""What callers will ask for, and when: drawn from a seed, without I/O.

Each order has a number, which the picture that it asks for has as its colour, so that an answer which is somebody
else's shows in its pixels. Leaves asking to `callers`.
"""

import base64
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tests.fakes.pictures import encode, solid

Shape = Literal["json", "raw", "events", "background", "polled", "canceled", "twins", "input", "failing", "junk"]

SHARES: Mapping[Shape, float] = {
    "json": 0.4,
    "raw": 0.15,
    "events": 0.14,
    "background": 0.04,
    "polled": 0.04,
    "canceled": 0.02,
    "twins": 0.06,
    "input": 0.07,
    "failing": 0.02,
    "junk": 0.06,
}
"""How often each shape is asked for.

background, polled, canceled: the job goes on alone, and is followed by its events, or asked for again and again, or
canceled. twins: two requests of one Idempotency-Key, a moment apart or one after the other. input: the picture is sent
with the request. failing: a node raises. junk: what no caller should send.
"""

WAITING: tuple[Shape, ...] = ("json", "raw", "events", "input")
"""Whose callers wait for the answer on one connection."""

LEAVING, PATIENCE = 0.13, 0.5
"""Share of those who do not wait to the end, and their patience in seconds on average."""

SERVICE = ((0.05, 0.8), (0.2, 0.2))
"""Seconds that the engine works on an order, and how many orders are of that kind."""

TIMEOUT = 300.0
"""Seconds that an order has: far more than it needs, on a machine that is busy too, so that none may miss its time."""

SIDE = 16
"""Pixels."""


@dataclass(frozen=True, slots=True)
class Order:
    """One order. `pause`: until it is sent, after the one before, in mean pauses. `leaves`: seconds after which its
    caller is gone, or cancels its job; None if it stays. `variety`: which of several, for shapes that have such.
    """

    number: int
    shape: Shape
    pause: float
    seconds: float = SERVICE[0][0]
    leaves: float | None = None
    priority: int = 0
    variety: int = 0

    def graph(self) -> dict[str, Any]:
        """The workflow."""
        return graph(self.number, self.seconds, sent=self.shape == "input", failing=self.shape == "failing")


def draw(seed: int, count: int, first: int = 1) -> list[Order]:
    """`count` orders from the number `first` on; the same for the same seed."""
    dice = random.Random(f"orders {seed}")
    return [_draw(dice, number) for number in range(first, first + count)]


def _draw(dice: random.Random, number: int) -> Order:
    [shape] = dice.choices([*SHARES], [*SHARES.values()])
    [seconds] = dice.choices(*zip(*SERVICE, strict=True))
    patience = dice.expovariate(1 / PATIENCE)
    leaves = shape == "canceled" or (dice.random() < LEAVING and shape in WAITING)
    return Order(
        number,
        shape,
        dice.expovariate(1.0),
        seconds,
        patience if leaves else None,
        dice.choice((0, 0, 0, 0, 0, 1, -1)),
        dice.randrange(1000),
    )


def graph(number: int, seconds: float, *, sent: bool = False, failing: bool = False) -> dict[str, Any]:
    """A picture of the colour `number`, made (or `sent`), held for some seconds, and saved under the number's name."""
    inputs = {"width": SIDE, "height": SIDE, "batch_size": 1, "color": number}
    first = _node("LoadImage", image=_data_uri(number)) if sent else _node("EmptyImage", **inputs)
    middle = _node("TestSleep", value=["1", 0], seconds=seconds)
    if failing:
        middle = _node("TestRaise", value=["1", 0], kind="ValueError", message="as ordered")
    return {"1": first, "2": middle, "3": _node("SaveImage", images=["2", 0], filename_prefix=f"chaos/{number}-")}


def _node(class_type: str, **inputs: object) -> dict[str, object]:
    return {"class_type": class_type, "inputs": inputs}


def _data_uri(color: int) -> str:
    data = encode(solid(color, SIDE, SIDE)[0])
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
