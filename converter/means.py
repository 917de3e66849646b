"""What runs work with: everything outside a job that its runner reaches for, in one place."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converter.link.engine import EngineLink
from converter.media.dispatch import Dispatch
from converter.media.inputs import Inputs
from converter.media.outputs import Files
from converter.media.removal import Removal
from converter.telemetry import Metrics
from converter.warden import Warden
from converter.watch import Watch

if TYPE_CHECKING:
    from converter.spans import Tracing


@dataclass(frozen=True, slots=True)
class Means:
    """What runs work with. `keep_bytes`: outputs of a kept job held in memory; `deliveries`: answers at once;
    `tracing`: None where no traces are wanted.
    """

    link: EngineLink
    watch: Watch
    inputs: Inputs
    files: Files
    dispatch: Dispatch
    removal: Removal
    deliveries: asyncio.Semaphore
    warden: Warden
    metrics: Metrics
    max_attempts: int
    keep_bytes: int
    tracing: "Tracing | None" = None
