"""What each route of the native dialect and the probes takes and answers, as data for the OpenAPI document.

Leaves to others: the shapes (`schemas`), and how it is written down (`openapi`). Invariant: every example can be sent
as it is, to any engine that has ComfyUI's core nodes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from converter.api.requests import RunRequest, TemplateRequest
from converter.api.schemas import BINARY, TEXT, Schema, refer
from converter.core.idempotency import PATTERN
from converter.core.template import Input, Template
from converter.errors import (
    Canceled,
    DeadlineExceeded,
    DeadlineUnmeetable,
    DeliveryFailed,
    Draining,
    EngineDown,
    EngineFailed,
    ExecutionFailed,
    Expired,
    Fault,
    IdempotencyMismatch,
    IdInUse,
    InvalidInput,
    InvalidRequest,
    InvalidWorkflow,
    NotAcceptable,
    NotFound,
    OutOfMemory,
    QueueFull,
    RangeNotSatisfiable,
    RequestTimeout,
    Shed,
    Starting,
    TooLarge,
    UnsupportedMediaType,
)
from converter.telemetry import CONTENT_TYPE


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is no fault: schemas by media type, names of headers, and routes that go on from it."""

    description: str
    content: Mapping[str, Schema] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One route. `id` is unique; `parameters` are names in PARAMETERS; `faults` those that belong to the route."""

    id: str
    tag: Literal["work", "workflows", "jobs", "outputs", "health", "about"]
    summary: str
    answers: Mapping[int, Answer]
    description: str = ""
    parameters: tuple[str, ...] = ()
    body: type[BaseModel] | None = None
    examples: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[type[Fault], ...] = ()


OPEN = ("health", "outputs")
"""Tags of what needs no key: probes, and links that are keys themselves."""

PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    # Headers have no examples, since the page at /docs would send them where nothing was entered.
    "X-Request-Id": {
        "in": "header",
        "description": "Comes back with the answer and is in every log line about the request, if it has at most 128 "
        "characters and none but letters, digits and `._:+/=@-`; else a new one does.",
        "schema": TEXT,
    },
    "Prefer": {
        "in": "header",
        "description": "RFC 7240: `respond-async` answers 202 at once, `wait=N` after N seconds. The job then goes on "
        "without its caller, and its result is kept for a while.",
        "schema": TEXT,
    },
    "Idempotency-Key": {
        "in": "header",
        "description": "A name that the caller makes up for this request, such as a UUID, in quotes or as a bare "
        "token: sent again, it runs once. While the job goes on every caller of the key waits for it; what it ended "
        "with, 200 or 422, is replayed for as long as the job is kept. Any other end frees the key. Known to this "
        "replica alone.",
        "schema": {"type": "string", "pattern": PATTERN},
    },
    "Last-Event-ID": {
        "in": "header",
        "description": "The id of the last event that was received: the stream goes on after it. What is no such id "
        "is passed over.",
        "schema": TEXT,
    },
    "Range": {
        "in": "header",
        "description": "RFC 9110, section 14: `bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-COUNT` asks for a part. "
        "Anything else, several ranges, and a range with `If-Range` are passed over.",
        "schema": TEXT,
    },
    "id": {"in": "path", "required": True, "description": "The job's id.", "schema": TEXT},
    "reference": {"in": "path", "required": True, "description": "As a link has it.", "schema": TEXT},
    "name": {"in": "path", "required": True, "description": "The template's name.", "schema": TEXT},
}
"""By name, which is the parameter's own."""

HEADERS: Mapping[str, Mapping[str, Any]] = {
    "X-Request-Id": {"required": True, "description": "The caller's, or a new one.", "schema": TEXT},
    "Server-Timing": {
        "required": True,
        "description": "Milliseconds by part (W3C Server Timing): `total`, up to the head of the answer; where the "
        "request has waited for a job, before it the job's `waiting`, `staging`, `queued`, `executing`, `collecting`, "
        "and `overhead`, which is the converter's own.",
        "schema": {"type": "string", "pattern": r"^([a-z]+;dur=[0-9.]+, )*total;dur=[0-9.]+$"},
    },
    "X-Job-Id": {"description": "The job's id, where the body does not tell it.", "schema": TEXT},
    "Content-Disposition": {"description": "With the file's name, where the body is one file.", "schema": TEXT},
    "Accept-Ranges": {"description": "`bytes`: parts may be asked for.", "schema": {"const": "bytes"}},
    "Content-Range": {
        "required": True,
        "description": "Which bytes these are, and of how many.",
        "schema": {"type": "string", "pattern": "^bytes [0-9]+-[0-9]+/[0-9]+$"},
    },
    "Idempotency-Replayed": {
        "description": "`true`: the job of this Idempotency-Key had ended before the request came.",
        "schema": {"const": "true"},
    },
    "Location": {"required": True, "description": "Where the job is.", "schema": TEXT},
    "Preference-Applied": {"required": True, "description": "The preference that was followed.", "schema": TEXT},
    "Retry-After": {
        "required": True,
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 120},
    },
    "x-should-retry": {"description": "`false`: the same request will not succeed.", "schema": {"const": "false"}},
    "WWW-Authenticate": {"required": True, "description": "How to say who one is (RFC 6750).", "schema": TEXT},
    "Allow": {"description": "With 405: the methods that are allowed.", "schema": TEXT},
    "ETag": {"required": True, "description": "Changes with the document.", "schema": TEXT},
}
"""Headers of answers. A fault has Location only where there is a result to be had."""

# Examples ----------------------------------------------------------------------------------------------------------

SAMPLE_TEXT = "a red circle on a white background"
SAMPLE_IMAGE = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR42mP8z4AdMDEMKQkAzUEBD7t4NqoAAAAASUVORK5CYII="
)
"""A red square of 8 x 8 pixels."""


def _picture(source: Mapping[str, Any]) -> dict[str, Any]:
    """A workflow that saves what its node 1 gives."""
    saved = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "example"}}
    return {"1": dict(source), "2": saved}


_RED = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0xFF0000}}

_RUNS: Mapping[str, Any] = {
    "picture": {"summary": "A picture", "value": {"workflow": _picture(_RED)}},
    "webp": {
        "summary": "As WebP, within ten seconds",
        "value": {
            "workflow": _picture(_RED),
            "timeout": 10,
            "priority": 1,
            "outputs": {"nodes": ["2"], "format": "webp", "quality": 80},
        },
    },
    "upload": {
        "summary": "With a picture inside",
        "value": {"workflow": _picture({"class_type": "LoadImage", "inputs": {"image": SAMPLE_IMAGE}})},
    },
}


def sample(template: Template) -> dict[str, Any] | None:
    """A request for a template: whatever it requires, and nothing else; None where that can't be made up."""
    inputs = {hole.name: _sample_input(hole) for hole in template.inputs if hole.required}
    return None if None in inputs.values() else {"inputs": inputs}


def _sample_input(hole: Input) -> Any:
    match hole.type:
        case "image":
            return SAMPLE_IMAGE
        case "string":
            return hole.example or SAMPLE_TEXT[: hole.max_length]
        case "boolean":
            return True
        case "choice":
            return next(iter(hole.choices), None)
        case "video" | "audio":
            return None
    limits = [limit for limit in (hole.minimum, hole.maximum) if limit is not None]
    return limits[0] if limits else 1


# Native ------------------------------------------------------------------------------------------------------------

_NEGOTIATION = (
    "`Accept` decides on the answer: JSON with the bytes inside (the default), the bytes of the one output, or of "
    "several as multipart/mixed or ZIP, or events while the job goes on. Who leaves early cancels the job, unless "
    "`Prefer` has let it go. A body of multipart/form-data has the JSON as its first part, `request`; "
    '`{"part": NAME}` in place of an input\'s value refers to another part. Inputs that load media also take '
    "base64, data: URIs, and URLs (http, https, s3, gs, az). Bodies may be compressed (gzip, deflate)."
)

_MEDIA = {
    **dict.fromkeys(("image/*", "video/*", "audio/*", "application/octet-stream"), BINARY),
    "multipart/mixed": BINARY,
    "application/zip": BINARY,
    "text/event-stream": refer("Event"),
}

_DONE = Answer(
    "What the job made.",
    {"application/json": refer("Result"), **_MEDIA},
    ("X-Job-Id", "Content-Disposition", "Idempotency-Replayed"),
)
_TOLD = Answer("The event of `Last-Event-ID` was the last: nothing follows.", headers=("X-Job-Id",))
_ACCEPTED = Answer(
    "The job goes on; its result will be at `Location`.",
    {"application/json": refer("Job")},
    ("Location", "Preference-Applied", "Idempotency-Replayed"),
    ("show_job", "watch_job", "cancel_job"),
)

_REFUSALS = (QueueFull, Shed, DeadlineUnmeetable, Starting, Draining, EngineDown)
_UNREADABLE = (InvalidRequest, NotAcceptable, RequestTimeout, TooLarge, UnsupportedMediaType)
_BROKEN = (EngineFailed, DeliveryFailed)
_FAILURES = (Canceled, InvalidWorkflow, InvalidInput, ExecutionFailed, *_BROKEN, DeadlineExceeded, OutOfMemory)
_WORK_FAULTS = (*_UNREADABLE, IdInUse, IdempotencyMismatch, Expired, *_FAILURES, *_REFUSALS)

_NATIVE: Mapping[tuple[str, str], Operation] = {
    ("POST", "/v1/run"): Operation(
        "run",
        "work",
        "Run a workflow",
        {200: _DONE, 202: _ACCEPTED},
        _NEGOTIATION,
        parameters=("Prefer", "Idempotency-Key"),
        body=RunRequest,
        examples=_RUNS,
        faults=_WORK_FAULTS,
    ),
    ("GET", "/v1/workflows"): Operation(
        "list_templates",
        "workflows",
        "List the workflows that are here",
        {200: Answer("All templates.", {"application/json": refer("Workflows")})},
    ),
    ("GET", "/v1/workflows/{name}"): Operation(
        "show_template",
        "workflows",
        "Show the inputs of a workflow",
        {200: Answer("The template.", {"application/json": refer("Workflow")})},
        parameters=("name",),
        faults=(NotFound,),
    ),
    ("POST", "/v1/workflows/{name}"): Operation(
        "run_template",
        "workflows",
        "Run a workflow that is here",
        {200: _DONE, 202: _ACCEPTED},
        _NEGOTIATION,
        parameters=("name", "Prefer", "Idempotency-Key"),
        body=TemplateRequest,
        faults=(NotFound, *_WORK_FAULTS),
    ),
    ("GET", "/v1/jobs/{id}"): Operation(
        "show_job",
        "jobs",
        "Show a job, with its result once there is one",
        {
            200: Answer(
                "The result; or, where JSON is acceptable, how far the job is or how it failed.",
                {"application/json": {"anyOf": [refer("Result"), refer("Job")]}, **_MEDIA},
                ("X-Job-Id", "Content-Disposition"),
            ),
            204: _TOLD,
        },
        "`Accept` decides on the answer as it does for the request that began the job. Who accepts bytes alone is told "
        "by a 406 that the job has not ended, and by its own fault how it failed.",
        parameters=("id", "Last-Event-ID"),
        faults=(NotFound, NotAcceptable, Expired, *_FAILURES, Shed, Draining, EngineDown),
    ),
    ("GET", "/v1/jobs/{id}/events"): Operation(
        "watch_job",
        "jobs",
        "Watch a job",
        {
            200: Answer("The job's events, to its end.", {"text/event-stream": refer("Event")}, ("X-Job-Id",)),
            204: _TOLD,
        },
        parameters=("id", "Last-Event-ID"),
        faults=(NotFound, Expired),
    ),
    ("GET", "/v1/outputs/{reference}"): Operation(
        "show_output",
        "outputs",
        "Fetch an output by its link",
        {
            200: Answer("The bytes.", {"*/*": BINARY}, ("Content-Disposition", "Accept-Ranges")),
            206: Answer(
                "The bytes of the range.", {"*/*": BINARY}, ("Content-Disposition", "Accept-Ranges", "Content-Range")
            ),
        },
        "Links come with `outputs.delivery` `url`. They need no key: whoever has one may fetch the output.",
        parameters=("reference", "Range"),
        faults=(NotFound, Expired, RangeNotSatisfiable, EngineFailed),
    ),
    ("POST", "/v1/jobs/{id}/cancel"): Operation(
        "cancel_job",
        "jobs",
        "Cancel a job",
        {200: Answer("The job as it is by then.", {"application/json": refer("Job")})},
        "Idempotent; a job that has ended stays as it is.",
        parameters=("id",),
        faults=(NotFound, Expired),
    ),
}

# Probes ------------------------------------------------------------------------------------------------------------


def _probe(operation_id: str, summary: str, no: str) -> Operation:
    content = {"application/json": refer("Health")}
    return Operation(operation_id, "health", summary, {200: Answer("Yes.", content), 503: Answer(no, content)})


_LIVE = "Whether the replica works"
_READY = "Whether the replica takes work"

_PROBES: Mapping[tuple[str, str], Operation] = {
    ("GET", "/livez"): _probe("live", _LIVE, "Only a new container helps."),
    ("GET", "/readyz"): _probe("ready", _READY, "Not at present."),
    ("GET", "/startupz"): _probe("started", "Whether the first warm-up has succeeded", "Not yet."),
    ("GET", "/v2/health/live"): _probe("kserve_live", f"{_LIVE}, as KServe asks", "Only a new container helps."),
    ("GET", "/v2/health/ready"): _probe("kserve_ready", f"{_READY}, as KServe asks", "Not at present."),
    ("GET", "/status"): Operation(
        "status",
        "health",
        "How the replica is",
        {200: Answer("Its state and more, whatever the state.", {"application/json": refer("ReplicaStatus")})},
    ),
    ("GET", "/metrics"): Operation(
        "metrics",
        "health",
        "Metrics for Prometheus",
        {200: Answer("In Prometheus' text format.", {CONTENT_TYPE.split(";")[0]: TEXT})},
    ),
    ("GET", "/openapi.json"): Operation(
        "describe",
        "about",
        "This document",
        {
            200: Answer("An OpenAPI document.", {"application/json": {"type": "object"}}, ("ETag",)),
            304: Answer("The document is the one that `If-None-Match` names.", headers=("ETag",)),
        },
    ),
}

OPERATIONS: Mapping[tuple[str, str], Operation] = {**_NATIVE, **_PROBES}
"""By method and path."""
