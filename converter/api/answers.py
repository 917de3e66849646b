"""Answers: an outcome in the shape that its caller asked for, sent without being held as a whole.

Leaves to others: which shape that is (`core.negotiation`) and where the bytes come from (`media`). Invariant: a body
that can't be finished is aborted, so that nobody takes it for a whole one; a stream has exactly one last event.
"""

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

from aiohttp import hdrs, web

from converter.core import sse
from converter.core.negotiation import Wish
from converter.errors import EngineFailed, Fault, NotAcceptable, RequestTimeout, TooLarge, Unauthorized
from converter.jobs import Jobs
from converter.media.deliver import JsonBody, MultipartBody, disposition, enclose
from converter.media.outputs import Broken, Item
from converter.media.zipped import ZipBody
from converter.runner import Run

REQUEST_ID = web.RequestKey("request_id", str)
"""Where a request's id is kept."""

JOB_ID = web.RequestKey("job_id", str)
"""Where the id of the job that a request is about is kept, for the access log."""

KEY_NAME = web.RequestKey("key_name", str)
"""Where the name of the API key that a request came with is kept; callers without one are not told apart."""

TIMES = web.RequestKey("times", Mapping[str, float])
"""Where the times of the job that a request has waited for are kept: seconds, by `core.timing.PARTS`."""

RUN = web.RequestKey("run", Run)
"""Where the job is kept that a request for work has begun, or found under its idempotency key."""

REPLAYED = web.RequestKey("replayed", bool)
"""Whether the answer was known before the request came."""

CHALLENGE = 'Bearer realm="converter"'
"""How a caller is to say who it is."""

STALL = 60.0
"""Seconds for which a reader may take nothing before its answer is aborted."""

SMALL = 2**16
"""Bytes up to which an answer goes out in one write with its headers. aiohttp holds such a one in memory until the next
on the same connection, so larger ones are streamed."""


class Body(Protocol):
    """A body of known length, in pieces."""

    def __len__(self) -> int:
        """Bytes."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces."""


def render(fault: Fault, request_id: str) -> web.Response:
    """A fault as problem details (RFC 9457)."""
    return render_as(fault, fault.problem() | {"request_id": request_id}, "application/problem+json")


def render_as(fault: Fault, document: Mapping[str, Any], content_type: str = "application/json") -> web.Response:
    """A fault as the document that a dialect has for it, with the headers that tell clients what to do about it."""
    headers = {}
    if fault.retry_after is not None:
        headers["Retry-After"] = str(fault.retry_after)
    if fault.retry == "never":
        headers["x-should-retry"] = "false"
    if isinstance(fault, Unauthorized):  # RFC 6750 section 3: no error is named to who has given no key
        headers["WWW-Authenticate"] = CHALLENGE + (', error="invalid_token"' if fault.given else "")
    for header, member in (("Location", "location"), ("Allow", "allow"), ("Content-Range", "content_range")):
        if member in fault.extensions:
            headers[header] = fault.extensions[member]
    response = web.Response(status=fault.status, text=json.dumps(document), content_type=content_type, headers=headers)
    if isinstance(fault, RequestTimeout | TooLarge):
        response.force_close()  # the rest of the body is still to come
    return response


async def send_json(request: web.Request, run: Run, items: Sequence[Item]) -> web.StreamResponse:
    """The result document with its outputs inside."""
    return await send(
        request, JsonBody(enclose(run.document()), items), {"Content-Type": "application/json; charset=utf-8"}
    )


async def send_raw(request: web.Request, run: Run, items: Sequence[Item], wish: Wish, place: str) -> web.StreamResponse:
    """The bytes of the one output, or of several as multipart/mixed or ZIP; raises NotAcceptable, which says how to
    choose.
    """
    headers = {"X-Job-Id": run.id}
    if len(items) == 1 and (content_type := _call(items[0], wish)):
        headers |= {"Content-Type": content_type, "Content-Disposition": disposition(items[0].output.name)}
        return await send(request, _Single(items[0]), headers)
    if wish.several is None:
        raise _not_acceptable(items, place)
    body = ZipBody(items, f"{run.id}.zip") if wish.several == "zip" else MultipartBody(items)
    return await send(request, body, headers | body.headers)


def _call(item: Item, wish: Wish) -> str | None:
    """What the item may be sent as: what it is, else just bytes; None where neither is accepted."""
    types = (item.output.content_type, "application/octet-stream")
    return next((each for each in types if wish.takes(each.partition(";")[0])), None)


def _not_acceptable(items: Sequence[Item], place: str) -> NotAcceptable:
    if len(items) == 1:
        kind = items[0].output.content_type.partition(";")[0]
        detail = f"the output is {kind}, which the Accept header does not allow; accept it, or application/json"
    else:
        detail = f"the job made {len(items)} outputs, and the request allows only one; accept multipart/mixed, "
        detail += "application/zip or application/json"
    nodes = sorted({item.output.node_id for item in items})
    return NotAcceptable(f"{detail}: the result is at {place}", location=place, nodes=nodes)


class _Single:
    def __init__(self, item: Item) -> None:
        self._item = item

    def __len__(self) -> int:
        return self._item.size

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._item.chunks()


async def send(request: web.Request, body: Body, headers: Mapping[str, str], status: int = 200) -> web.StreamResponse:
    """An answer whose body may be large; raises EngineFailed, or aborts it where it is broken midway.

    To a HEAD only the headers go, of a body that isn't read.
    """
    if request.method == hdrs.METH_HEAD:
        return web.Response(status=status, headers={**headers, hdrs.CONTENT_LENGTH: str(len(body))})
    if len(body) <= SMALL:
        return web.Response(status=status, body=await _join(body), headers=headers)
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = len(body)
    await response.prepare(request)
    await write_all(request, response, body)
    await response.write_eof()
    return response


async def _join(body: Body) -> bytes:
    try:
        return b"".join([piece async for piece in body])
    except Broken as error:
        raise EngineFailed("an output could not be read from the engine") from error


async def write_all(request: web.Request, response: web.StreamResponse, body: AsyncIterable[bytes]) -> None:
    """Write a body to its end, or break the answer off."""
    try:
        async for piece in body:
            await write(request, response, piece)
    except Broken as error:
        raise break_off(request) from error


async def write(request: web.Request, response: web.StreamResponse, piece: bytes) -> None:
    """Write a piece of an answer; aborts it where its reader takes nothing for STALL."""
    try:
        async with asyncio.timeout(STALL):
            await response.write(piece)
    except TimeoutError as error:
        raise break_off(request) from error


def break_off(request: web.Request) -> ConnectionResetError:
    """End the connection in the midst of an answer, so that nobody takes it for a whole one; to be raised."""
    if request.transport is not None:
        request.transport.abort()
    return ConnectionResetError("the answer broke off midway")


async def open_stream(request: web.Request, run: Run) -> web.StreamResponse:
    """The head of an event stream about a job; load balancers are asked to pass it on at once."""
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
            "X-Job-Id": run.id,
        }
    )
    await response.prepare(request)
    return response


async def stream(
    request: web.Request, run: Run, jobs: Jobs, *, owner: bool, after: int, silence: float
) -> web.StreamResponse:
    """The job as server-sent events, from the entry `after` on; a comment at least every `silence` seconds.

    `owner`: this is the request that the outputs were opened for.
    """
    response = await open_stream(request, run)
    sequence, ended = run.chronicle.resume(after), False
    with run.watched():
        while not ended:
            entries = run.chronicle.since(sequence)
            for entry in entries:
                sequence = entry.sequence
                if entry.event == "result":
                    await _write_result(request, response, run, jobs, sequence, owner=owner, silence=silence)
                elif entry.event == "error":
                    problem = entry.data.problem() | {"request_id": request[REQUEST_ID]}
                    await _write_event(request, response, "error", problem, sequence)
                else:
                    await _write_event(request, response, entry.event, entry.data, sequence)
                ended = entry.event in ("result", "error")
            if not entries:
                if run.chronicle.ended:
                    break
                await run.chronicle.growth(silence)
                if not run.chronicle.since(sequence):
                    await write(request, response, sse.comment())
    await response.write_eof()
    run.told.set()
    return response


async def _write_event(
    request: web.Request, response: web.StreamResponse, event: str, data: Mapping[str, Any], sequence: int
) -> None:
    await write(request, response, sse.encode(event, json.dumps(data, separators=(",", ":")), str(sequence)))


async def _write_result(
    request: web.Request,
    response: web.StreamResponse,
    run: Run,
    jobs: Jobs,
    sequence: int,
    *,
    owner: bool,
    silence: float,
) -> None:
    """The last event, whose data are the JSON answer; its one line is as long as the outputs are."""
    async with AsyncExitStack() as stack:
        try:
            items = run.items if owner else await _reopen(request, response, run, jobs, stack, silence)
        except Fault as fault:
            await _write_event(
                request, response, "error", fault.problem() | {"request_id": request[REQUEST_ID]}, sequence
            )
            return
        await write(request, response, f"event: result\nid: {sequence}\ndata: ".encode())
        await write_all(request, response, JsonBody(enclose(run.document()), items))
        await write(request, response, b"\n\n")


async def _reopen(
    request: web.Request, response: web.StreamResponse, run: Run, jobs: Jobs, stack: AsyncExitStack, silence: float
) -> Sequence[Item]:
    """The outputs once more, with comments for as long as that waits for a delivery to end."""
    opening = asyncio.create_task(jobs.reopen(run, stack))
    try:
        while not (await asyncio.wait([opening], timeout=silence))[0]:
            await write(request, response, sse.comment())
        return opening.result()
    finally:
        opening.cancel()
        await asyncio.wait([opening])
