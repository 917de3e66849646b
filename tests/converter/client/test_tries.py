"""When a call is sent again, and when it is not: refusals, lost connections, faults, and time that is over."""

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import ClientTimeout, web
from aiohttp.test_utils import TestServer

from converter import errors
from converter.client import Client, UnexpectedAnswer, Unreachable
from converter.client import client as client_module
from converter.client import stream as stream_module
from converter.core.retries import REPEATS
from tests.converter.client.conftest import Naps
from tests.converter.client.scripted import (
    OUTPUT,
    STATUS,
    WORKFLOW,
    Handler,
    Scripted,
    cut,
    document,
    hang,
    playing,
    problem,
    reset,
    result,
    saying,
    serving,
)

PROBLEM = {"Content-Type": "application/problem+json"}
DONE = playing(("result", result(OUTPUT)))


def repeated(server: Scripted, times: int) -> bool:
    """Whether so many tries came, all of them of one call."""
    return len(server.asked) == times and len({asked.body for asked in server.asked}) == len(set(server.keys)) == 1


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (problem(429, "queue_full", {"Retry-After": "7"}, retry="later", retry_after=7), 7),
        (problem(429, "shed", retry="later", retry_after=3), 3),
        (problem(503, "draining", {"Retry-After": "2"}), 2),
        (problem(429, "of_a_later_version", retry="later", retry_after=4), 4),
        (playing(("status", STATUS), ("error", document(429, "shed", retry="later", retry_after=5))), 5),
        (saying("busy", 429, {"Retry-After": "6"}), 6),
        (saying("<html>", 503, {"Retry-After": "8"}), 8),
    ],
)
async def test_who_is_refused_comes_back_when_it_was_told_to(answer: Handler, told: int, naps: Naps) -> None:
    heard: list[tuple[Exception, float]] = []
    async with (
        serving([answer, answer, DONE]) as server,
        Client(server.url, sleep=naps, on_retry=lambda *what: heard.append(what)) as client,
    ):
        assert (await client.run(WORKFLOW)).id == "j1"
    assert repeated(server, 3)
    assert all(told <= seconds <= told * 1.25 for seconds in naps.seconds)
    assert [seconds for _, seconds in heard] == naps.seconds
    assert {type(error) for error, _ in heard} <= {
        *errors.Refusal.__subclasses__(),
        errors.Draining,
        errors.Fault,
        UnexpectedAnswer,
    }


@pytest.mark.parametrize("answer", [reset, playing(then=cut), saying("", 502), saying("", 408), playing()])
async def test_what_was_lost_is_sent_again_after_growing_delays(answer: Handler, naps: Naps) -> None:
    async with serving([answer] * 5 + [DONE]) as server, Client(server.url, sleep=naps) as client:
        assert (await client.run(WORKFLOW)).id == "j1"
    assert repeated(server, 6)
    assert all(0.25 * 2**n <= seconds <= 0.5 * 2**n for n, seconds in enumerate(naps.seconds))


async def test_a_service_that_comes_up_later_is_found(unused_tcp_port: int, naps: Naps) -> None:
    async with AsyncExitStack() as stack:

        async def come_up() -> None:
            if len(naps.seconds) == 3:
                app = web.Application()
                app.router.add_post("/v1/run", DONE)
                await stack.enter_async_context(TestServer(app, port=unused_tcp_port))

        naps.then = come_up
        async with Client(f"http://127.0.0.1:{unused_tcp_port}", sleep=naps) as client:
            assert (await client.run(WORKFLOW)).id == "j1"
    assert len(naps.seconds) == 3


async def test_a_service_that_stays_away_is_said_to_be(unused_tcp_port: int, naps: Naps) -> None:
    async with Client(f"http://127.0.0.1:{unused_tcp_port}", sleep=naps, patience=0.0) as client:
        with pytest.raises(Unreachable, match="Connection refused"):
            await client.run(WORKFLOW)
    assert naps.seconds == []


async def test_a_service_that_goes_silent_is_lost(monkeypatch: pytest.MonkeyPatch, naps: Naps) -> None:
    monkeypatch.setattr(client_module, "_WAITS", ClientTimeout(total=None, sock_read=0.05))
    async with serving([playing(("status", STATUS), then=hang), DONE]) as server:
        async with Client(server.url, sleep=naps) as client:
            assert (await client.run(WORKFLOW)).id == "j1"
        await server.gone.wait()
    assert repeated(server, 2)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_request", errors.InvalidRequest),
        (401, "unauthorized", errors.Unauthorized),
        (403, "forbidden", errors.Forbidden),
        (404, "not_found", errors.NotFound),
        (409, "id_in_use", errors.IdInUse),
        (409, "canceled", errors.Canceled),
        (413, "too_large", errors.TooLarge),
        (415, "unsupported_media_type", errors.UnsupportedMediaType),
        (422, "invalid_workflow", errors.InvalidWorkflow),
        (422, "invalid_input", errors.InvalidInput),
        (422, "execution_failed", errors.ExecutionFailed),
        (422, "idempotency_mismatch", errors.IdempotencyMismatch),
        (504, "deadline_exceeded", errors.DeadlineExceeded),
    ],
)
async def test_what_would_meet_the_same_again_is_sent_once(
    status: int, code: str, kind: type[errors.Fault], naps: Naps
) -> None:
    retry = kind.retry
    for answer in (problem(status, code, retry=retry), playing(("error", document(status, code, retry=retry)))):
        async with serving(answer) as server, Client(server.url, sleep=naps) as client:
            with pytest.raises(kind) as raised:
                await client.run(WORKFLOW)
        assert type(raised.value) is kind
        assert (raised.value.status, raised.value.code, str(raised.value)) == (status, code, "detail")
        assert raised.value.extensions["request_id"] == "r1"
        assert len(server.asked) == 1
    assert naps.seconds == []


async def test_what_the_service_says_of_a_retry_is_believed(naps: Naps) -> None:
    async with serving(problem(429, "queue_full", retry="never")) as server, Client(server.url, sleep=naps) as client:
        with pytest.raises(errors.QueueFull):
            await client.run(WORKFLOW)
    assert len(server.asked) == 1


async def test_work_that_fails_over_and_over_is_given_up(naps: Naps) -> None:
    error = document(502, "engine_failed", retry="same")
    async with (
        serving(playing(("status", STATUS), ("error", error))) as server,
        Client(server.url, sleep=naps) as client,
    ):
        with pytest.raises(errors.EngineFailed):
            await client.run(WORKFLOW)
    assert repeated(server, 1 + REPEATS)


async def test_work_that_fails_once_is_done_at_the_second_try(naps: Naps) -> None:
    async with (
        serving([problem(507, "out_of_memory", retry="same"), DONE]) as server,
        Client(server.url, sleep=naps) as client,
    ):
        assert (await client.run(WORKFLOW)).id == "j1"
    assert repeated(server, 2)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (saying("hello"), "does not answer as a converter does"),
        (saying("x" * (2 << 20), 404), "answered 404 Not Found"),
        (saying('{"title": "Lost"}', 404, PROBLEM), "answered 404 Not Found"),
        (saying("[]", 404, PROBLEM), "answered 404 Not Found"),
        (saying("{", 404, PROBLEM), "answered 404 Not Found"),
        (saying(json.dumps(document(404, "x" * (2 << 20))), 404, PROBLEM), "answered 404 Not Found"),
    ],
)
async def test_what_is_no_converter_is_said_to_be_none(answer: Handler, said: str, naps: Naps) -> None:
    async with serving(answer) as server, Client(server.url, sleep=naps) as client:
        with pytest.raises(UnexpectedAnswer, match=said):
            await client.run(WORKFLOW)
    assert len(server.asked) == 1


async def test_what_is_not_http_is_not_asked_again(naps: Naps) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Client(f"http://127.0.0.1:{port}", sleep=naps) as client:
            with pytest.raises(UnexpectedAnswer, match="does not answer as a converter does"):
                await client.run(WORKFLOW)
        async with Client(f"https://127.0.0.1:{port}", sleep=naps) as client:
            with pytest.raises(Unreachable, match="can't reach"):
                await client.run(WORKFLOW)
    assert naps.seconds == []


# Time ---------------------------------------------------------------------------------------------------------------


async def test_no_try_begins_that_would_come_too_late(naps: Naps) -> None:
    async with (
        serving(problem(429, "queue_full", {"Retry-After": "120"})) as server,
        Client(server.url, sleep=naps, timeout=95.0) as client,
    ):
        with pytest.raises(errors.QueueFull) as raised:
            await client.run(WORKFLOW)
    assert raised.value.retry_after == 120
    assert naps.seconds == []
    assert len(server.asked) == 1


async def test_patience_may_be_shorter_than_the_timeout(naps: Naps) -> None:
    async with (
        serving(problem(503, "starting", {"Retry-After": "10"})) as server,
        Client(server.url, sleep=naps, patience=5.0) as client,
    ):
        with pytest.raises(errors.Starting):
            await client.run(WORKFLOW)
    assert naps.seconds == []


@pytest.mark.parametrize("answer", [playing(("status", STATUS), then=hang), hang])
async def test_a_call_ends_with_its_time(answer: Any) -> None:
    async with serving(answer) as server, Client(server.url, timeout=0.2) as client:
        with pytest.raises(errors.DeadlineExceeded, match=r"no answer within 0\.2 s"):
            await client.run(WORKFLOW)
        await server.gone.wait()


async def test_the_service_may_say_which_part_took_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "LATENESS", 1000.0)
    error = document(504, "deadline_exceeded", retry="same", phase="queued")

    async def say_it_late(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.06)
        return await playing(("error", error))(request)

    async with serving(say_it_late) as server, Client(server.url, timeout=0.05) as client:
        with pytest.raises(errors.DeadlineExceeded) as raised:
            await client.run(WORKFLOW)
    assert raised.value.extensions["phase"] == "queued"


async def test_its_time_ends_a_wait_for_the_next_try() -> None:
    """A wait that takes longer than was meant, as on a machine that slept."""

    async def sleep(seconds: float) -> None:
        await asyncio.Event().wait()

    async with serving(reset) as server, Client(server.url, timeout=1.0, sleep=sleep) as client:
        with pytest.raises(errors.DeadlineExceeded) as raised:
            await client.run(WORKFLOW)
    assert isinstance(raised.value.__cause__, Unreachable), "what the last try met"
