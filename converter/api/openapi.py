"""The OpenAPI 3.1 document: every route that is served to programs, and for each template its own, typed.

Writes down what `operations` and `schemas` say. Leaves to others: what is registered, and which templates there are.
Invariant: the document has exactly the routes that it was made from, and the templates of the moment.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from aiohttp import ETag, web

from converter import __version__
from converter.api.operations import HEADERS, OPEN, OPERATIONS, PARAMETERS, Answer, Operation, sample
from converter.api.schemas import BINARY, Schema, build_schemas, explain, name_request, refer
from converter.core.offers import Offer
from converter.errors import (
    Fault,
    Forbidden,
    IdempotencyMismatch,
    NotAcceptable,
    NotFound,
    RateLimited,
    Unauthorized,
)

ABOUT = """Synchronous HTTP in front of an asynchronous diffusion engine such as ComfyUI.

What goes wrong is told as problem details (RFC 9457) with a stable `code`, on every route. JSON is UTF-8; fields that
a request has and this document has not are refused, while answers may get new ones. But for jobs, HEAD answers what GET
does, without the body.
"""

ALWAYS = ("X-Request-Id", "Server-Timing")
"""Headers of every answer."""


class OpenApi:
    """The door of the document. `server` is the address at which this replica is reached, "" where it is not known."""

    def __init__(
        self, routes: Iterable[web.RouteDef], offers: Callable[[], Mapping[str, Offer]], server: str, *, guarded: bool
    ) -> None:
        """`routes` are those of the other doors; raises KeyError for one that has no description.

        `offers` gives the templates, as another object whenever they have changed. `guarded`: all but the probes need
        an API key.
        """
        self._names = [(route.method, route.path) for route in (*routes, *self.routes())]
        self._offers = offers
        self._server = server
        self._guarded = guarded
        self._make(offers())

    def _make(self, offers: Mapping[str, Offer]) -> None:
        self._made_of = offers
        document = describe(self._names, tuple(offers.values()), self._server, guarded=self._guarded)
        self._body = json.dumps(document).encode()
        self._etag = ETag(hashlib.sha256(self._body).hexdigest()[:32])

    def routes(self) -> list[web.RouteDef]:
        """What this door serves."""
        return [web.get("/openapi.json", self.show)]

    async def show(self, request: web.Request) -> web.Response:
        """`GET /openapi.json`."""
        offers = self._offers()
        if offers is not self._made_of:
            self._make(offers)
        same = any(tag.value in (self._etag.value, "*") for tag in request.if_none_match or ())
        response = web.Response(status=304) if same else web.Response(body=self._body, content_type="application/json")
        response.etag = self._etag
        return response


def describe(
    routes: Iterable[tuple[str, str]], offers: Sequence[Offer], server: str, *, guarded: bool
) -> dict[str, Any]:
    """The document for routes, given by method and path; raises KeyError for one that has no description."""
    paths: dict[str, dict[str, Any]] = {}
    used: dict[str, Any] = {}
    for method, path in routes:
        operation = _guard(OPERATIONS[method, path], guarded=guarded)
        paths.setdefault(path, {})[method.lower()] = _describe_operation(operation, used)
        if "name" in operation.parameters:
            for offer in offers:
                typed = paths.setdefault(path.format(name=offer.template.name), {})
                typed[method.lower()] = _describe_template(operation, offer, used)
    parameters = {name: {"name": name, **parameter} for name, parameter in PARAMETERS.items()}
    if offers:
        parameters["name"]["schema"] = {"enum": [offer.template.name for offer in offers]}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "converter",
            "version": __version__,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server or "/"}],
        **({"security": [{"key": []}]} if guarded else {}),
        "paths": paths,
        "webhooks": {"job_ended": {"post": _describe_notice()}},
        "components": {
            "schemas": build_schemas(offer.template for offer in offers),
            "parameters": parameters,
            "headers": {name: dict(header) for name, header in HEADERS.items()},
            "responses": {**used, "Fault": _describe_other_faults()},
            **({"securitySchemes": {"key": _KEY}} if guarded else {}),
        },
    }


def _describe_notice() -> dict[str, Any]:
    """What receivers of webhooks get."""
    headers = {
        "webhook-id": "Stays the same when the notice is sent again.",
        "webhook-timestamp": "When it was sent, in seconds since the epoch.",
        "webhook-signature": "One or more signatures, as Standard Webhooks has them.",
    }
    parameters = [
        {"in": "header", "name": name, "required": True, "description": about, "schema": {"type": "string"}}
        for name, about in headers.items()
    ]
    return {
        "operationId": "job_ended",
        "summary": "A job has ended",
        "description": "Sent to the `webhook` of a request, and again until it is answered with 2xx or 410, or time is "
        "up.",
        "security": [],
        "parameters": parameters,
        "requestBody": {"required": True, "content": {"application/json": {"schema": refer("Notice")}}},
        "responses": {"2XX": {"description": "Taken."}, "410": {"description": "Not wanted any more."}},
    }


_KEY = {"type": "http", "scheme": "bearer", "description": "An API key (RFC 6750): `Authorization: Bearer SECRET`."}


def _guard(operation: Operation, *, guarded: bool) -> Operation:
    """The operation with what stands before it."""
    if operation.tag in OPEN:
        return operation
    if not guarded:
        return replace(operation, faults=(*operation.faults, Forbidden))
    limited = () if operation.body is None else (RateLimited,)
    return replace(operation, faults=(*operation.faults, Unauthorized, *limited))


def _describe_template(generic: Operation, offer: Offer, used: dict[str, Any]) -> dict[str, Any]:
    """The generic operation, with the template's own inputs; it can't miss the template. There is no example that would
    not run, since the engine lacks something.
    """
    template, lack = offer.template, f"Not available here: {offer.reason}." if offer.reason else ""
    runs = generic.body is not None
    value = None if offer.available is False else sample(template)
    example = {} if value is None else {"required": {"summary": "What has to be given", "value": value}}
    typed = replace(
        generic,
        id=f"{generic.id}_{template.name}",
        summary=template.title if runs else f"{template.title}: its inputs",
        description="\n\n".join(filter(None, (template.description, lack, generic.description))),
        parameters=tuple(name for name in generic.parameters if name != "name"),
        examples=example if runs else {},
        faults=tuple(kind for kind in generic.faults if kind is not NotFound),
    )
    return _describe_operation(typed, used, name_request(template))


def _describe_operation(operation: Operation, used: dict[str, Any], body: str = "") -> dict[str, Any]:
    """One operation; what its faults look like is added to `used`. `body` names a schema other than the model's."""
    document: dict[str, Any] = {"operationId": operation.id, "tags": [operation.tag], "summary": operation.summary}
    if operation.description:
        document["description"] = operation.description
    names = (*operation.parameters, "X-Request-Id")
    if operation.tag in OPEN:
        document["security"] = []
    document["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in names]
    if operation.body is not None:
        document["requestBody"] = _describe_body(refer(body or operation.body.__name__), operation.examples)
    responses = {str(status): _describe_answer(answer) for status, answer in operation.answers.items()}
    for status, found in groupby(sorted(operation.faults, key=lambda kind: kind.status), lambda kind: kind.status):
        kinds = list(found)
        name = "Or".join(kind.__name__ for kind in kinds)
        used[name] = _describe_faults(status, kinds)
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
    document["responses"] = {**responses, "default": {"$ref": "#/components/responses/Fault"}}
    return document


def _describe_body(shape: Schema, examples: Mapping[str, Any]) -> dict[str, Any]:
    """JSON, or multipart/form-data of which JSON is the first part (RFC 7578)."""
    parts = {"type": "object", "properties": {"request": shape}, "required": ["request"]}
    form = {
        "schema": {**parts, "additionalProperties": BINARY},
        "encoding": {"request": {"contentType": "application/json"}},
    }
    given = {"examples": dict(examples)} if examples else {}
    return {"required": True, "content": {"application/json": {"schema": shape, **given}, "multipart/form-data": form}}


def _describe_answer(answer: Answer) -> dict[str, Any]:
    document: dict[str, Any] = {
        "description": answer.description,
        "headers": _refer_to_headers(*ALWAYS, *answer.headers),
    }
    if answer.content:
        document["content"] = {media: {"schema": shape} for media, shape in answer.content.items()}
    if answer.links:
        follow = {"id": "$response.body#/id"}
        document["links"] = {name: {"operationId": name, "parameters": follow} for name in answer.links}
    return document


def _describe_faults(status: int, kinds: Sequence[type[Fault]]) -> dict[str, Any]:
    """The answer of one status that one or more faults have."""
    narrowed = {"properties": {"status": {"const": status}, "code": {"enum": [kind.code for kind in kinds]}}}
    headers = [*ALWAYS]
    headers += ["Retry-After"] * all(kind.retry == "later" for kind in kinds)
    headers += ["x-should-retry"] * any(kind.retry == "never" for kind in kinds)
    headers += ["WWW-Authenticate"] * (Unauthorized in kinds)
    headers += ["Idempotency-Replayed"] * (IdempotencyMismatch in kinds)
    return _problem(explain(kinds), {"allOf": [refer("Problem"), narrowed]}, headers, located=NotAcceptable in kinds)


def _describe_other_faults() -> dict[str, Any]:
    about = "Any other fault, such as `method_not_allowed` or `internal`; every `code` is listed with the shape."
    return _problem(about, refer("Problem"), [*ALWAYS, "x-should-retry", "Allow"], located=False)


def _problem(description: str, shape: Schema, headers: Iterable[str], *, located: bool) -> dict[str, Any]:
    """`located`: the answer may say where the result is."""
    place = {
        "Location": {"description": "Where the result is, if there is one.", "schema": {"type": "string"}},
        "Retry-After": {"description": "Seconds after which the job may have ended.", "schema": {"type": "integer"}},
    }
    return {
        "description": description,
        "headers": _refer_to_headers(*headers) | (place if located else {}),
        "content": {"application/problem+json": {"schema": shape}},
    }


def _refer_to_headers(*names: str) -> dict[str, Schema]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
