"""The warden: remembers which workflows kill engines, and refuses them for a while.

Who is to blame is `core.quarantine`'s decision. Invariant: a replica without kills spends nothing on it.
"""

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from converter.core.quarantine import KILLS, Quarantine, blame, seconds_left
from converter.core.workflow import fingerprint
from converter.errors import InvalidWorkflow


class Warden:
    """One replica's."""

    def __init__(self) -> None:
        self._quarantine = Quarantine()
        self._now = asyncio.get_running_loop().time

    def blame(self, workflow: Mapping[str, Any]) -> None:
        """The engine died while it ran this workflow and nothing else of ours."""
        self._quarantine = blame(self._quarantine, fingerprint(workflow), self._now())

    def check(self, workflow: Mapping[str, Any]) -> None:
        """Raises InvalidWorkflow for a workflow that is in quarantine."""
        if not self._quarantine.kills:
            return
        seconds = seconds_left(self._quarantine, fingerprint(workflow), self._now())
        if seconds > 0:
            detail = f"this workflow killed the engine {KILLS} times while it ran alone; it is refused for a while"
            raise InvalidWorkflow(detail, seconds=math.ceil(seconds))
