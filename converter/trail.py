"""What is told of a job beside its answer: log lines, metrics and spans.

Leaves to others: when something happens (`runner`), what a watcher is told (`chronicle`), and where lines, numbers and
spans go. Invariant: nothing that a caller has sent gets into a log line but the ids that it chose.
"""

import contextvars
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from converter.core.deeds import Outcome
from converter.core.events import Sound
from converter.core.job import Phase
from converter.core.order import Order
from converter.core.timing import overhead
from converter.errors import ExecutionFailed, Fault, InvalidInput, InvalidWorkflow
from converter.telemetry import Metrics

if TYPE_CHECKING:
    from converter.spans import Tracing

log = logging.getLogger(__name__)

THEIRS = (ExecutionFailed, InvalidInput, InvalidWorkflow)
"""Faults whose details may quote what the caller has sent."""


class Trail:
    """One job's. `about` is in each of its lines."""

    def __init__(self, order: Order, metrics: Metrics, tracing: "Tracing | None") -> None:
        self.about: Mapping[str, str] = order.about
        self._workflow: Mapping[str, Any] = order.workflow
        self._metrics = metrics
        self._spans = None
        self._outcome: str | None = None
        if tracing is not None:
            self._spans = tracing.job(order.id)
            self.about = {**self.about, "trace": self._spans.trace_id}

    def begin(self, phase: Phase) -> None:
        """The first phase begins."""
        if self._spans is not None:
            self._spans.enter(phase.value, None)

    def move(self, was: Phase, phase: Phase, seconds: float, instance: str | None) -> None:
        """A phase has ended after so long, and another begins; `instance`: the engine that has the prompt."""
        if log.isEnabledFor(logging.DEBUG):  # else these lines would cost a tenth of a short job
            log.debug("job %s", phase.value, extra={**self.about, "was": was.value, "seconds": round(seconds, 4)})
        if self._spans is not None:
            self._spans.enter(None if phase is Phase.DONE else phase.value, instance)

    def hear(self, sound: Sound) -> None:
        """A sound of the job's prompt."""
        if self._spans is not None:
            self._spans.hear(sound, self._workflow)

    def end(self, outcome: Outcome, times: Mapping[str, float], total: float, sizes: Iterable[int]) -> None:
        """The job is answered. `times` are seconds by part, as `total` is; `sizes` are the bytes of the outputs."""
        code = outcome.code if isinstance(outcome, Fault) else "succeeded"
        own = overhead(times, total)
        self._metrics.count_job(code, times, total, own, sizes)
        self._outcome = None if code == "succeeded" else code
        seconds = {name: round(value, 4) for name, value in {**times, "overhead": own, "total": total}.items()}
        why = {"detail": outcome.detail} if isinstance(outcome, Fault) and not isinstance(outcome, THEIRS) else {}
        log.info("job ended", extra={**self.about, "outcome": code, **why, **seconds})

    def close(self) -> None:
        """Nothing follows."""
        self._workflow = {}
        if self._spans is not None:
            self._spans.end(self._outcome)
            self._spans = None

    def context(self) -> contextvars.Context | None:
        """Where the job's tasks run, so that what they ask of the engine is a part of its trace; None: anywhere."""
        return None if self._spans is None else self._spans.within()
