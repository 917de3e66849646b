"""`converter run` against a small real server that plays the public contract: events, refusals, lost connections."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from converter.caller.call import Call, Exit, run
from tests.converter.client.scripted import (
    OUTPUT,
    PICTURE,
    PROGRESS,
    STATUS,
    Handler,
    cut,
    document,
    hang,
    playing,
    problem,
    result,
    saying,
    serving,
)
from tests.converter.terminal import open_terminal


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
    play = playing(("status", STATUS), ("progress", PROGRESS), ("result", result(OUTPUT)))
    async with serving(play) as server:
        assert await call(workflow, server.url, output="picture.png") == Exit.OK
    assert (tmp_path / "picture.png").read_bytes() == PICTURE
    said = capsys.readouterr()
    assert said.out == "picture.png\n"
    assert said.err.splitlines() == ["waiting, position 2, about 12 s", " 25% KSampler, step 5 of 20"]


async def test_the_order_has_what_was_given_and_nothing_else(workflow: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    async with serving(playing(("result", result()))) as server:
        await call(workflow, server.url + "/")
        await call(workflow, server.url, timeout=5.0, priority=-1, id="mine", api_key_file="key")
        await call(workflow, server.url, api_key="another")
    graph = {"9": {"class_type": "SaveImage", "inputs": {}}}
    orders = [asked.document for asked in server.asked][:2]
    assert orders == [{"workflow": graph}, {"workflow": graph, "timeout": 5.0, "priority": -1, "id": "mine"}]
    assert [asked.headers.get("Authorization") for asked in server.asked] == [None, "Bearer s3cret", "Bearer another"]
    assert "another" not in repr(Call(workflow, "http://a", api_key="another"))


async def test_a_workflow_without_outputs_is_no_fault(workflow: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(playing(("result", result()))) as server:
        assert await call(workflow, server.url) == Exit.OK
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
    async with serving(problem(status, code)) as server:
        assert await call(workflow, server.url) == expected
    said = ["converter run: Title: detail", "converter run: request id r1"]
    assert capsys.readouterr().err.splitlines() == said
    async with serving(playing(("error", document(status, code)))) as server:
        assert await call(workflow, server.url) == expected
    assert capsys.readouterr().err.splitlines() == said


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        (None, "a key is given by --api-key-file PATH or CONVERTER_API_KEY"),
        ("alice:s3cret", "the key that was given has a colon: of name:secret only the secret is the key"),
        ("s3cret", None),
    ],
)
async def test_who_is_not_let_in_is_told_how_a_key_is_given(
    workflow: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str | None, advice: str | None
) -> None:
    (tmp_path / "key").write_text(f"{key}\n")
    async with serving(problem(401, "unauthorized")) as server:
        assert await call(workflow, server.url, api_key_file="key" if key else None) == Exit.REFUSED
    said = capsys.readouterr().err
    assert said.splitlines()[2:] == ([] if advice is None else [f"converter run: {advice}"])
    assert "s3cret" not in said


async def test_errors_of_nodes_are_said_as_sentences(workflow: str, capsys: pytest.CaptureFixture[str]) -> None:
    errors = [
        {"type": "a", "message": "Value not in list", "details": "'x.ckpt' not in []", "input_name": "ckpt_name"},
        {"type": "b", "message": "Odd \x1b[2J", "details": ""},
        {"type": "c", "message": "No", "details": "", "input_name": "ckpt_name", "template_input": "model"},
    ]
    nodes = {"4": {"class_type": "CheckpointLoaderSimple", "errors": errors}, "5": None, "6": {"errors": [None]}}
    async with serving(problem(422, "invalid_workflow", node_errors=nodes)) as server:
        await call(workflow, server.url)
    assert capsys.readouterr().err.splitlines()[:4] == [
        "converter run: Title",
        "converter run: node 4 (CheckpointLoaderSimple): ckpt_name: Value not in list: 'x.ckpt' not in []",
        "converter run: node 4 (CheckpointLoaderSimple): Odd  [2J",
        "converter run: /inputs/model: node 4 (CheckpointLoaderSimple): ckpt_name: No",
    ]


async def test_the_node_that_raised_is_named(workflow: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = document(422, "execution_failed", node_id="3", class_type="KSampler")
    async with serving(playing(("error", error))) as server:
        assert await call(workflow, server.url) == Exit.FAILED
    assert "converter run: at node 3 (KSampler)" in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("handler", "expected", "said"),
    [
        (playing(("status", STATUS)), Exit.UNREACHABLE, "the connection ended before the job did"),
        (playing(("result", "[]")), Exit.UNREACHABLE, "does not answer as a converter does"),
        (playing(("result", "{")), Exit.UNREACHABLE, "does not answer as a converter does"),
        (playing(("result", result(OUTPUT | {"data": None}))), Exit.OTHER, "the output of node 9 came without"),
        (saying("hello"), Exit.UNREACHABLE, "does not answer as a converter does"),
        (saying("x" * (2 << 20), 404), Exit.INVALID, "answered 404 Not Found"),
        (saying("nginx", 502), Exit.FAILED, "answered 502 Bad Gateway"),
    ],
)
async def test_what_is_no_converter_is_said_to_be_none(
    workflow: str, capsys: pytest.CaptureFixture[str], handler: Handler, expected: Exit, said: str
) -> None:
    async with serving(handler) as server:
        assert await call(workflow, server.url) == expected
    assert said in capsys.readouterr().err


async def test_a_connection_that_breaks_is_said_to_be_lost(workflow: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(playing(("status", STATUS), then=cut)) as server:
        assert await call(workflow, server.url) == Exit.UNREACHABLE
    assert "was lost" in capsys.readouterr().err


async def test_nobody_there_is_unreachable(
    workflow: str, capsys: pytest.CaptureFixture[str], unused_tcp_port: int
) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    assert await call(workflow, url) == Exit.UNREACHABLE
    assert f"can't reach {url}: Connection refused" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["nonsense", "ftp://host", "http://", "http://h:99999", "http://me:s3cret@h"])
async def test_an_address_that_is_none_is_wrong_usage(
    workflow: str, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    assert await call(workflow, url) == Exit.USAGE
    said = capsys.readouterr().err
    assert said.startswith("converter run: url must ")
    assert "s3cret" not in said


async def test_refusals_are_answered_by_trying_again_for_as_long_as_was_said(
    workflow: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [
        problem(429, "queue_full", {"Retry-After": "0"}, retry="later"),
        playing(("error", document(429, "shed", retry_after=0))),
        playing(("result", result(OUTPUT))),
    ]
    async with serving(answers) as server:
        assert await call(workflow, server.url, wait=30.0) == Exit.OK
    assert len(server.asked) == 3
    said = capsys.readouterr()
    assert said.err.count("Title: detail; trying again in 0 s") == 2
    assert said.out == "ComfyUI_00001_.png\n"


@pytest.mark.parametrize("wait", [0.0, 60.0])  # the second would come too late
async def test_without_time_to_wait_nothing_is_tried_again(
    workflow: str, wait: float, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(problem(429, "queue_full", {"Retry-After": "120"})) as server:
        assert await call(workflow, server.url, wait=wait) == Exit.REFUSED
    assert len(server.asked) == 1
    assert "it may be sent again in 120 s" in capsys.readouterr().err


ALONE = "key must hold one API key's secret alone, in ASCII"


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (None, "can't read key: No such file"),
        *((text, ALONE) for text in (b"\xff", b"", b"a b", b"alice:s3cret\nbob:s3cret2\n")),
    ],
)
def test_a_key_that_is_none_is_not_sent(
    workflow: str, capsys: pytest.CaptureFixture[str], contents: bytes | None, said: str
) -> None:
    if contents is not None:
        Path("key").write_bytes(contents)
    assert run(Call(workflow, "http://127.0.0.1:9", api_key_file="key")) == Exit.USAGE
    told = capsys.readouterr().err
    assert said in told
    assert "s3cret" not in told


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
        return await playing(("result", result(OUTPUT)))(request)

    async with serving(take_the_name) as server:
        assert await call(workflow, server.url, output="picture.png") == Exit.OTHER
    assert "can't write picture.png: Is a directory" in capsys.readouterr().err


COMMAND = (sys.executable, "-m", "converter.cli", "run", "-", "--url")
ROOT = Path(__file__).parents[3]


def heed_interrupts() -> None:
    """Undo what a shell does to commands in its background, where these tests may run."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def test_ctrl_c_closes_the_connection(tmp_path: Path) -> None:
    async with serving(playing(("status", STATUS), then=hang)) as server:
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(
            *COMMAND, server.url, stdin=pipe, stderr=pipe, cwd=ROOT, preexec_fn=heed_interrupts
        )
        assert child.stdin
        assert child.stderr
        child.stdin.write(b"{}")
        child.stdin.close()
        async with asyncio.timeout(60):
            await server.came.wait()
            assert await child.stderr.readline() == b"waiting, position 2, about 12 s\n"
            child.send_signal(signal.SIGINT)
            _, said = await child.communicate()
            await server.gone.wait()
    assert child.returncode == Exit.INTERRUPTED
    assert said == b"converter run: interrupted\n"


async def test_a_terminal_shows_a_bar_and_standard_output_only_the_path(tmp_path: Path) -> None:
    failure = ("error", document(429, "queue_full", retry_after=0))
    success = [("status", STATUS), ("progress", PROGRESS), ("result", result(OUTPUT))]
    path = tmp_path / "picture.png"
    with open_terminal() as terminal:
        async with serving([playing(failure), playing(*success)]) as server:
            arguments = (*COMMAND, server.url, "--wait", "30", "-o", str(path))
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
