"""What a call asks for, and the request that asks for it: the same bytes and the same key with every try.

Leaves sending to `stream`. Invariant: tries of one call can't be told apart by the service but by their time, so that
an order runs once however often it is sent.
"""

import asyncio
import io
import json
import mimetypes
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict
from urllib.parse import quote

import aiohttp

_BODIES = ("raw", "multipart", "zip")
"""Deliveries as the body of an answer, which can't be one of events, too."""


@dataclass(frozen=True, slots=True)
class Template:
    """A workflow that the service knows by name, and the inputs to fill it with."""

    name: str
    inputs: Mapping[str, Any] = field(default_factory=dict)


class Storage(TypedDict):
    """Contents go to a destination in object storage that the service's operator has named."""

    storage: str


class Puts(TypedDict):
    """Contents go to URLs of one's own that take a PUT, one for each output that is no text, with these headers."""

    put: str | Sequence[str]
    headers: NotRequired[Mapping[str, str]]


class Outputs(TypedDict, total=False):
    """`nodes`: only these are run and answered. Pictures are converted to `format`, with `quality` from 1 to 100.

    metadata: whether what pictures tell of how they were made stays in them. delivery: whether contents come with the
    result (`inline`), as links (`url`), or go elsewhere.
    """

    nodes: Sequence[str]
    format: Literal["png", "jpeg", "webp", "avif"]
    quality: int
    metadata: Literal["keep", "strip"]
    delivery: Literal["inline", "url"] | Storage | Puts


class Options(TypedDict, total=False):
    """What a call may say beside its work.

    files: bytes, or the path of a file, by the name under which an input refers to them: `{"part": NAME}`. timeout:
    seconds for this call in place of the client's. idempotency_key: in place of a new one. The others are the fields of
    the contract: the job's name, its priority (higher first, below 0 gives way), its outputs, data for the engine.
    """

    files: Mapping[str, bytes | Path]
    timeout: float | None
    idempotency_key: str
    id: str
    priority: int
    outputs: Outputs
    extra_data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """One call's; `headers` are those of every try."""

    path: str
    headers: Mapping[str, str]
    document: bytes = field(repr=False)
    files: Mapping[str, tuple[str, bytes]] = field(repr=False)

    def body(self) -> aiohttp.FormData | io.BytesIO:
        """The body for one try: JSON alone, or as the first part beside files (RFC 7578)."""
        if not self.files:
            return io.BytesIO(self.document)
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("request", io.BytesIO(self.document), content_type="application/json")
        for name, (content_type, data) in self.files.items():
            form.add_field(name, io.BytesIO(data), content_type=content_type)
        return form


async def compose(work: Mapping[str, Any] | Template, options: Options, timeout: float | None) -> Request:
    """The request for a workflow or a template. Raises OSError for a file, TypeError for what is of another type or
    JSON can't hold, and ValueError for a key that can't be sent and a delivery that this client can't take.
    """
    given: dict[str, Any] = {**options, "timeout": timeout}
    files = given.pop("files", None) or {}
    key = given.pop("idempotency_key", uuid.uuid4().hex)
    _check_work(work)
    _check_files(files)
    _check_delivery(given.get("outputs"))
    document = {name: value for name, value in given.items() if value is not None}
    if isinstance(work, Template):
        path = f"/v1/workflows/{quote(work.name, safe='')}"
        document["inputs"] = work.inputs
    else:
        path = "/v1/run"
        document["workflow"] = work
    headers = {"Accept": "text/event-stream", "Idempotency-Key": _quote(key)}
    if not files:
        headers["Content-Type"] = "application/json"
    read = {name: await _read(source) for name, source in files.items()}
    return Request(path, headers, json.dumps(document).encode(), read)


def _check_work(work: object) -> None:
    if not isinstance(work, Mapping | Template):
        instead = "the workflow as a dict, such as json.loads(path.read_text()), or Template(name, inputs)"
        raise TypeError(f"what is to be run is {instead}, not {_name_type(work)}")


def _check_files(files: object) -> None:
    if not isinstance(files, Mapping):
        raise TypeError(f"files are given as a dict, by name, not as {_name_type(files)}")
    for name, source in files.items():
        if not isinstance(source, bytes | Path):
            instead = "bytes, or a pathlib.Path for the file that is there"
            raise TypeError(f"files[{name!r}] must be {instead}, not {_name_type(source)}")


def _check_delivery(outputs: object) -> None:
    form = outputs.get("delivery") if isinstance(outputs, Mapping) else None
    if form in _BODIES:
        instead = '"inline", "url", {"storage": NAME} or {"put": URL}'
        raise ValueError(f'outputs["delivery"] can\'t be "{form}" here, where answers are events: choose {instead}')


def _name_type(value: object) -> str:
    return "text" if isinstance(value, str) else type(value).__name__


async def _read(source: bytes | Path) -> tuple[str, bytes]:
    if isinstance(source, bytes):
        return "application/octet-stream", source
    content_type, _ = mimetypes.guess_type(source.name)
    return content_type or "application/octet-stream", await asyncio.to_thread(source.read_bytes)


def _quote(key: str) -> str:
    """As a string of structured fields (RFC 8941 section 3.3.3)."""
    if not re.fullmatch(r"[ -~]{1,255}", key):
        raise ValueError("an idempotency key has 1 to 255 characters of printable ASCII")
    return '"' + re.sub(r'(["\\])', r"\\\1", key) + '"'
