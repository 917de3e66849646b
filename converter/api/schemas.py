"""The shapes of what the native dialect and the probes take and give, as JSON Schemas (2020-12).

Leaves to others: which route has which (`operations`), and the document (`openapi`). Requests come from the models
that judge them; answers are written out here, open for fields to come. Invariant: every reference stays within
`build_schemas`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic.json_schema import models_json_schema

from converter.api.requests import RunRequest, TemplateRequest
from converter.core.job import Phase
from converter.core.outputs import Kind
from converter.core.readiness import State
from converter.core.template import Template, schema
from converter.errors import Fault, Retry
from converter.runner import STATES

Schema = dict[str, Any]

BINARY: Schema = {"type": "string", "format": "binary"}
"""Bytes as they are."""

TEXT: Schema = {"type": "string"}


def refer(name: str) -> Schema:
    """A reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Mapping[str, Schema], *optional: str, description: str = "") -> Schema:
    """An object that has all of these properties but the optional ones, and perhaps more."""
    required = [name for name in properties if name not in optional]
    about = {"description": description} if description else {}
    return {"type": "object", **about, "properties": dict(properties), "required": required}


def _list(items: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": items, **limits}


def _about(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description}


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


_FLAG: Schema = {"type": "boolean"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_SECONDS: Schema = {"type": "number", "minimum": 0}
_BASE64: Schema = {"type": "string", "contentEncoding": "base64"}

# Work --------------------------------------------------------------------------------------------------------------

_UNDER_WAY = list(dict.fromkeys(STATES.get(p, p.value) for p in Phase if p not in (Phase.STOPPING, Phase.DONE)))
_ENDED = ["succeeded", "failed", "canceled"]

_TIMINGS = dict.fromkeys(("waiting", "staging", "queued", "executing", "collecting"), _SECONDS)

_PLACES: list[Schema] = [{"required": [member]} for member in ("data", "text", "url", "key", "put")]
"""Any of them tells where an output is; a key may have a url beside it."""

_WORK: dict[str, Schema] = {
    "Node": _object(
        {
            "class_type": TEXT,
            "inputs": {
                "type": "object",
                "description": "Values, and links to the outputs of other nodes: `[node id, index]`.",
            },
        },
        description="A node of a workflow, as ComfyUI exports it with Export (API).",
    ),
    "Output": _object(
        {
            "node_id": TEXT,
            "class_type": _or_null(TEXT),
            "name": TEXT,
            "kind": {"enum": list(get_args(Kind))},
            "content_type": TEXT,
            "size": _about(_COUNT, "Bytes."),
            "data": _about(_BASE64, "The bytes; `output` events have none."),
            "text": _about(TEXT, "The text, where it is one that no file holds."),
            "url": _about(TEXT, "Where the bytes are; without a host, on the replica that has answered."),
            "expires_at": _about({**TEXT, "format": "date-time"}, "Until when the url is good."),
            "destination": _about(TEXT, "The place in object storage that has it."),
            "key": _about(TEXT, "Its key there."),
            "put": _about(_COUNT, "The place, from 1, of the URL in `outputs.delivery.put` that took it."),
            "label": _about(TEXT, "The name that the template has for its node."),
            "warning": _about(TEXT, "What is not as it was asked for, and why."),
        },
        "data",
        "text",
        "url",
        "expires_at",
        "destination",
        "key",
        "put",
        "label",
        "warning",
        description="What a node made. By node as in the workflow, then as the engine lists them.",
    ),
    "Timings": _object(
        {**_TIMINGS, "total": _SECONDS},
        description="Seconds: for a place, for inputs, in the engine's queue, in the engine, for outputs; and in all.",
    ),
    "Engine": _object(
        {
            "instance": _about(_or_null(TEXT), "Changes when the engine restarts."),
            "prompt_id": _about(_or_null(TEXT), "The prompt at the engine."),
        }
    ),
    "Result": _object(
        {
            "id": TEXT,
            "status": {"const": "succeeded"},
            "outputs": _list({"allOf": [refer("Output"), {"anyOf": _PLACES}]}, minItems=1),
            "timings": refer("Timings"),
            "engine": refer("Engine"),
            "inputs": {"type": "object", "description": "What a template was filled with, a drawn seed included."},
        },
        "inputs",
        description="A job that has succeeded, with everything it made.",
    ),
    "Notice": _object(
        {
            "type": {"enum": [f"job.{status}" for status in _ENDED]},
            "timestamp": {**TEXT, "format": "date-time"},
            "data": _about({"anyOf": [refer("Result"), refer("Job")]}, "Outputs that found no room have no `data`."),
        },
        description="What the receiver of a webhook is told.",
    ),
    "Job": _object(
        {
            "id": TEXT,
            "status": {"enum": [*_UNDER_WAY, *_ENDED]},
            "timings": refer("Timings"),
            "engine": refer("Engine"),
            "inputs": {"type": "object"},
            "queue": _object({"position": _or_null(_COUNT), "estimated_seconds": _or_null(_SECONDS)}),
            "progress": refer("Progress"),
            "error": refer("Problem"),
        },
        "inputs",
        "queue",
        "progress",
        "error",
        description="A job without its outputs: `queue` and `progress` while it goes on, `error` if it failed.",
    ),
    "Status": _object(
        {
            "state": {"enum": [*_UNDER_WAY, "restarted"]},
            "position": _about(_or_null(_COUNT), "Prompts that run before."),
            "estimated_seconds": _about(_or_null(_SECONDS), "Until the engine should be done."),
        }
    ),
    "Progress": _object(
        {
            "value": {"type": "number", "minimum": 0, "maximum": 1, "description": "Never goes back."},
            "nodes_done": _COUNT,
            "nodes_total": _COUNT,
            "node_id": _about(_or_null(TEXT), "The node that runs."),
            "class_type": _or_null(TEXT),
            "step": _or_null(_COUNT),
            "steps": _or_null(_COUNT),
        },
        description="A complete snapshot.",
    ),
    "Preview": _object({"node_id": _or_null(TEXT), "content_type": TEXT, "data": _BASE64}),
}

_EVENTS = {
    "status": "Status",
    "progress": "Progress",
    "preview": "Preview",
    "output": "Output",
    "result": "Result",
    "error": "Problem",
}
"""The shape of each event's data."""


def _describe_events() -> Schema:
    number = {"type": "string", "pattern": "^[0-9]+$"}
    kinds = [
        _object(
            {
                "id": number,
                "event": {"const": event},
                "data": {**TEXT, "contentMediaType": "application/json", "contentSchema": refer(name)},
            }
        )
        for event, name in _EVENTS.items()
    ]
    about = (
        "One server-sent event; `data` is JSON in one line. Snapshots (`status`, `progress`, `preview`) may be left "
        "out for a slow reader; exactly one `result` or `error` comes, as the last. Comments come while all is silent."
    )
    return {"description": about, "oneOf": kinds}


# Templates and probes ----------------------------------------------------------------------------------------------

_SUMMARY = _object(
    {
        "name": TEXT,
        "title": TEXT,
        "description": TEXT,
        "available": _about(
            _or_null(_FLAG), "Whether the engine has all that it needs by default; null while that is not known."
        ),
        "reason": _about(TEXT, "What the engine lacks."),
    },
    "reason",
)

_HEALTH = {
    "state": {"enum": [state.value for state in State]},
    "reason": TEXT,
    "queue": _object({"running": _COUNT, "waiting": _COUNT, "strangers": _COUNT, "capacity": _COUNT}),
    "engine": _object({"url": TEXT, "instance": _or_null(TEXT)}),
}

_REST: dict[str, Schema] = {
    "Workflows": _object({"workflows": _list(_SUMMARY)}),
    "Workflow": _object(
        {
            **_SUMMARY["properties"],
            "inputs": {
                "type": "object",
                "description": "The JSON Schema (2020-12) of `inputs`. `x-type` is the type that the template says: "
                "`image`, `video` and `audio` are files, a `seed` that is left out is drawn; `x-node` lists the "
                "inputs of nodes, as `NODE.INPUT`, to which it goes.",
            },
            "outputs": {
                "type": "object",
                "description": "By name, the nodes that are run and answered unless `outputs.nodes` says otherwise, "
                "where these names may stand, too. Empty: whatever the workflow makes.",
                "additionalProperties": _object({"node_id": TEXT, "description": TEXT}),
            },
        },
        "reason",
    ),
    "Health": _object(_HEALTH),
    "ReplicaStatus": _object(
        {
            **_HEALTH,
            "ready": _FLAG,
            "live": _FLAG,
            "started": _FLAG,
            "service_seconds": _about(_or_null(_SECONDS), "What a prompt takes, as measured."),
            "engine_depth": _about(_COUNT, "Prompts given to the engine at once."),
            "version": TEXT,
        }
    ),
}

# Faults ------------------------------------------------------------------------------------------------------------


def list_faults(kind: type[Fault] = Fault) -> list[type[Fault]]:
    """Every fault that can be told: the leaves of the tree, in its order."""
    below = kind.__subclasses__()
    return [leaf for child in below for leaf in list_faults(child)] if below else [kind]


def explain(faults: Iterable[type[Fault]]) -> str:
    """A list of codes, each with what it means."""
    return "\n".join(f"- `{kind.code}` ({kind.status}): {kind.__doc__ or kind.title}" for kind in faults)


def _describe_problem() -> Schema:
    faults = list_faults()
    filled = _about(TEXT, "The template's input that fills `input_name` of the node.")
    at = {"input_name": TEXT, "template_input": filled}
    reason = _object({"type": TEXT, "message": TEXT, "details": TEXT, **at}, *at)
    place = {"node_id": _or_null(TEXT), "class_type": _or_null(TEXT), **at}
    helpful: dict[str, Schema] = {
        **place,
        "retry_after": _about(_COUNT, "Seconds, as in `Retry-After`."),
        "problems": _about(
            _list(_object({"pointer": TEXT, "detail": TEXT})), "All that is wrong, each at its JSON pointer (RFC 6901)."
        ),
        "node_errors": {
            "type": "object",
            "description": "What is wrong with the workflow, by node id.",
            "additionalProperties": _object({"class_type": _or_null(TEXT), "errors": _list(reason)}),
        },
        "inputs": _about(
            _list(_object(place, "template_input")), "The inputs that can't be used, where there are several."
        ),
        "exception_type": TEXT,
        "queue": _HEALTH["queue"],
        "phase": _about(TEXT, "Where the job was when its time was up."),
        "timings": refer("Timings"),
        "nodes": _about(_list(TEXT), "The nodes that would answer."),
        "location": _about(TEXT, "Where the result is."),
        "allow": TEXT,
        "content_range": _about(TEXT, "How many bytes the file has, as `bytes */COUNT`."),
        "seconds": _about(_COUNT, "For how long the workflow is refused."),
    }
    members = {
        "type": {"enum": [f"urn:converter:fault:{kind.code}" for kind in faults]},
        "title": TEXT,
        "status": {"enum": sorted({kind.status for kind in faults})},
        "code": _about({"enum": [kind.code for kind in faults]}, explain(faults)),
        "detail": TEXT,
        "retry": _about(
            {"enum": list(get_args(Retry))}, "Whether the request may be sent again: never, as it is, later."
        ),
        "request_id": TEXT,
    }
    return _object({**members, **helpful}, *helpful, description="Problem details (RFC 9457).")


# Requests ----------------------------------------------------------------------------------------------------------

_FIELDS: dict[str, Schema] = {
    "id": {"description": "Your name for the job; made up if left out."},
    "timeout": {"description": "Seconds for the whole request, queueing included; the server has a default and a cap."},
    "priority": {"description": "Higher runs first. Below 0: gives way to others when the replica is busy."},
    "outputs": {"description": "Which outputs are answered, and how."},
    "extra_data": {"description": "Handed to the engine, and told to nobody else."},
    "webhook": {
        "description": "A URL that is sent a signed notice (Standard Webhooks) once the job has ended, in any way. "
        "The job goes on if its caller leaves. Refused where the service has no secret to sign with, and where the URL "
        "leads to a private address that its operator has not named.",
        "format": "uri",
    },
    "workflow": {
        "description": "The workflow, as ComfyUI exports it with Export (API): nodes by their ids.",
        "minProperties": 1,
        "additionalProperties": refer("Node"),
    },
    "inputs": {"description": "The template's inputs, by name."},
    "nodes": {"description": "Only these nodes are run and answered."},
    "format": {"description": "Pictures are converted to it."},
    "quality": {"description": "Of a conversion: 1 is smallest, 100 is best."},
    "metadata": {"description": "Whether what pictures tell of how they were made stays in them."},
    "delivery": {
        "description": "How the bytes come: `inline`, within JSON (or as `Accept` says); `raw`, `multipart` or `zip`, "
        "as the body of this answer; `url`, by links to this replica that are good for a while; or to object storage: "
        "a destination that the operator has named, or URLs of yours that take a PUT."
    },
    "storage": {"description": "The destination's name."},
    "put": {"description": "One URL, or a list of them in the order of the outputs, texts not counted."},
    "headers": {"description": "Headers of each PUT. `Content-Type` is the output's unless it is given."},
}
"""What the models do not say of their fields."""


def _describe_requests() -> dict[str, Schema]:
    models: Any = [(model, "validation") for model in (RunRequest, TemplateRequest)]
    _, found = models_json_schema(models, ref_template="#/components/schemas/{model}")
    described: dict[str, Schema] = found["$defs"]
    for model in described.values():
        model["properties"] = {name: {**field, **_FIELDS[name]} for name, field in model["properties"].items()}
    return described


def name_request(template: Template) -> str:
    """The name of the schema of a template's request."""
    return f"TemplateRequest.{template.name}"


def build_schemas(templates: Iterable[Template]) -> dict[str, Schema]:
    """All schemas, by name."""
    requests = _describe_requests()
    generic = requests["TemplateRequest"]
    for template in templates:
        inputs = {key: value for key, value in schema(template).items() if key != "$schema"}
        typed = {**generic, "title": template.title, "description": template.description}
        typed["properties"] = {**generic["properties"], "inputs": inputs}
        requests[name_request(template)] = typed | ({"required": ["inputs"]} if inputs["required"] else {})
    return {**requests, **_WORK, "Event": _describe_events(), **_REST, "Problem": _describe_problem()}
