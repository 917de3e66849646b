"""A look at a prompt, read by read."""

from types import SimpleNamespace
from typing import Any, cast

from converter.core.events import QueueView, Record, Sight
from converter.core.order import Order
from converter.errands import Errands
from converter.telemetry import Metrics

PROMPT = "p"


class Ending:
    """An engine whose prompt ends right after the first question about it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def queue(self) -> QueueView:
        self.asked.append("queue")
        return QueueView(0.0, (PROMPT,) if len(self.asked) == 1 else (), ())

    async def history(self, prompt_id: str) -> Record | None:
        self.asked.append("history")
        return None if len(self.asked) == 1 else Record(True, {})


async def test_a_prompt_that_ends_during_a_look_is_not_overlooked() -> None:
    client = Ending()
    means = cast("Any", SimpleNamespace(link=SimpleNamespace(client=client), metrics=Metrics()))
    sight = await Errands(means, Order("job", {}, 1.0), cast("Any", None)).look(PROMPT)
    assert isinstance(sight, Sight)
    assert not sight.absent
    assert client.asked == ["queue"]
