"""The client against a fake ComfyUI, and against servers that break in each way in which a transport can."""

import asyncio
import io
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import pytest

from converter.errors import EngineFailed
from converter.link.answers import Accepted, Refused, prompt_body
from converter.link.client import EngineClient, Limits, Missing, Truncated, Unanswered, Unreachable, View
from converter.link.wire import Features
from tests.fakes.engine import FakeEngine
from tests.fakes.faults import Faults

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a b/ü&x"}},
}
RECENT = "0.38.1"


def body(prompt_id: str, graph: dict[str, Any] = GRAPH) -> bytes:
    return prompt_body(graph, prompt_id, "client")


async def read(file: View) -> bytes:
    return b"".join([chunk async for chunk in file.chunks()])


# ---- against the fake engine


async def test_a_prompt_from_its_submission_to_its_file() -> None:
    prompt_id = str(uuid4())
    async with FakeEngine() as engine, EngineClient(engine.url, clock=lambda: 42.0) as client:
        engine.hold()
        assert await client.history(prompt_id) is None
        assert await client.submit(body(prompt_id)) == Accepted(prompt_id)
        await engine.until_held(prompt_id)
        view = await client.queue()
        assert (view.asked_at, view.running, view.pending) == (42.0, (prompt_id,), ())
        engine.release()
        await engine.until_idle()
        record = await client.history(prompt_id)
        assert record is not None
        assert record.success
        assert record.requested == ("2",)
        [image] = record.outputs["2"]["images"]
        assert image["subfolder"] == "a b"
        async with client.view(image["filename"], image["subfolder"], image["type"]) as file:
            assert file.content_type == "image/png"
            data = await read(file)
        assert len(data) == file.size
        assert data.startswith(b"\x89PNG")


async def test_a_refused_prompt() -> None:
    async with FakeEngine() as engine, EngineClient(engine.url) as client:
        answer = await client.submit(body(str(uuid4()), {"1": {"class_type": "NoSuchNode", "inputs": {}}}))
        assert isinstance(answer, Refused)
        assert answer.status == 400
        assert isinstance(answer.body, dict)
        assert answer.body["error"]["type"] == "invalid_prompt"


async def test_nobody_knows_what_a_500_means() -> None:
    async with FakeEngine(faults=Faults(post_500=1)) as engine, EngineClient(engine.url) as client:
        with pytest.raises(Unanswered, match="500"):
            await client.submit(body(str(uuid4())))


async def test_an_answer_that_is_lost() -> None:
    prompt_id = str(uuid4())
    async with FakeEngine(faults=Faults(answer_lost=1)) as engine, EngineClient(engine.url) as client:
        with pytest.raises(Unanswered):
            await client.submit(body(prompt_id))
        assert engine.posted_prompts == [prompt_id], "a POST is not sent twice"


async def test_delete_and_interrupt_name_their_prompt() -> None:
    running, pending = str(uuid4()), str(uuid4())
    async with FakeEngine() as engine, EngineClient(engine.url) as client:
        engine.hold()
        await client.submit(body(running))
        await engine.until_held(running)
        await client.submit(body(pending))
        await client.delete(pending)
        assert (await client.queue()).pending == ()
        await client.interrupt(running)
        await engine.until_idle()
        record = await client.history(running)
        assert record is not None
        assert record.interrupted
        assert not record.success
        assert engine.interrupts == [running]
        assert engine.deletes == [[pending]]


async def test_cancel_of_versions_that_have_it() -> None:
    prompt_id = str(uuid4())
    async with FakeEngine(version=RECENT) as engine, EngineClient(engine.url) as client:
        engine.hold()
        await client.submit(body(prompt_id))
        await engine.until_held(prompt_id)
        assert await client.cancel(str(uuid4())) is False
        assert await client.cancel(prompt_id) is True


async def test_cancel_of_versions_that_have_it_not() -> None:
    async with FakeEngine() as engine, EngineClient(engine.url) as client:
        assert await client.cancel(str(uuid4())) is None


async def test_an_upload_is_named_by_the_engine() -> None:
    async with FakeEngine() as engine, EngineClient(engine.url) as client:
        assert await client.upload("up.png", "a/b", b"one", "image/png") == "a/b/up.png"
        assert await client.upload("up.png", "a/b", b"two", "image/png") == "a/b/up (1).png"
        assert await client.upload("up.png", "a/b", io.BytesIO(b"three"), "image/png", overwrite=True) == "a/b/up.png"
        large = bytes(3 * 2**20)
        assert await client.upload("large.png", "", large, "image/png") == "large.png"
        async with client.view("up.png", "a/b", "input") as file:
            assert await read(file) == b"three"
        async with client.view("large.png", folder="input") as file:
            assert await read(file) == large


async def test_what_the_engine_says_of_itself() -> None:
    async with FakeEngine() as engine, EngineClient(f"{engine.url}/") as client:
        assert await client.features() == Features(supports_preview_metadata=True, max_upload_size=104857600)
        assert await client.version() == (0, 3, 64)
        nodes = await client.object_info()
        assert "SaveImage" in nodes.outputs
        assert "EmptyImage" not in nodes.outputs
        assert ("LoadImage", "image") in nodes.uploads
        await client.free()
        assert engine.frees == [{"unload_models": True, "free_memory": True}]


async def test_a_large_graph_is_sent() -> None:
    graph = {**GRAPH, "9": {"class_type": "EmptyImage", "inputs": {"note": "x" * (2 * 2**20)}}}
    async with FakeEngine() as engine, EngineClient(engine.url) as client:
        assert isinstance(await client.submit(body(str(uuid4()), graph)), Accepted)


async def test_a_file_that_is_gone() -> None:
    async with FakeEngine() as engine, EngineClient(engine.url) as client:
        for name in ("gone.png", "half a pair \ud800.png"):
            with pytest.raises(Missing):
                async with client.view(name):
                    pytest.fail("there is no such file")
        with pytest.raises(Unanswered, match="400"):
            async with client.view("../gone.png"):
                pytest.fail("there is no such file")


@pytest.mark.parametrize("faults", [Faults(view_truncated=1), Faults(view_wrong_length=1)])
async def test_a_file_that_breaks_off(faults: Faults) -> None:
    async with FakeEngine(faults=faults) as engine, EngineClient(engine.url) as client:
        await client.upload("up.png", "", bytes(300_000), "image/png")
        async with client.view("up.png", folder="input") as file:
            with pytest.raises(Truncated):
                await read(file)
        # The broken connection is not used again.
        async with client.view("up.png", folder="input") as file:
            assert len(await read(file)) == 300_000


async def test_a_file_that_is_not_read_to_its_end_leaves_the_client_usable() -> None:
    async with FakeEngine() as engine, EngineClient(engine.url, Limits(connections=1)) as client:
        await client.upload("up.png", "", bytes(3_000_000), "image/png")
        async with client.view("up.png", folder="input") as file:
            await anext(file.chunks())
        await client.queue()


async def test_a_file_that_stalls() -> None:
    async with (
        FakeEngine(faults=Faults(view_slow=60.0)) as engine,
        EngineClient(engine.url, Limits(stall=0.5)) as client,
    ):
        await client.upload("up.png", "", bytes(300_000), "image/png")
        async with client.view("up.png", folder="input") as file:
            with pytest.raises(Truncated):
                await read(file)


async def test_an_engine_that_refuses_connections() -> None:
    async with FakeEngine() as engine, EngineClient(engine.url) as client:
        await client.queue()
        await engine.crash()
        with pytest.raises(Unreachable):
            await client.submit(body(str(uuid4())))
        with pytest.raises(Unreachable):
            async with client.view("up.png"):
                pytest.fail("nobody is there")
        await engine.restart()
        await client.queue()


# ---- against raw sockets

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[str]:
    """A server that runs `script` on each connection and then closes it; gives its URL."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Clients may leave at any time.
        with suppress(ConnectionError, EOFError, asyncio.CancelledError):
            await script(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(
        lambda reader, writer: tasks.append(asyncio.create_task(serve(reader, writer))), "127.0.0.1", 0
    )
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


def answering(answer: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    return script


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def reset_before_the_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    reset(writer)


async def reset_after_the_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    reset(writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Sends RST in place of FIN."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def http(status: str, content: bytes = b"", *headers: str) -> bytes:
    """An answer, and the last one on its connection."""
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close", *headers, "", "")
    return "\r\n".join(lines).encode() + content


@pytest.mark.parametrize(
    "script",
    [
        reset_before_the_request,
        reset_after_the_request,
        answering(b""),
        answering(b"HTTP/1.1 200 OK\r\nContent-Le"),
        answering(b"\xff\xfe nonsense \r\n\r\n"),
        answering(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"prompt_id": '),
        answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\r\n"),
        answering(http("200 OK", b"{}")),
        answering(http("204 No Content")),
        answering(http("302 Found", b"", "Location: /elsewhere")),
        answering(http("403 Forbidden")),
        answering(http("502 Bad Gateway", b"<html>")),
    ],
)
async def test_after_the_request_was_sent_anything_may_have_happened(script: Script) -> None:
    async with serving(script) as url, EngineClient(url) as client:
        with pytest.raises(Unanswered):
            await client.submit(body("x"))
        with pytest.raises(Unanswered):
            await client.queue()


@pytest.mark.parametrize("timeout", [0.05, None])
async def test_an_answer_that_takes_too_long(timeout: float | None) -> None:
    async with serving(hang) as url, EngineClient(url, Limits(answer=0.1)) as client:
        with pytest.raises(Unanswered):
            await client.submit(body("x"), timeout=timeout)
        with pytest.raises(Unanswered):
            async with client.view("x.png"):
                pytest.fail("nothing was answered")


async def test_a_pool_that_is_empty_is_no_delivery() -> None:
    limits = Limits(connections=1, connect=0.5)
    async with serving(hang) as url, EngineClient(url, limits) as client, asyncio.TaskGroup() as group:
        first = group.create_task(client.queue(timeout=60))
        # The pool is taken in the order of asking.
        await asyncio.sleep(0)
        with pytest.raises(Unreachable):
            await client.submit(body("x"))
        first.cancel()


@pytest.mark.parametrize("size", ["Content-Length: 101\r\n\r\n", "\r\n"])
async def test_no_answer_is_read_beyond_its_bound(size: str) -> None:
    script = answering(f"HTTP/1.1 200 OK\r\n{size}".encode() + b"x" * 101)
    async with serving(script) as url, EngineClient(url, Limits(body=100)) as client:
        with pytest.raises(Unanswered, match="100 bytes"):
            await client.features()


async def test_an_answer_without_a_length_is_read_to_its_end() -> None:
    script = answering(b"HTTP/1.1 200 OK\r\n\r\n" + b'{"max_upload_size": 1}')
    async with serving(script) as url, EngineClient(url) as client:
        assert (await client.features()).max_upload_size == 1


async def test_a_record_without_an_outcome_is_final() -> None:
    async with serving(answering(http("200 OK", b'{"x": {}}'))) as url, EngineClient(url) as client:
        with pytest.raises(EngineFailed):
            await client.history("x")


async def test_routes_that_old_engines_lack() -> None:
    async with serving(answering(http("404 Not Found"))) as url, EngineClient(url) as client:
        assert await client.features() == Features()
        assert await client.cancel("x") is None


async def test_a_job_that_a_new_engine_does_not_know() -> None:
    script = answering(http("404 Not Found", b'{"error": "Job not found"}'))
    async with serving(script) as url, EngineClient(url) as client:
        assert await client.cancel("x") is False


async def test_an_encoded_file_is_not_taken_for_the_file() -> None:
    script = answering(http("200 OK", b"xxx", "Content-Encoding: gzip"))
    async with serving(script) as url, EngineClient(url) as client:
        with pytest.raises(Unanswered, match="encoded"):
            async with client.view("x.png"):
                pytest.fail("these are not the bytes of the file")


async def test_what_is_sent_is_lean_and_has_no_origin() -> None:
    """ComfyUI answers 403 to a foreign Origin, and compresses for whoever does not object."""
    heads = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(http("200 OK", b"{}", "Set-Cookie: a=b"))

    async with serving(script) as url, EngineClient(f"{url}/behind/a path/") as client:
        for _ in range(2):
            await client.features()
    for head in heads:
        lines = head.split("\r\n")
        assert lines[0] == "GET /behind/a%20path/features HTTP/1.1"
        assert {line.partition(":")[0] for line in lines[1:] if line} == {"Host", "Accept-Encoding"}
        assert "Accept-Encoding: identity" in lines


async def test_a_canceled_call_stays_canceled() -> None:
    asked = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await hang(reader, writer)

    async with serving(script) as url, EngineClient(url) as client:
        call = asyncio.create_task(client.queue())
        await asyncio.wait_for(asked.wait(), 30)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
