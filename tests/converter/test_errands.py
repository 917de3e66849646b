"""A look at a prompt, read by read, and outputs that can't be had."""

import asyncio
from contextlib import AbstractAsyncContextManager
from types import SimpleNamespace
from typing import Any, cast

from converter.core import deeds
from converter.core.events import QueueView, Record, Sight
from converter.core.evidence import Finished
from converter.core.order import Order
from converter.core.outputs import FileRef
from converter.errands import READINGS, Errands
from converter.media.dispatch import Dispatch
from converter.media.outputs import Broken, OpenFile
from converter.media.removal import Removal
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


class Nowhere:
    """Files that can't be read."""

    def __init__(self) -> None:
        self.asked = 0

    def open(self, file: FileRef) -> AbstractAsyncContextManager[OpenFile]:
        self.asked += 1
        raise Broken


async def test_outputs_that_an_engine_which_answers_can_not_give_are_given_up() -> None:
    files, answers = Nowhere(), []

    async def check_instance() -> None:
        answers.append(files.asked)

    watch = SimpleNamespace(check_instance=check_instance, output_classes=None)
    deliveries = asyncio.Semaphore(1)
    dispatch = Dispatch(cast("Any", None), cast("Any", None), cast("Any", None))
    means = cast(
        "Any",
        SimpleNamespace(
            files=files, dispatch=dispatch, removal=Removal(None), watch=watch, deliveries=deliveries, keep_bytes=1
        ),
    )
    order = Order("job", {"1": {"class_type": "SaveImage", "inputs": {}}}, 1.0)
    errands = Errands(means, order, cast("Any", SimpleNamespace()))
    event = await errands.collect(Finished({"1": {"images": [{"filename": "a.png"}]}}), hold=None, heard=True)
    assert isinstance(event, deeds.CollectionFailed)
    assert files.asked == 1 + READINGS
    assert answers == [1, 2], "each further attempt waits for the engine to answer"
