"""What the answers of Comfy API v2 look like, as JSON Schema, from its public OpenAPI document; and a caller who checks
every one.

Invariant: an answer that no schema is for fails.
"""

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import jsonschema
from comfy_sdk import AsyncComfy

Schema = dict[str, Any]


def _object(required: Schema, optional: Schema | None = None) -> Schema:
    """An object of these members and no others."""
    members = {**required, **(optional or {})}
    return {"type": "object", "required": list(required), "properties": members, "additionalProperties": False}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
TIME: Schema = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"}
ADDRESS: Schema = {"type": "string", "pattern": "^https?://"}
HASH: Schema = _or_null({"type": "string", "pattern": "^blake3:[0-9a-f]{64}$"})
STATUS: Schema = {"enum": ["queued", "running", "succeeded", "canceling", "canceled", "failed", "expired"]}
LABELS: Schema = {"type": "object", "additionalProperties": TEXT}

ASSET = _object(
    {
        "id": TEXT,
        "hash": HASH,
        "size_bytes": WHOLE,
        "content_type": TEXT,
        "created_at": TIME,
        "url": ADDRESS,
        "url_expires_at": TIME,
    },
    {
        "file_path": _or_null(TEXT),
        "created_new": {"type": "boolean"},
        "expires_at": _or_null(TIME),
        "job_id": _or_null(TEXT),
    },
)

OUTPUT = _object(
    {
        "node_id": TEXT,
        "name": TEXT,
        "type": {"enum": ["image", "video", "audio", "text", "file", "latent"]},
        "content_type": TEXT,
        "size_bytes": WHOLE,
        "id": TEXT,
        "hash": HASH,
        "url": ADDRESS,
        "url_expires_at": TIME,
    },
    {"job_id": _or_null(TEXT)},
)

PROGRESS = _object(
    {"value": {"type": "number", "minimum": 0, "maximum": 1}, "nodes_done": WHOLE, "nodes_total": WHOLE},
    {
        "current_node": _or_null(TEXT),
        "current_node_class": _or_null(TEXT),
        "step": _or_null(WHOLE),
        "steps": _or_null(WHOLE),
        "message": _or_null(TEXT),
    },
)

JOB_ERROR = _object(
    {"code": TEXT, "message": TEXT},
    {"node_id": _or_null(TEXT), "class_type": _or_null(TEXT), "traceback": _or_null(TEXT)},
)

JOB = _object(
    {
        "id": TEXT,
        "status": STATUS,
        "created_at": TIME,
        "started_at": _or_null(TIME),
        "completed_at": _or_null(TIME),
        "expires_at": TIME,
        "queue_position": _or_null(WHOLE),
        "progress": _or_null(PROGRESS),
        "outputs": {"type": "array", "items": OUTPUT},
        "error": _or_null(JOB_ERROR),
        "urls": _object({name: {"type": "string", "pattern": "^/api/v2/"} for name in ("self", "events", "cancel")}),
    },
    {"metrics": {"type": "object", "additionalProperties": _or_null(WHOLE)}, "metadata": LABELS},
)

SUMMARY = _object({"id": TEXT, "status": STATUS, "create_time": TIME, "update_time": TIME, "metadata": LABELS})

ERROR = _object({"error": _object({"code": TEXT, "message": TEXT, "details": _or_null({"type": "object"})})})

EVENTS: dict[str, Schema] = {
    "status": _object({"status": STATUS}, {"queue_position": _or_null(WHOLE)}),
    "progress": PROGRESS,
    "preview": _object({"node_id": TEXT, "content_type": {"const": "image/jpeg"}, "data_base64": TEXT}),
    "output": OUTPUT,
}

ANSWERS: dict[tuple[str, str, int], Schema] = {
    ("POST", "/jobs", 201): JOB,
    ("GET", "/jobs", 200): _object({"jobs": {"type": "array", "items": SUMMARY}}, {"next_cursor": TEXT}),
    ("GET", "/jobs/ID", 200): JOB,
    ("POST", "/jobs/ID/cancel", 200): JOB,
    ("GET", "/jobs/ID/workflow", 200): _object({"workflow": {"type": "object"}, "format": {"const": "api"}}),
    ("POST", "/assets", 201): ASSET,
    ("POST", "/assets", 200): ASSET,
    ("POST", "/assets/from-hash", 201): ASSET,
    ("GET", "/assets/ID", 200): ASSET,
}


def check(method: str, path: str, status: int, document: Any) -> None:
    """A JSON answer is as the API has it."""
    place = path.removeprefix("/api/v2")
    place = re.sub(r"^/(jobs|assets)/(?!from-hash|by-hash)[^/]+", r"/\1/ID", place)
    jsonschema.validate(document, ERROR if status >= 400 else ANSWERS[method, place, status])


async def _check_response(response: httpx.Response) -> None:
    assert response.headers["X-Comfy-Request-Id"] == response.headers["X-Request-Id"]
    if response.headers.get("Content-Type", "").startswith("application/json"):
        await response.aread()
        check(response.request.method, response.request.url.path, response.status_code, response.json())


@asynccontextmanager
async def comfy(url: str, api_key: str | None = None) -> AsyncIterator[AsyncComfy]:
    """comfy-sdk's client of a converter, as it is; what it is answered is looked at on the way."""
    os.environ["COMFY_BASE_URL"] = url
    try:
        client = AsyncComfy(api_key=api_key)
    finally:
        del os.environ["COMFY_BASE_URL"]
    client._low._client.event_hooks["response"].append(_check_response)
    async with client:
        yield client
