"""What schemathesis is told of the service beside its document: hooks and checks for its command line.

For: the headers and keys that make requests reach more than one kind of answer, and a judge that is stricter than
schemathesis' own. Leaves the generating, sending and reporting to schemathesis. Invariant: what is chosen here follows
from the request alone, so that a run can be repeated.
"""

import zlib
from typing import Any

import schemathesis
from multidict import CIMultiDict, CIMultiDictProxy
from schemathesis import BaseSchema, Case, CheckContext, HookContext, Response
from schemathesis.core.failures import Failure

from tests.converter.api.document import Document
from tests.converter.faults.replica import Reply

ACCEPT = (
    "application/json",
    "*/*",
    "image/*",
    "text/event-stream",
    "multipart/mixed, image/png",
    "application/octet-stream",
    "image/webp",
    "video/*, audio/*;q=0.5",
    "text/html",
    ",;q=,/",
)

PREFER = ("respond-async", "wait=10")

SOON = 5.0
"""Seconds. Who gives a job less may be told that it did not end in time."""

_documents: dict[str, Document] = {}


@schemathesis.hook
def after_load_schema(context: HookContext, schema: BaseSchema) -> None:
    """The document that is fuzzed is the one that judges."""
    _documents["fuzzed"] = Document(schema.raw_schema)


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Vary what OpenAPI has no words for, and what the document has no examples of: readers of it would send them."""
    digest = zlib.crc32(repr((case.method, case.path, case.path_parameters, case.query, case.body)).encode())
    case.headers.setdefault("Accept", ACCEPT[digest % len(ACCEPT)])
    turn = digest // len(ACCEPT)
    if case.method.upper() == "POST" and turn % 2:
        case.headers.setdefault("Prefer", PREFER[turn // 2 % len(PREFER)])
    if case.method.upper() == "POST" and turn // 4 % 4 == 0:
        case.headers.setdefault("Idempotency-Key", f"{digest:08x}")


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
    """OpenAPI can't say that one part of a form comes first, and that the others must be referred to."""
    in_vain = case.media_type == "multipart/form-data" and response.status_code == 400
    return not (in_vain and "positive_data_acceptance" in failure.checks)


@schemathesis.check
def answers_are_as_described(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """No member that the document does not name, whatever the media type, and nothing missing."""
    headers = CIMultiDict((name, value) for name, values in response.headers.items() for value in values)
    reply = Reply(response.status_code, CIMultiDictProxy(headers), response.content)
    _documents["fuzzed"].judge(case.operation.method.upper(), case.operation.path, reply)


@schemathesis.check
def time_runs_out_only_where_there_was_little(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """504 is the caller's own doing."""
    if response.status_code == 504:
        body: Any = case.body
        assert 0 < body.get("request", body)["timeout"] < SOON
