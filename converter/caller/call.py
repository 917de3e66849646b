"""One run from the command line: a workflow or a template, what it makes written, and what went wrong said plainly.

Leaves the protocol to `converter.client`, and the screen to `display`. Invariant: every way in which a call can end has
its exit status and a line that tells it.
"""

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any

from converter.caller import files, inputs
from converter.caller.display import Display, open_display, printable
from converter.client import CallError, Client, Options, Preview, Progress, Result, Status, Template, UnexpectedAnswer
from converter.core.terminals import Protocol
from converter.errors import Fault, Unauthorized


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
    """What to run and how. `work`: a file with a workflow, `-` for standard input, or the name of a template.

    `set`: `name=value` of inputs. `json`: the result is printed as one JSON document. `timeout`, `wait`: seconds, the
    latter how long after its first failure the call is tried again. `api_key_file`: a file with nothing but the key in
    it, if `api_key` does not give it. `protocol`: how the terminal shows pictures. Members that are None
    are left to the service.
    """

    work: str
    url: str
    set: Sequence[str] = ()
    json: bool = False
    output: str | None = None
    timeout: float | None = None
    priority: int | None = None
    id: str | None = None
    wait: float = 0.0
    api_key: str | None = field(default=None, repr=False)
    api_key_file: str | None = None
    protocol: Protocol | None = None


class Refusal(Exception):
    """The call can't be made, or failed; `lines` say why. `problem`: what the service said."""

    def __init__(self, exit: Exit, *lines: str, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__("\n".join(lines))
        self.exit = exit
        self.lines = lines
        self.problem = problem


def run(call: Call) -> Exit:
    """Run one workflow; prints the paths of its outputs on standard output, and everything else on standard error.

    With `json` standard output has one document in place of the paths: the result, or what went wrong as `error`.
    """
    try:
        destination = _choose(call)
        workflow = _read_workflow(call)
        result = asyncio.run(_carry(call, workflow, _read_key(call)))
        _write(result, destination, call)
    except Refusal as error:
        for line in error.lines:
            print(f"converter run: {line}", file=sys.stderr)
        if call.json:
            told = error.problem or {"detail": "; ".join(error.lines)}
            print(json.dumps({"status": "failed", "error": told}), flush=True)
        return error.exit
    except KeyboardInterrupt:
        print("converter run: interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    return Exit.OK


def _choose(call: Call) -> files.Destination:
    try:
        return files.choose(call.output)
    except ValueError as error:
        raise Refusal(Exit.USAGE, str(error)) from None
    except OSError as error:
        raise Refusal(Exit.USAGE, f"can't write {call.output}: {error.strerror}") from None


def _read_workflow(call: Call) -> Any:
    """None where a template is to be run."""
    with _using():
        return inputs.read_workflow(call.work) if inputs.is_file(call.work) else None


@contextmanager
def _using() -> Iterator[None]:
    try:
        yield
    except inputs.Unusable as error:
        raise Refusal(Exit.INVALID if error.malformed else Exit.USAGE, *error.lines) from None


def _read_key(call: Call) -> str | None:
    if call.api_key is not None or call.api_key_file is None:
        return call.api_key
    try:
        words = Path(call.api_key_file).read_text(encoding="ascii").split()
    except OSError as error:
        raise Refusal(Exit.USAGE, f"can't read {call.api_key_file}: {error.strerror}") from None
    except ValueError:
        words = []
    if len(words) != 1:
        raise Refusal(Exit.USAGE, f"{call.api_key_file} must hold one API key's secret alone, in ASCII")
    return words[0]


def _write(result: Result, destination: files.Destination, call: Call) -> None:
    paths = []
    try:
        for path in files.write(result.outputs, destination):
            paths.append(str(path))
            if not call.json:
                print(path, flush=True)
    except OSError as error:
        raise Refusal(Exit.OTHER, f"can't write {error.filename or 'the path'}: {error.strerror}") from None
    except ValueError as error:
        raise Refusal(Exit.OTHER, str(error)) from None
    if call.json:
        told = result.model_dump(mode="json", exclude_none=True, exclude={"outputs": {"__all__": {"data", "text"}}})
        outputs = [output | {"path": path} for output, path in zip(told["outputs"], paths, strict=True)]
        print(json.dumps({**told, "status": "succeeded", "outputs": outputs}), flush=True)
    if not result.outputs:
        print("converter run: the workflow made no outputs", file=sys.stderr)


async def _carry(call: Call, workflow: Any, api_key: str | None) -> Result:
    with open_display(protocol=call.protocol) as display:
        try:
            client = Client(
                call.url,
                api_key=api_key,
                timeout=call.timeout,
                patience=call.wait,
                on_retry=lambda error, delay: display.note(f"{_headline(error)}; trying again in {delay:.0f} s"),
            )
        except ValueError as error:
            raise Refusal(Exit.USAGE, str(error)) from None
        try:
            async with client:
                work, options = await _compose(call, client, workflow, display)
                return await _follow(client, work, options, display)
        except Fault as fault:
            lines = map(printable, [*_sentences(fault), *_advise(fault, api_key)])
            raise Refusal(_exit(fault.status, fault.code), *lines, problem=fault.problem()) from None
        except UnexpectedAnswer as error:
            failed = error.status >= HTTPStatus.BAD_REQUEST
            raise Refusal(_exit(error.status, "") if failed else Exit.UNREACHABLE, printable(error)) from None
        except CallError as error:
            raise Refusal(Exit.UNREACHABLE, printable(error)) from None


async def _compose(call: Call, client: Client, workflow: Any, display: Display) -> tuple[Any, Options]:
    """What is sent: inputs of a template are of the types that the service says."""
    options = _options(call)
    work: Any = Template(call.work)
    with _using():
        if workflow is not None:
            work, options["files"] = inputs.change(workflow, call.set)
        elif call.set:
            described = await client.describe(call.work)
            given, options["files"] = inputs.fill(described, call.set)
            for sentence in inputs.find_unsent(described, call.set):
                display.note(f"converter run: {sentence}")
            work = Template(call.work, given)
    return work, options


async def _follow(client: Client, work: Any, options: Options, display: Display) -> Result:
    async with client.stream(work, **options) as events:
        async for event in events:
            match event:
                case Status():
                    display.status(event)
                case Progress():
                    display.progress(event)
                case Preview():
                    display.picture(event.data)
                case Result():
                    for output in event.outputs[-1:]:
                        display.picture(output.data or b"")
        return await events.result()


def _options(call: Call) -> Options:
    options = Options()
    if call.priority is not None:
        options["priority"] = call.priority
    if call.id is not None:
        options["id"] = call.id
    return options


def _exit(status: int, code: str) -> Exit:
    by_status = _EXIT_BY_STATUS.get(status, Exit.INVALID if status < HTTPStatus.INTERNAL_SERVER_ERROR else Exit.FAILED)
    return _EXIT_BY_CODE.get(code, by_status)


def _headline(error: Exception) -> str:
    return printable(next(_sentences(error)) if isinstance(error, Fault) else error)


def _sentences(fault: Fault) -> Iterator[str]:
    """What a fault says, a line each: what is wrong, node by node if known, when to come back, and the id to ask the
    operator about.
    """
    more = fault.extensions
    nodes = list(_node_sentences(more.get("node_errors")))
    yield fault.title if nodes else f"{fault.title}: {fault.detail}"  # the detail would only sum the nodes up
    yield from nodes
    if more.get("node_id") is not None:
        yield f"at node {more['node_id']} ({more.get('class_type')})"
    if fault.retry_after is not None:
        yield f"it may be sent again in {fault.retry_after} s, which --wait SECONDS does by itself"
    if more.get("request_id"):
        yield f"request id {more['request_id']}"


def _advise(fault: Fault, api_key: str | None) -> Iterator[str]:
    """What can be done here about a fault."""
    if not isinstance(fault, Unauthorized):
        return
    if api_key is None:
        yield "a key is given by --api-key-file PATH or CONVERTER_API_KEY"
    elif ":" in api_key:
        yield "the key that was given has a colon: of name:secret only the secret is the key"


def _node_sentences(node_errors: object) -> Iterator[str]:
    for node_id, node in node_errors.items() if isinstance(node_errors, dict) else ():
        errors = node.get("errors") if isinstance(node, dict) else None
        for error in errors if isinstance(errors, list) else ():
            if isinstance(error, dict):
                said = _join(error, ("input_name", "message", "details"))
                filled = f"/inputs/{error['template_input']}: " if error.get("template_input") else ""
                yield f"{filled}node {node_id} ({node.get('class_type')}): {said}"


def _join(holder: Mapping[str, Any], members: tuple[str, ...]) -> str:
    return ": ".join(str(holder[member]) for member in members if holder.get(member))
