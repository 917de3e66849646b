"""What is written down of jobs that end while the service does."""

import asyncio
from types import SimpleNamespace
from typing import Any

from converter.api.comfyapi.cases import Cases
from converter.core.timing import PARTS
from converter.errors import Internal


class SlowLedger:
    """Writes nothing until a third wants to write."""

    def __init__(self) -> None:
        self.two, self.open = asyncio.Event(), asyncio.Event()
        self.updates: list[str] = []

    async def add(self, record: Any, workflow: Any, now: float) -> None:
        pass

    async def update(self, record: Any) -> None:
        self.updates.append(record.id)
        if len(self.updates) == 2:
            self.two.set()
        elif len(self.updates) == 3:
            asyncio.get_running_loop().call_soon(self.open.set)
        await self.open.wait()


def make_run(id: str) -> Any:
    outcome = asyncio.get_running_loop().create_future()
    outcome.set_result(Internal("ended"))
    order = SimpleNamespace(scope="", timeout=1.0, about={})
    return SimpleNamespace(id=id, order=order, outcome=outcome, state="failed", times=dict.fromkeys(PARTS, 0.0))


async def test_what_another_task_is_writing_down_as_the_service_ends_is_no_loss() -> None:
    ledger: Any = SlowLedger()
    nothing: Any = None
    cases = Cases(nothing, ledger, nothing, keep=60.0)
    async with asyncio.timeout(30), cases.followed():
        for id in ("1", "2"):
            await cases.add(make_run(id), {}, {})
        await ledger.two.wait()
    assert sorted(ledger.updates) == ["1", "1", "2"]
