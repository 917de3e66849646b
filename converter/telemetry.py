"""What the service tells of itself: log lines and metrics.

When something is logged or counted is left to the others. A log record is an event's name and its fields, given by
`extra`: `log.info("job ended", extra={"job": job_id, "seconds": 1.5})`. Invariants: no text that is logged can forge
a line, or tells the secret of a URL; label values come from closed sets, so that the number of series is bounded, and
each exists from the start, at 0.
"""

import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from converter import errors

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""Of what `Metrics.text` gives."""

STATES = ("STARTING", "READY", "BUSY", "FAILED", "DRAINING")

OUTCOMES = (
    "succeeded",
    *(
        fault.code
        for fault in (
            errors.Canceled,
            errors.DeadlineExceeded,
            errors.DeliveryFailed,
            errors.Draining,
            errors.EngineDown,
            errors.EngineFailed,
            errors.ExecutionFailed,
            errors.Internal,
            errors.InvalidInput,
            errors.InvalidWorkflow,
            errors.OutOfMemory,
            errors.Shed,
            errors.TooLarge,
        )
    ),
)
"""How an admitted job can end: well, or with the code of a fault."""

REFUSALS = tuple(fault.code for family in (errors.Refusal, errors.Unavailable) for fault in family.__subclasses__())
"""Why an order was not admitted: codes of faults, all with status 429 or 503."""

_HANDLER = "converter"
_TALKATIVE = ("asyncio", "PIL", "websockets")
_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_SECRETS = re.compile(r"(\w://)(?:[^\s/?#\"'<>]*@)?([^\s?#\"'<>]*)([?#][^\s\"'<>]*)?")

_BRIEF = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_LONG = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 95.0, 180.0, 300.0, 600.0, 1800.0, 3600.0)
_SIZES = tuple(float(4**power) for power in range(5, 16))  # 1 KiB to 1 GiB


_ENCODER = json.JSONEncoder(default=lambda value: redact(str(value)))


class TextLines(logging.Formatter):
    """One line for a person: local time, level, event, fields as key=value. Unprintable characters are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        source = "" if record.name.startswith("converter") else f"{record.name}: "
        event = _escape(redact(record.getMessage()), allowed=" =\"'")
        fields = "".join(f" {key}={_escape(redact(str(value)))}" for key, value in _fields(record).items())
        line = f"{moment}.{int(record.msecs):03d} {record.levelname:<7} {source}{event}{fields}"
        return f"{line}\n{redact(self.formatException(record.exc_info))}" if record.exc_info else line


class JsonLines(logging.Formatter):
    """One JSON object for a machine: time (RFC 3339, UTC), level, logger, event, the fields, and exception if any.

    A field with the name of one of the first four is left out; values that JSON does not know become text.
    """

    def format(self, record: logging.LogRecord) -> str:
        members = _fields(record)
        if record.exc_info:
            members["exception"] = redact(self.formatException(record.exc_info))
        head = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": redact(record.getMessage()),
        }
        return _ENCODER.encode(head | members | head)


def configure_logging(level: str, format: Literal["auto", "text", "json"], stream: TextIO | None = None) -> None:
    """Log to `stream` (standard error) from `level` on. May be called again; handlers of others stay.

    Libraries that describe every frame or chunk at level debug stay at info: what they would write includes what
    callers sent.
    """
    stream = stream or sys.stderr
    as_text = format == "text" or (format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.name = _HANDLER
    handler.setFormatter(TextLines() if as_text else JsonLines())
    root = logging.getLogger()
    for earlier in [known for known in root.handlers if known.name == _HANDLER]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(root.level, logging.INFO))
    logging.captureWarnings(capture=True)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    given = record.__dict__.items()
    return {key: redact(value) if isinstance(value, str) else value for key, value in given if key not in _RECORD}


def redact(text: str) -> str:
    """The text, and in it no URL's credentials or query, which is where signatures and tokens are (RFC 3986)."""
    return (
        _SECRETS.sub(lambda found: f"{found[1]}{found[2]}{'?…' if found[3] else ''}", text) if "://" in text else text
    )


def _escape(text: str, allowed: str = "") -> str:
    """The text as it is if it is one printable word (or made of `allowed` too), else as a JSON string."""
    plain = text.isprintable() and not any(mark in text for mark in " =\"'" if mark not in allowed)
    return text if plain and text else json.dumps(text)


class Metrics(Collector):
    """All metrics, in a registry of their own. Times are in seconds, sizes in bytes; set and counted by the others."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry = registry or CollectorRegistry()
        ProcessCollector(registry=registry)

        def gauge(name: str, meaning: str) -> Gauge:
            return Gauge(f"converter_{name}", meaning, registry=registry)

        def counter(name: str, meaning: str, labels: Mapping[str, tuple[str, ...]] | None = None) -> Counter:
            made = Counter(f"converter_{name}", meaning, tuple(labels or ()), registry=registry)
            for label, values in (labels or {}).items():
                for value in values:
                    made.labels(**{label: value})
            return made

        def histogram(name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"converter_{name}", meaning, buckets=buckets, registry=registry)

        self.waiting = gauge("waiting", "Jobs that are held and not at the engine")
        self.running = gauge("running", "Jobs that are at the engine")
        self.capacity = gauge("capacity", "Places: jobs that are held at once, at most")
        self.depth = gauge("depth", "Tickets, and prompts of others in the engine's queue")
        self.saturation = gauge("saturation", "Depth as a share of the capacity, 0 to 1; at 1 orders are refused")
        self.engine_depth = gauge("engine_depth", "Prompts that are given to the engine at once, at most")
        self.engine_up = gauge("engine_up", "1 while the engine answers")
        self.websocket_connected = gauge("websocket_connected", "1 while the engine's websocket is open")
        self._state = Gauge("converter_state", "1 for the present state", ("state",), registry=registry)

        self.jobs = counter("jobs", "Jobs that have ended", {"outcome": OUTCOMES})
        self.refusals = counter("refusals", "Orders that were not admitted", {"reason": REFUSALS})
        self.engine_restarts = counter("engine_restarts", "Restarts of the engine, whoever restarted it")
        self.reconnects = counter("reconnects", "Times that the engine's websocket was opened again")
        self.webhooks = counter("webhooks", "Webhooks that are done with", {"outcome": ("delivered", "given_up")})
        self.webhook_backlog = gauge("webhook_backlog", "Webhooks that are pending, those of unfinished jobs included")
        self.looks = counter("looks", "Reads of the engine's queue and history to settle a doubt")

        self.waiting_seconds = histogram("waiting_seconds", "From admission to submission", _LONG)
        self.executing_seconds = histogram("executing_seconds", "Execution by the engine", _LONG)
        self.total_seconds = histogram("total_seconds", "From the request to its answer", _LONG)
        self.overhead_seconds = histogram("overhead_seconds", "The converter's own part of a request", _BRIEF)
        self.output_bytes = histogram("output_bytes", "Size of each output", _SIZES)
        self.show_state(STATES[0])

    def show_state(self, state: str) -> None:
        """Make `state`, one of STATES, the present one."""
        for each in STATES:
            self._state.labels(state=each).set(each == state)

    def count_job(
        self, outcome: str, times: Mapping[str, float], total: float, overhead: float, sizes: Iterable[int]
    ) -> None:
        """A job has ended; `times` are seconds by part, `sizes` the bytes of its outputs."""
        self.jobs.labels(outcome=outcome).inc()
        self.waiting_seconds.observe(times["staging"] + times["waiting"])
        self.executing_seconds.observe(times["executing"])
        self.total_seconds.observe(total)
        self.overhead_seconds.observe(overhead)
        for size in sizes:
            self.output_bytes.observe(size)

    def collect(self) -> Iterator[Metric]:
        """All metrics, without the moments at which series were created, which would add a third to the text."""
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric

    def text(self) -> bytes:
        """All metrics in Prometheus' text format, of type CONTENT_TYPE."""
        return generate_latest(self)
