"""One call of `/v1/run` from the command line: send, follow, write, and say in plain words what went wrong.

Its only policy is when to try again: on a refusal (429, 503), and only if a time to wait was given. Invariant: the
connection is open as long as anything can come of the job, and closed on every way out, which cancels the job.
"""

import asyncio
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_before_delay, wait_exponential_jitter

from converter.caller import files
from converter.caller.display import Display, open_display, printable
from converter.core import sse

_MAX_EVENT = 1 << 30  # the last event carries all outputs as base64
_MAX_PROBLEM = 1 << 20
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=60.0)  # comments come at least every 15 s
_BACKOFF = wait_exponential_jitter(initial=1.0, max=30.0)


class Exit(IntEnum):
    """What the process's exit status says."""

    OK = 0
    OTHER = 1  # the outputs could not be written
    USAGE = 2
    INVALID = 3  # the workflow or an input is at fault: 400, 404, 406, 413, 415, 422 and other 4xx
    REFUSED = 4  # nothing was done: 401, 403, 429, 503
    FAILED = 5  # it was tried: a node raised, the engine failed, someone canceled the job (500, 502, 507)
    DEADLINE = 6  # 408, 504
    UNREACHABLE = 7  # no converter there, or the connection was lost
    INTERRUPTED = 130


_EXIT_BY_STATUS = {
    401: Exit.REFUSED,
    403: Exit.REFUSED,
    408: Exit.DEADLINE,
    429: Exit.REFUSED,
    503: Exit.REFUSED,
    504: Exit.DEADLINE,
}
_EXIT_BY_CODE = {"execution_failed": Exit.FAILED, "canceled": Exit.FAILED}


@dataclass(frozen=True, slots=True)
class Call:
    """What to run and how. `workflow`: a file, `-` for standard input. `timeout`, `wait`: seconds.

    Members that are None are left to the service. `wait`: how long refusals are answered by trying again.
    """

    workflow: str
    url: str
    output: str | None = None
    timeout: float | None = None
    priority: int | None = None
    id: str | None = None
    wait: float = 0.0


class CallError(Exception):
    """The call failed; `lines` say why. `refused`: nothing was done, and it may be tried again."""

    def __init__(self, exit: Exit, *lines: str, refused: bool = False, retry_after: float | None = None) -> None:
        super().__init__("\n".join(lines))
        self.exit = exit
        self.lines = lines
        self.refused = refused
        self.retry_after = retry_after

    @classmethod
    def from_problem(cls, problem: Mapping[str, Any], retry_after: float | None = None) -> Self:
        """Of a problem document (RFC 9457), from an answer or an `error` event. Its shape isn't trusted."""
        status = problem.get("status")
        status = status if isinstance(status, int) else 500
        by_status = _EXIT_BY_STATUS.get(status, Exit.INVALID if status < 500 else Exit.FAILED)
        after = problem.get("retry_after")
        return cls(
            _EXIT_BY_CODE.get(str(problem.get("code")), by_status),
            *(printable(line) for line in _sentences(problem)),
            refused=status in (429, 503),
            retry_after=after if isinstance(after, int | float) else retry_after,
        )


def run(call: Call) -> Exit:
    """Run one workflow; prints the paths of its outputs on standard output, and everything else on standard error."""
    try:
        destination = _choose(call)
        result = asyncio.run(_carry(call, _read_order(call)))
        _write(result, destination)
    except CallError as error:
        for line in error.lines:
            print(f"converter run: {line}", file=sys.stderr)
        return error.exit
    except KeyboardInterrupt:
        print("converter run: interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    return Exit.OK


def _choose(call: Call) -> files.Destination:
    try:
        return files.choose(call.output)
    except ValueError as error:
        raise CallError(Exit.USAGE, str(error)) from None
    except OSError as error:
        raise CallError(Exit.USAGE, f"can't write {call.output}: {error.strerror}") from None


def _read_order(call: Call) -> bytes:
    """The body of the request."""
    try:
        text = sys.stdin.read() if call.workflow == "-" else Path(call.workflow).read_text(encoding="utf-8")
        workflow = json.loads(text)
    except OSError as error:
        raise CallError(Exit.USAGE, f"can't read {call.workflow}: {error.strerror}") from None
    except ValueError as error:
        raise CallError(Exit.INVALID, f"{call.workflow} is not JSON: {error}") from None
    order = {"workflow": workflow, "timeout": call.timeout, "priority": call.priority, "id": call.id}
    return json.dumps({name: value for name, value in order.items() if value is not None}).encode()


def _write(result: Mapping[str, Any], destination: files.Destination) -> None:
    listed = result.get("outputs")
    outputs = [output for output in listed if isinstance(output, dict)] if isinstance(listed, list) else []
    try:
        for path in files.write(outputs, destination):
            print(path, flush=True)
    except OSError as error:
        raise CallError(Exit.OTHER, f"can't write {error.filename or 'the path'}: {error.strerror}") from None
    except ValueError as error:
        raise CallError(Exit.OTHER, str(error)) from None
    if not outputs:
        print("converter run: the workflow made no outputs", file=sys.stderr)


async def _carry(call: Call, order: bytes) -> Mapping[str, Any]:
    """The result, after as many tries as `wait` has room for."""
    with open_display() as display:

        def announce(state: RetryCallState) -> None:
            failure = state.outcome.exception() if state.outcome else None
            display.note(f"{failure}; trying again in {state.upcoming_sleep:.0f} s")

        attempts = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, CallError) and error.refused),
            wait=_pause,
            stop=stop_before_delay(call.wait),
            before_sleep=announce,
            reraise=True,
        )
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            return await attempts(_send, session, call.url, order, display)


def _pause(state: RetryCallState) -> float:
    """Seconds up to the next try: as the service says, else growing."""
    error = state.outcome.exception() if state.outcome else None
    after = error.retry_after if isinstance(error, CallError) else None
    return _BACKOFF(state) if after is None else max(after, 0.0)


async def _send(session: aiohttp.ClientSession, url: str, order: bytes, display: Display) -> Mapping[str, Any]:
    """One try; returns the data of the event `result`. Raises CallError."""
    headers = {"Accept": "text/event-stream", "Content-Type": "application/json"}
    try:
        async with session.post(f"{url.rstrip('/')}/v1/run", data=io.BytesIO(order), headers=headers) as response:
            if response.content_type != "text/event-stream":
                raise await _refusal(response)
            return await _follow(response, display)
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
        raise CallError(Exit.USAGE, f"{url} is not an http address") from None
    except aiohttp.ClientConnectorError as error:
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror  # the name service has numbers of its own
        raise CallError(Exit.UNREACHABLE, f"can't reach {url}: {reason}") from None
    except (aiohttp.ClientError, TimeoutError, sse.TooLong) as error:
        reason = str(error) or type(error).__name__
        raise CallError(Exit.UNREACHABLE, f"the connection to {url} was lost: {reason}") from None


async def _follow(response: aiohttp.ClientResponse, display: Display) -> Mapping[str, Any]:
    parser = sse.Parser(_MAX_EVENT)
    async for chunk in response.content.iter_any():
        for event in parser.feed(chunk):
            match event.name:
                case "status":
                    display.status(_object(event.data))
                case "progress":
                    display.progress(_object(event.data))
                case "error":
                    raise CallError.from_problem(_object(event.data))
                case "result":
                    return _object(event.data)
    raise CallError(Exit.UNREACHABLE, "the connection ended before the job did")


async def _refusal(response: aiohttp.ClientResponse) -> CallError:
    """An answer without events: a problem document, or the words of something that is no converter."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MAX_PROBLEM:
            break
    after = response.headers.get("Retry-After", "")
    retry_after = float(after) if after.isdecimal() else None
    if response.content_type == "application/problem+json":
        return CallError.from_problem({"status": response.status} | _object(body), retry_after)
    if response.status < HTTPStatus.BAD_REQUEST:
        return CallError(Exit.UNREACHABLE, f"{response.url.origin()} does not answer as a converter does")
    reason = f"{response.url.origin()} answered {response.status} {response.reason}"
    return CallError.from_problem({"status": response.status, "detail": reason}, retry_after)


def _object(text: str | bytes | bytearray) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise CallError(Exit.UNREACHABLE, "the service does not answer as a converter does")
    return value


def _sentences(problem: Mapping[str, Any]) -> Iterator[str]:
    """What a problem says, a line each: what is wrong, node by node if known, and the id to ask the operator about."""
    nodes = list(_node_sentences(problem.get("node_errors")))
    members = ("title",) if nodes else ("title", "detail")  # the detail would only sum the nodes up
    yield _join(problem, members) or "the service gave no reason"
    yield from nodes
    if problem.get("node_id") is not None:
        yield f"at node {problem['node_id']} ({problem.get('class_type')})"
    if problem.get("request_id"):
        yield f"request id {problem['request_id']}"


def _node_sentences(node_errors: object) -> Iterator[str]:
    for node_id, node in node_errors.items() if isinstance(node_errors, dict) else ():
        errors = node.get("errors") if isinstance(node, dict) else None
        for error in errors if isinstance(errors, list) else ():
            if isinstance(error, dict):
                yield f"node {node_id} ({node.get('class_type')}): {_join(error, ('input_name', 'message', 'details'))}"


def _join(holder: Mapping[str, Any], members: tuple[str, ...]) -> str:
    return ": ".join(str(holder[member]) for member in members if holder.get(member))
