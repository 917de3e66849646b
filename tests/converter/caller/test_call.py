"""`converter run` against a small real server that plays the public contract: events, refusals, lost connections."""

import asyncio
import base64
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from converter.caller.call import Call, Exit, run
from converter.core import sse
from tests.converter.terminal import open_terminal

PICTURE = b"\x89PNG picture"
OUTPUT = {
    "node_id": "9",
    "class_type": "SaveImage",
    "name": "ComfyUI_00001_.png",
    "kind": "image",
    "content_type": "image/png",
    "size": len(PICTURE),
    "data": base64.b64encode(PICTURE).decode(),
}
STATUS = {"state": "waiting", "position": 2, "estimated_seconds": 12.3}
PROGRESS = {
    "value": 0.25,
    "nodes_done": 1,
    "nodes_total": 4,
    "node_id": "3",
    "class_type": "KSampler",
    "step": 5,
    "steps": 20,
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """The address of a server that answers `POST /v1/run` with `handler`."""
    app = web.Application()
    app.router.add_post("/v1/run", handler)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


def playing(*events: tuple[str, Any]) -> Handler:
    """A handler that sends these events and ends."""

    async def play(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(sse.comment())
        for event, data in events:
            await response.write(sse.encode(event, data if isinstance(data, str) else json.dumps(data), "7"))
        return response

    return play


def problem(status: int, code: str, headers: dict[str, str] | None = None, **members: Any) -> web.Response:
    document = {"title": "Title", "status": status, "code": code, "detail": "detail", "request_id": "r1", **members}
    return web.json_response(document, status=status, headers=headers, content_type="application/problem+json")


def answering(make: Callable[[], web.Response]) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return make()

    return answer


@pytest.fixture
def workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A workflow's file, in a folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    Path("workflow.json").write_text('{"9": {"class_type": "SaveImage", "inputs": {}}}')
    return "workflow.json"


async def call(workflow: str, url: str, **options: Any) -> Exit:
    return await asyncio.to_thread(run, Call(workflow, url, **options))


async def test_the_picture_is_written_and_only_its_path_printed(
    workflow: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    play = playing(("status", STATUS), ("progress", PROGRESS), ("preview", {}), ("result", {"outputs": [OUTPUT]}))
    async with serving(play) as url:
        assert await call(workflow, url, output="picture.png") == Exit.OK
    assert (tmp_path / "picture.png").read_bytes() == PICTURE
    said = capsys.readouterr()
    assert said.out == "picture.png\n"
    assert said.err.splitlines() == ["waiting, position 2, about 12 s", " 25% KSampler, step 5 of 20"]


async def test_the_order_has_what_was_given_and_nothing_else(workflow: str) -> None:
    orders = []

    async def note(request: web.Request) -> web.StreamResponse:
        assert request.headers["Accept"] == "text/event-stream"
        assert request.content_type == "application/json"
        orders.append(await request.json())
        return await playing(("result", {"outputs": []}))(request)

    async with serving(note) as url:
        await call(workflow, url + "/")
        await call(workflow, url, timeout=5.0, priority=-1, id="mine")
    graph = {"9": {"class_type": "SaveImage", "inputs": {}}}
    assert orders == [{"workflow": graph}, {"workflow": graph, "timeout": 5.0, "priority": -1, "id": "mine"}]


async def test_a_large_workflow_is_sent_whole(workflow: str, tmp_path: Path) -> None:
    (tmp_path / workflow).write_text(json.dumps({"9": {"class_type": "X", "inputs": {"image": "x" * 3_000_000}}}))
    sizes = []

    async def measure(request: web.Request) -> web.StreamResponse:
        sizes.append(sum([len(chunk) async for chunk in request.content.iter_any()]))
        return await playing(("result", {"outputs": []}))(request)

    async with serving(measure) as url:
        assert await call(workflow, url) == Exit.OK
    assert sizes[0] > 3_000_000


async def test_a_workflow_without_outputs_is_no_fault(workflow: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(playing(("result", {"outputs": []}))) as url:
        assert await call(workflow, url) == Exit.OK
    assert capsys.readouterr() == ("", "converter run: the workflow made no outputs\n")


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "invalid_request", Exit.INVALID),
        (413, "too_large", Exit.INVALID),
        (415, "unsupported_media_type", Exit.INVALID),
        (422, "invalid_workflow", Exit.INVALID),
        (422, "invalid_input", Exit.INVALID),
        (409, "id_in_use", Exit.INVALID),
        (429, "queue_full", Exit.REFUSED),
        (503, "starting", Exit.REFUSED),
        (401, "unauthorized", Exit.REFUSED),
        (403, "forbidden", Exit.REFUSED),
        (422, "execution_failed", Exit.FAILED),
        (409, "canceled", Exit.FAILED),
        (500, "internal", Exit.FAILED),
        (502, "engine_failed", Exit.FAILED),
        (507, "out_of_memory", Exit.FAILED),
        (408, "request_timeout", Exit.DEADLINE),
        (504, "deadline_exceeded", Exit.DEADLINE),
    ],
)
async def test_a_fault_has_its_exit_status_as_an_answer_and_as_an_event(
    workflow: str, capsys: pytest.CaptureFixture[str], status: int, code: str, expected: Exit
) -> None:
    async with serving(answering(lambda: problem(status, code))) as url:
        assert await call(workflow, url) == expected
    said = ["converter run: Title: detail", "converter run: request id r1"]
    assert capsys.readouterr().err.splitlines() == said
    document = json.loads(problem(status, code).text or "")
    async with serving(playing(("error", document))) as url:
        assert await call(workflow, url) == expected
    assert capsys.readouterr().err.splitlines() == said


async def test_errors_of_nodes_are_said_as_sentences(workflow: str, capsys: pytest.CaptureFixture[str]) -> None:
    errors = [
        {"type": "a", "message": "Value not in list", "details": "'x.ckpt' not in []", "input_name": "ckpt_name"},
        {"type": "b", "message": "Odd \x1b[2J", "details": ""},
    ]
    nodes = {"4": {"class_type": "CheckpointLoaderSimple", "errors": errors}, "5": None, "6": {"errors": [None]}}
    async with serving(answering(lambda: problem(422, "invalid_workflow", node_errors=nodes))) as url:
        await call(workflow, url)
    assert capsys.readouterr().err.splitlines()[:3] == [
        "converter run: Title",
        "converter run: node 4 (CheckpointLoaderSimple): ckpt_name: Value not in list: 'x.ckpt' not in []",
        "converter run: node 4 (CheckpointLoaderSimple): Odd  [2J",
    ]


async def test_the_node_that_raised_is_named(workflow: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(
        playing(("error", {"title": "Execution failed", "node_id": "3", "class_type": "KSampler"}))
    ) as url:
        assert await call(workflow, url) == Exit.FAILED
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["converter run: Execution failed", "converter run: at node 3 (KSampler)"]


@pytest.mark.parametrize(
    ("handler", "expected", "said"),
    [
        (playing(("status", STATUS)), Exit.UNREACHABLE, "the connection ended before the job did"),
        (playing(("result", "[]")), Exit.UNREACHABLE, "does not answer as a converter does"),
        (playing(("result", "{")), Exit.UNREACHABLE, "does not answer as a converter does"),
        (playing(("result", {"outputs": [{"node_id": "9"}]})), Exit.OTHER, "the output of node 9 came without"),
        (answering(lambda: web.Response(text="hello")), Exit.UNREACHABLE, "does not answer as a converter does"),
        (answering(lambda: web.Response(status=404, text="x" * (2 << 20))), Exit.INVALID, "answered 404 Not Found"),
        (answering(lambda: web.Response(status=502, text="nginx")), Exit.FAILED, "answered 502 Bad Gateway"),
    ],
)
async def test_what_is_no_converter_is_said_to_be_none(
    workflow: str, capsys: pytest.CaptureFixture[str], handler: Handler, expected: Exit, said: str
) -> None:
    async with serving(handler) as url:
        assert await call(workflow, url) == expected
    assert said in capsys.readouterr().err


async def test_a_connection_that_breaks_is_said_to_be_lost(workflow: str, capsys: pytest.CaptureFixture[str]) -> None:
    async def drop(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: half")
        assert request.transport
        request.transport.abort()
        return response

    async with serving(drop) as url:
        assert await call(workflow, url) == Exit.UNREACHABLE
    assert "was lost" in capsys.readouterr().err


async def test_nobody_there_is_unreachable(
    workflow: str, capsys: pytest.CaptureFixture[str], unused_tcp_port: int
) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    assert await call(workflow, url) == Exit.UNREACHABLE
    assert f"can't reach {url}: Connection refused" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["nonsense", "ftp://host", "http://", "http://h:99999"])
async def test_an_address_that_is_none_is_wrong_usage(
    workflow: str, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    assert await call(workflow, url) == Exit.USAGE
    assert f"{url} is not an http address" in capsys.readouterr().err


async def test_refusals_are_answered_by_trying_again_for_as_long_as_was_said(
    workflow: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: list[Handler] = [
        answering(lambda: problem(429, "queue_full", {"Retry-After": "0"})),
        playing(("error", {"status": 429, "code": "shed", "retry_after": 0})),
        playing(("result", {"outputs": [OUTPUT]})),
    ]

    async def answer(request: web.Request) -> web.StreamResponse:
        return await answers.pop(0)(request)

    async with serving(answer) as url:
        assert await call(workflow, url, wait=30.0) == Exit.OK
    assert answers == []
    said = capsys.readouterr()
    assert said.err.count("trying again in 0 s") == 2
    assert said.out == "ComfyUI_00001_.png\n"


@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [
        (429, {"Retry-After": "0"}, 0.0),  # without a time to wait nothing is tried again
        (503, {"Retry-After": "120"}, 60.0),  # it would be too late
        (502, {"Retry-After": "0"}, 60.0),  # it may have been done
    ],
)
async def test_nothing_else_is_tried_again(workflow: str, status: int, headers: dict[str, str], wait: float) -> None:
    tries = []

    async def refuse(request: web.Request) -> web.StreamResponse:
        tries.append(request)
        return problem(status, "code", headers)

    async with serving(refuse) as url:
        assert await call(workflow, url, wait=wait) != Exit.OK
    assert len(tries) == 1


@pytest.mark.parametrize(
    ("contents", "expected", "said"),
    [
        (None, Exit.USAGE, "can't read workflow.json: No such file or directory"),
        (b"{", Exit.INVALID, "workflow.json is not JSON"),
        (b"\xff", Exit.INVALID, "workflow.json is not JSON"),
    ],
)
def test_a_workflow_that_is_none_is_not_sent(
    workflow: str, capsys: pytest.CaptureFixture[str], contents: bytes | None, expected: Exit, said: str
) -> None:
    Path(workflow).unlink()
    if contents is not None:
        Path(workflow).write_bytes(contents)
    assert run(Call(workflow, "http://127.0.0.1:9")) == expected
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "said"), [("nowhere/picture.png", "there is no folder nowhere"), ("x" * 300, "File name too long")]
)
def test_a_place_that_is_none_is_found_out_before_anything_runs(
    workflow: str, capsys: pytest.CaptureFixture[str], output: str, said: str
) -> None:
    assert run(Call(workflow, "http://127.0.0.1:9", output=output)) == Exit.USAGE
    assert said in capsys.readouterr().err


async def test_a_file_that_can_not_be_written_is_said(
    workflow: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def take_the_name(request: web.Request) -> web.StreamResponse:
        (tmp_path / "picture.png").mkdir()
        return await playing(("result", {"outputs": [OUTPUT]}))(request)

    async with serving(take_the_name) as url:
        assert await call(workflow, url, output="picture.png") == Exit.OTHER
    assert "can't write picture.png: Is a directory" in capsys.readouterr().err


COMMAND = (sys.executable, "-m", "converter.cli", "run", "-", "--url")
ROOT = Path(__file__).parents[3]


def heed_interrupts() -> None:
    """Undo what a shell does to commands in its background, where these tests may run."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def test_ctrl_c_closes_the_connection(tmp_path: Path) -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(sse.encode("status", json.dumps(STATUS)))
        arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return response

    async with serving(hang) as url:
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(
            *COMMAND, url, stdin=pipe, stderr=pipe, cwd=ROOT, preexec_fn=heed_interrupts
        )
        assert child.stdin
        assert child.stderr
        child.stdin.write(b"{}")
        child.stdin.close()
        async with asyncio.timeout(60):
            await arrived.wait()
            assert await child.stderr.readline() == b"waiting, position 2, about 12 s\n"
            child.send_signal(signal.SIGINT)
            _, said = await child.communicate()
            await gone.wait()
    assert child.returncode == Exit.INTERRUPTED
    assert said == b"converter run: interrupted\n"


async def test_a_terminal_shows_a_bar_and_standard_output_only_the_path(tmp_path: Path) -> None:
    failure = ("error", {"status": 429, "retry_after": 0})
    success = [("status", STATUS), ("progress", PROGRESS), ("result", {"outputs": [OUTPUT]})]
    answers = [playing(failure), playing(*success)]

    async def answer(request: web.Request) -> web.StreamResponse:
        return await answers.pop(0)(request)

    path = tmp_path / "picture.png"
    with open_terminal() as terminal:
        async with serving(answer) as url:
            arguments = (*COMMAND, url, "--wait", "30", "-o", str(path))
            pipe = asyncio.subprocess.PIPE
            environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
            child = await asyncio.create_subprocess_exec(
                *arguments, stdin=pipe, stdout=pipe, stderr=terminal.screen, cwd=ROOT, env=environment
            )
            async with asyncio.timeout(60):
                out, _ = await child.communicate(b"{}")
        shown = terminal.read_all()
    assert (child.returncode, out.decode()) == (0, f"{path}\n")
    assert path.read_bytes() == PICTURE
    assert "trying again in 0 s" in shown
    assert "━" in shown
