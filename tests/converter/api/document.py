"""The OpenAPI document as a judge of answers: what is served must be what it says.

Invariant: where the document leaves answers open for fields to come, the judge does not: a member that it does not
name is an error.
"""

import json
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from tests.converter.faults.replica import Reply

Schema = dict[str, Any]


def _judge_content(judge: Any, shape: Schema, text: str, _: Schema) -> Iterator[ValidationError]:
    """`contentSchema`, which validators otherwise pass over, of text that is JSON."""
    yield from judge.descend(json.loads(text), shape, schema_path="contentSchema")


Judge = extend(Draft202012Validator, {"contentSchema": _judge_content})  # type: ignore[no-untyped-call]


class Document:
    """A document, parsed."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._components = close(document["components"])

    def resolve(self, node: dict[str, Any]) -> dict[str, Any]:
        """What a reference leads to, or the node itself."""
        if "$ref" not in node:
            return node
        found: dict[str, Any] = self.document
        for step in node["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return found

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Method, path and operation."""
        for path, item in self.document["paths"].items():
            for method, operation in item.items():
                yield method.upper(), path, operation

    def path_of(self, operation_id: str) -> tuple[str, str]:
        """Method and path of an operation."""
        found = [(m, path) for m, path, operation in self.operations() if operation["operationId"] == operation_id]
        assert len(found) == 1, operation_id
        return found[0]

    def problems(self, schema: Schema, value: Any) -> list[str]:
        """What is wrong with a value."""
        validator = Judge({**close(schema), "components": self._components})
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]

    def check(self, value: Any, name: str) -> None:
        """The value is of the shape of that name."""
        assert not self.problems({"$ref": f"#/components/schemas/{name}"}, value), (name, value)

    def judge(self, method: str, path: str, reply: Reply) -> None:
        """The answer is one that the operation has."""
        responses = self.document["paths"][path][method.lower()]["responses"]
        response = self.resolve(responses.get(str(reply.status)) or responses["default"])
        for name, reference in response["headers"].items():
            self._judge_header(name, self.resolve(reference), reply)
        if "content" not in response:
            assert not reply.body
            return
        content_type = reply.headers["Content-Type"].split(";")[0]
        shapes = [media["schema"] for kind, media in response["content"].items() if fnmatch(content_type, kind)]
        assert len(shapes) == 1, f"{method} {path} answers {reply.status} with {content_type}"
        for value in read(content_type, reply.body):
            assert not self.problems(shapes[0], value), (method, path, reply.status, value)

    def _judge_header(self, name: str, header: dict[str, Any], reply: Reply) -> None:
        if name not in reply.headers:
            assert not header.get("required"), f"{reply.status} without {name}"
            return
        text = reply.headers[name]
        value = int(text) if header["schema"].get("type") == "integer" else text
        assert not self.problems(header["schema"], value), (name, text)


def read(content_type: str, body: bytes) -> Iterator[Any]:
    """The values that a body holds, as its schema sees them."""
    if content_type.endswith("json"):
        yield json.loads(body)
    elif content_type == "text/event-stream":
        yield from read_events(body.decode())
    elif content_type.startswith("text/"):
        yield body.decode()
    else:
        assert body
        yield "bytes"


def read_events(text: str) -> Iterator[dict[str, Any]]:
    """Server-sent events, their data as text."""
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    assert blocks
    for block in blocks:
        yield dict(line.split(": ", 1) for line in block.split("\n"))


def close(node: Any, *, within: bool = False) -> Any:
    """The same schemas, of which none takes a member that it does not name. `within`: a part of an `allOf`."""
    if isinstance(node, list):
        return [close(child, within=within) for child in node]
    if not isinstance(node, dict):
        return node
    closed = {key: close(child, within=key == "allOf") for key, child in node.items()}
    named = isinstance(node.get("properties"), dict) and node.get("type") == "object"
    if named and not within and "additionalProperties" not in node:
        closed["additionalProperties"] = False
    return closed
