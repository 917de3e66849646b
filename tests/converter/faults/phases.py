"""Jobs brought into one phase of their life and kept there, between neighbours that no one must touch."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from tests.converter.faults.graphs import loaded, picture
from tests.converter.faults.replica import Caller, Reply
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import encode, solid

Phase = Literal["staging", "waiting", "submitting", "queued", "running", "collecting"]

PHASES: tuple[Phase, ...] = ("staging", "waiting", "submitting", "queued", "running", "collecting")

HELD_PATHS = {"staging": "/upload", "submitting": "/prompt", "collecting": "/view"}
"""What the engine does not answer, to keep a job in a phase."""

NEIGHBOURS_BEFORE = {"waiting": 2, "queued": 1}
"""Orders ahead: one runs, one is pending, more wait for a turn."""


@dataclass
class Scene:
    """`victim` is in its phase, under the id "victim"; the neighbours have the colours 1 and 2, the victim 9."""

    engine: FakeEngine
    caller: Caller
    phase: Phase
    victim: asyncio.Task[Reply]
    neighbours: list[asyncio.Task[Reply]]
    posted: int
    """Prompts that had been given to the engine before the victim's."""

    @property
    def prompt_id(self) -> str:
        """The victim's prompt."""
        return self.engine.posted_prompts[self.posted]

    async def until_withdrawn(self) -> None:
        """The engine was told to let go of the victim's prompt, if it has it."""
        if self.phase == "running":
            await self.engine.until(lambda: self.engine.interrupts + self.engine.cancels)
        elif self.phase == "queued":
            await self.engine.until(lambda: self.engine.deletes + self.engine.cancels)

    async def go_on(self) -> None:
        """Nothing is held any more; the neighbours get what is theirs, and nothing but the victim was touched."""
        engine = self.engine
        engine.faults.held_path = ""
        engine.release()
        for color, neighbour in enumerate(self.neighbours, 1):
            assert (await neighbour).colors == [color]
        await self.caller.until_empty()
        touched = {*engine.interrupts, *engine.cancels, *(id for ids in engine.deletes for id in ids)}
        assert touched <= {*engine.posted_prompts[self.posted : self.posted + 1]}
        await engine.until_idle()


@asynccontextmanager
async def scene(engine: FakeEngine, caller: Caller, phase: Phase, **fields: Any) -> AsyncIterator[Scene]:
    """A victim in its phase; `fields` are those of its request. At the end all goes on."""
    before = NEIGHBOURS_BEFORE.get(phase, 0)
    neighbours = []
    if phase in ("waiting", "queued", "running"):
        engine.hold()
    for color in range(1, before + 1):
        neighbours.append(caller.start(picture(color)))
        await engine.until(lambda: len(engine.posted_prompts) == 1 + len(neighbours))
    engine.faults.held_path = HELD_PATHS.get(phase, "")
    posted, asked = len(engine.posted_prompts), len(engine.requests)
    graph = loaded(data_uri(9)) if phase == "staging" else picture(9)
    headers = fields.pop("headers", None)
    victim = caller.start(graph, headers, id="victim", **fields)
    if phase == "waiting":
        await caller.until(lambda: caller.replica.gate.queue()["waiting"] == 1)
    elif phase == "queued":
        await engine.until(lambda: len(engine.posted_prompts) == posted + 1)
    elif phase == "running":
        await engine.until_held()
        await caller.until_job("victim", "running")
    else:
        path = engine.faults.held_path
        await engine.until(lambda: any(request.path.startswith(path) for request in engine.requests[asked:]))
    if phase in ("queued", "running"):
        neighbours.append(caller.start(picture(before + 1)))
    staged = Scene(engine, caller, phase, victim, neighbours, posted)
    yield staged
    await staged.go_on()


def data_uri(color: int) -> str:
    """A picture as a `data:` URI."""
    return f"data:image/png;base64,{base64.b64encode(encode(solid(color, 8, 8)[0])).decode()}"
