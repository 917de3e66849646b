"""Request bodies: read within their bounds, and turned into documents and parts.

What the documents mean is the dialect's business. Invariant: a body that can't be used raises the fault that says
everything that is wrong with it; no more than the bound is ever held, and of large parts no more than a piece in
memory.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from aiohttp import BodyPartReader, HttpVersion11, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BaseModel, ValidationError

from converter.core.order import Part
from converter.core.workflow import clip
from converter.errors import Internal, InvalidRequest, RequestTimeout, TooLarge, UnsupportedMediaType
from converter.media.spool import NoRoom, Spool

log = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)

Examination = Callable[[Mapping[str, Any]], Sequence[Mapping[str, str]]]
"""Finds problems in a document, each a JSON pointer and a detail, as InvalidRequest has them."""

MAX_PARTS = 64
"""Parts of a multipart body beside the document."""

MAX_FIELD = 2**18
"""Bytes of one field of a form."""

MAX_PROBLEMS = 100
"""Problems that are listed of one body."""

MAX_VALUES = 500_000
"""Values in a JSON document: a large body of small ones would take seconds to read, and twenty times its size."""

PIECE = 2**16
"""Bytes of a part that are read at a time."""

_ABSENT = object()

MEDIA_TYPES = ("application/json", "multipart/form-data")

ENCODINGS = ("identity", "gzip", "deflate")
"""Of bodies (RFC 9110 section 8.4.1)."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """`size` in bytes for a whole body, `seconds` for its arrival."""

    size: int
    seconds: float


async def read_document(request: web.Request, bounds: Bounds) -> tuple[object, Mapping[str, Part]]:
    """The JSON document of a request, and the parts beside it where the body is multipart/form-data."""
    async with _arriving(request, bounds):
        if request.content_type == "multipart/form-data":
            with _reading_parts():
                return await _read_multipart(request, bounds)
        return _parse(await _read(request.content.iter_any(), bounds.size)), {}


async def read_json(request: web.Request, bounds: Bounds, *, empty: object = None) -> object:
    """The JSON document of a request of whatever type, as ComfyUI takes it; `empty` is what no body stands for."""
    async with _arriving(request, bounds, None):
        body = await _read(request.content.iter_any(), bounds.size)
        return _parse(body) if body.strip() or empty is None else empty


async def read_form(
    request: web.Request, bounds: Bounds, files: Collection[str], hear: Callable[[bytes], object] = len
) -> tuple[Mapping[str, Sequence[str]], Sequence[tuple[str, Part]]]:
    """The fields of a multipart/form-data body by name, and the parts named in `files`, as often as they come.

    `hear` is told every piece of these.
    """
    if request.content_type != "multipart/form-data":
        raise UnsupportedMediaType("the body must be multipart/form-data")
    async with _arriving(request, bounds):
        with _reading_parts():
            return await _read_form(request, bounds, files, hear)


@asynccontextmanager
async def _arriving(
    request: web.Request, bounds: Bounds, types: Collection[str] | None = MEDIA_TYPES
) -> AsyncIterator[None]:
    _check_headers(request, bounds, types)
    try:
        async with asyncio.timeout(bounds.seconds):
            await _invite(request)
            yield
    except TimeoutError:
        raise RequestTimeout(f"the body did not arrive within {bounds.seconds:g} s") from None
    except web.RequestPayloadError:
        _refuse("", "the body's framing or its Content-Encoding is broken")


@contextmanager
def _reading_parts() -> Iterator[None]:
    try:
        yield
    except (ValueError, AssertionError, RuntimeError, HttpProcessingError):  # what aiohttp's reader raises
        _refuse("", "the multipart body can't be read")
    except NoRoom as error:
        log.error("a part of a request was not kept: %s", error)
        raise Internal("the service has no room on its disk for the parts of the request") from error


def _check_headers(request: web.Request, bounds: Bounds, types: Collection[str] | None) -> None:
    """Refuse what the headers alone show to be in vain."""
    if request.content_length is not None and request.content_length > bounds.size:
        raise TooLarge(f"the body is larger than {bounds.size} bytes")
    if types is not None and request.content_type not in types and "Content-Type" in request.headers:
        given = clip(request.content_type, 100)
        raise UnsupportedMediaType(f"the body must be application/json or multipart/form-data, not {given}")
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in ENCODINGS:
        raise UnsupportedMediaType(f"the body's Content-Encoding must be one of {', '.join(ENCODINGS)}")


async def expect(request: web.Request) -> None:
    """Leave `Expect` until the body is wanted; what is expected beyond that may be passed over (RFC 9110 10.1.1)."""


async def _invite(request: web.Request) -> None:
    """Tell a caller who waits for it to go on: the order could be taken (RFC 9110 section 10.1.1)."""
    if request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # of the answer itself nothing has been sent


async def _read(pieces: AsyncIterator[bytes], size: int) -> bytes:
    body = bytearray()
    async for piece in pieces:
        body += piece
        _check(len(body), size)
    return bytes(body)


async def _pieces(part: BodyPartReader) -> AsyncIterator[bytes]:
    while not part.at_eof():
        yield await part.read_chunk(PIECE)


async def _keep(part: BodyPartReader, pieces: AsyncIterator[bytes], spool: Spool, size: int) -> Part:
    async for piece in pieces:
        _check(spool.size + len(piece), size)
        await spool.write(piece)
    content_type = part.headers.get("Content-Type", "application/octet-stream")
    return Part(content_type, await spool.end(), part.filename or "")


def _check(length: int, size: int) -> None:
    if length > size:
        raise TooLarge("the body is larger than the server takes")


async def _read_multipart(request: web.Request, bounds: Bounds) -> tuple[object, Mapping[str, Part]]:
    """RFC 7578. The first part is the document, named `request`; the others are what it refers to."""
    document: object = _ABSENT
    parts: dict[str, Part] = {}
    left = bounds.size
    spool = Spool()  # which the parts keep open
    async for name, part in _list_parts(request):
        if document is _ABSENT:
            if name != "request":
                _refuse("", 'the first part must be the JSON document, named "request"')
            data = await _read(_pieces(part), left)
            left -= len(data)
            document = _parse(data)
        elif name in parts:
            _refuse("", f'two parts are named "{name[:64]}"')
        else:
            parts[name] = await _keep(part, _pieces(part), spool, left)
            left -= parts[name].content.size
    if document is _ABSENT:
        _refuse("", 'the first part must be the JSON document, named "request"')
    return document, parts


async def _read_form(
    request: web.Request, bounds: Bounds, files: Collection[str], hear: Callable[[bytes], object]
) -> tuple[Mapping[str, Sequence[str]], Sequence[tuple[str, Part]]]:
    fields: dict[str, list[str]] = {}
    found: list[tuple[str, Part]] = []
    left = bounds.size
    spool = Spool()  # which the parts keep open
    async for name, part in _list_parts(request):
        if name in files:
            found.append((name, await _keep(part, _tell(_pieces(part), hear), spool, left)))
            left -= found[-1][1].content.size
        else:
            data = await _read(_pieces(part), min(left, MAX_FIELD))
            left -= len(data)
            fields.setdefault(name, []).append(data.decode())
    return fields, found


async def _list_parts(request: web.Request) -> AsyncIterator[tuple[str, BodyPartReader]]:
    """The parts with their names, within their number."""
    reader, count = await request.multipart(), 0
    while (part := await reader.next()) is not None:
        if isinstance(part, MultipartReader) or not part.name:
            _refuse("", "every part needs a name, and none may be multipart itself")
        if count > MAX_PARTS:
            raise TooLarge(f"the body has more than {MAX_PARTS} parts beside the document")
        count += 1
        yield part.name, part


async def _tell(pieces: AsyncIterator[bytes], hear: Callable[[bytes], object]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        hear(piece)
        yield piece


def _parse(body: bytes) -> object:
    """Strict JSON (RFC 8259): UTF-8, no NaN, no repeated names, no unending depth."""
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise TooLarge(f"the JSON has more than {MAX_VALUES} values")
    if not body.strip():
        _refuse("", "the body is empty; it must be a JSON object")
    try:
        return json.loads(body.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except UnicodeDecodeError:
        _refuse("", "the body is not UTF-8")
    except json.JSONDecodeError as error:
        _refuse("", f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}")
    except RecursionError:
        _refuse("", "the JSON is nested too deeply")
    except ValueError as error:  # an integer of more digits than Python converts
        if isinstance(error, _Repeated):
            _refuse("", str(error))
        _refuse("", "the JSON has a number that is too long")


class _Repeated(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        [(repeated, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise _Repeated(f'the name "{repeated[:64]}" is there twice in one object')
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise _Repeated(f"{name} is not JSON")


def _refuse(pointer: str, detail: str) -> NoReturn:
    raise InvalidRequest([{"pointer": pointer, "detail": detail}])


def validate(model: type[M], document: object, examine: Examination | None = None) -> M:
    """The document as a model; raises InvalidRequest with every problem, each at its JSON pointer (RFC 6901).

    `examine` finds what the model can't know; it is given documents that the model may find wrong.
    """
    if not isinstance(document, dict):
        _refuse("", "must be a JSON object")
    further = () if examine is None else examine(document)
    try:
        body = model.model_validate(document)
    except ValidationError as error:
        problems = [
            {
                "pointer": _point(problem["loc"]),
                "detail": _explain(problem["type"], problem["msg"], problem.get("ctx", {})),
            }
            for problem in error.errors(include_url=False, include_input=False)[:MAX_PROBLEMS]
        ]
        if error.error_count() > MAX_PROBLEMS:
            problems.append({"pointer": "", "detail": f"{error.error_count() - MAX_PROBLEMS} more problems"})
        raise InvalidRequest([*problems, *further]) from None
    if further:
        raise InvalidRequest(further)
    return body


def _point(location: tuple[int | str, ...]) -> str:
    """`(storage)` and such are no fields: they tell alternatives of a value apart; `[key]` is the field's own name."""
    steps = [str(step)[:64] for step in location if not str(step).startswith("(") and step != "[key]"]
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


_SENTENCES: Mapping[str, str] = {
    "extra_forbidden": "no such field",
    "missing": "is required",
    "string_type": "must be text",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have {max_length} characters or fewer",
    "string_unicode": "must be text that unicode has",
    "string_pattern_mismatch": "must match {pattern}",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "list_type": "must be a list",
    "int_parsing": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "literal_error": "must be {expected}",
    "too_short": "must have {min_length} or more entries",
    "too_long": "must have {max_length} entries or fewer",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
}
"""What is said of pydantic's kinds of errors, as far as the models of the doors can have them."""


def _explain(kind: str, message: str, context: Mapping[str, Any]) -> str:
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    shown = {name: f"{value:g}" if isinstance(value, float) else value for name, value in context.items()}
    return _SENTENCES.get(kind, "is not valid").format_map(shown)
