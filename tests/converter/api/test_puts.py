"""Outputs put to URLs of the caller's: whole, to where the operator lets them go, and with nothing told of the URL."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.converter.api.sources import Source, content
from tests.converter.faults.graphs import picture, text, two_pictures
from tests.converter.faults.replica import Caller, converter
from tests.fakes.bucket import NAME, serve_bucket
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of
from tests.fakes.taker import Taker

SIGNATURE = "?signature=hidden-secret"


@pytest.fixture
async def taker() -> AsyncIterator[Taker]:
    async with Taker() as taker:
        yield taker


def to(*urls: str, **fields: Any) -> dict[str, Any]:
    return {"delivery": {"put": list(urls), **fields}}


async def test_each_output_goes_to_its_url(engine: FakeEngine, taker: Taker) -> None:
    async with converter(engine.url, put_origins=taker.url) as caller:
        graph = {**two_pictures(0x111111, 0x222222), "8": text("words")["1"], "3b": text("words")["2"]}
        graph["3b"]["inputs"]["source"] = ["8", 0]
        urls = [f"{taker.url}/ok/{name}{SIGNATURE}" for name in ("a", "b")]
        reply = await caller.run(graph, outputs=to(*urls))
        first, second, words = sorted(reply.document["outputs"], key=lambda output: output["kind"] == "text")
        assert (first["put"], second["put"], words["text"]) == (1, 2, "words")
        assert "data" not in first
        assert color_of(taker.taken["/ok/a"].body) == 0x111111
        assert color_of(taker.taken["/ok/b"].body) == 0x222222
        headers = taker.taken["/ok/a"].headers
        assert (headers["Content-Type"], headers["Content-Length"]) == ("image/png", str(first["size"]))
        assert "Transfer-Encoding" not in headers


async def test_a_presigned_url_takes_an_output(engine: FakeEngine) -> None:
    with serve_bucket() as bucket:
        url = bucket.client.generate_presigned_url("put_object", {"Bucket": NAME, "Key": "mine.png"}, 60)
        async with converter(engine.url, put_origins=bucket.options["endpoint"]) as caller:
            reply = await caller.run(picture(5), outputs={"delivery": {"put": url}})
            assert reply.document["outputs"][0]["put"] == 1
        content_type, data = bucket.objects()["mine.png"]
        assert (content_type, color_of(data)) == ("image/png", 5)


async def test_headers_that_storage_asks_for_go_along(engine: FakeEngine, taker: Taker) -> None:
    async with converter(engine.url, put_origins=taker.url) as caller:
        headers = {"x-ms-blob-type": "BlockBlob", "content-type": "image/x-mine"}
        reply = await caller.run(picture(1), outputs=to(f"{taker.url}/ok/a", headers=headers))
        assert reply.status == 200
        taken = taker.taken["/ok/a"].headers
        assert (taken["x-ms-blob-type"], taken.getall("Content-Type")) == ("BlockBlob", ["image/x-mine"])  # type: ignore[attr-defined]
        for name, value in (("Host", "x"), ("Cookie", "x"), ("Content-Length", "1"), ("x-ms-a", "a\r\nHost: x")):
            refused = await caller.run(picture(1), outputs=to(f"{taker.url}/ok/b", headers={name: value}))
            assert (refused.status, refused.code) == (400, "invalid_request")


async def test_an_output_without_a_url_is_in_the_answer(engine: FakeEngine, taker: Taker) -> None:
    async with converter(engine.url, put_origins=taker.url) as caller:
        reply = await caller.run(two_pictures(1, 2), outputs=to(f"{taker.url}/ok/a"))
        first, second = reply.document["outputs"]
        assert first["put"] == 1
        assert second["data"]
        assert "no URL for this output" in second["warning"]


async def test_large_outputs_stream_through_and_break_visibly(
    engine: FakeEngine, taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source()
    monkeypatch.setattr("converter.fitting.EngineFiles", lambda client: source)
    async with converter(engine.url, put_origins=taker.url) as caller:
        source.size = 12 * 2**20 + 1
        assert (await caller.run(picture(1), outputs=to(f"{taker.url}/ok/a"))).status == 200
        assert taker.taken["/ok/a"].body == content(source.size)
        source.breaks_at = 9 * 2**20
        reply = await caller.run(picture(1), outputs=to(f"{taker.url}/ok/b"))
        assert (reply.status, reply.code) == (502, "engine_failed")
        assert "/ok/b" not in taker.taken
        assert source.files == 0


async def test_a_receiver_that_stalls_does_not_cost_the_jobs_time(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converter.fitting.EngineFiles", lambda client: Source(32 * 2**20))
    monkeypatch.setattr("converter.media.puts.CONNECT", 0.2)
    monkeypatch.setattr("converter.media.puts.STALL", 0.2)
    monkeypatch.setattr("converter.media.puts.SLOWEST", 2**40)
    gone = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()  # and reads nothing
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with converter(engine.url, put_origins=url) as caller:
            reply = await caller.run(picture(1), outputs=to(url), timeout=20.0)
            gone.set()
    assert (reply.status, reply.code) == (502, "delivery_failed")
    assert "stalls" in reply.document["detail"]


async def test_what_may_pass_is_tried_again(engine: FakeEngine, taker: Taker) -> None:
    async with converter(engine.url, put_origins=taker.url) as caller:
        assert (await caller.run(picture(1), outputs=to(f"{taker.url}/twice/a"))).status == 200
        assert taker.asked["/twice/a"] == 2


@pytest.mark.parametrize(
    ("mood", "said", "asked"),
    [
        ("403", "answered with status 403", 1),
        ("moved", "answered with status 307", 1),
        ("rude", "has a connection that failed or broke off", 3),
    ],
)
async def test_what_is_not_taken_is_a_fault_that_tells_nothing_of_the_url(
    engine: FakeEngine, taker: Taker, mood: str, said: str, asked: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with converter(engine.url, put_origins=taker.url) as caller:
        reply = await caller.run(picture(1), outputs=to(f"{taker.url}/{mood}/a{SIGNATURE}"))
        assert (reply.status, reply.code) == (502, "delivery_failed")
        assert reply.document["detail"] == f"outputs.delivery.put: URL 1 {said}"
        assert reply.document["retry"] == ("never" if asked == 1 else "same"), "each try draws everything anew"
        assert 'converter_jobs_total{outcome="delivery_failed"} 1.0' in (await caller.get("/metrics")).body.decode()
        assert taker.asked[f"/{mood}/a"] >= asked, "aiohttp itself tries once more where a connection broke off"
        assert not taker.taken
        for record in caplog.records:
            assert "hidden-secret" not in f"{record.getMessage()} {vars(record)}"


async def test_a_receiver_that_never_answers_costs_no_more_than_the_jobs_time(engine: FakeEngine, taker: Taker) -> None:
    async with converter(engine.url, put_origins=taker.url) as caller:
        waiting = caller.start(picture(1), outputs=to(f"{taker.url}/silent/a"))
        await caller.until(lambda: taker.asked["/silent/a"])
        waiting.cancel()
        await asyncio.wait([waiting])
        await caller.until_empty()


@pytest.mark.parametrize(
    ("settings", "url", "said"),
    [
        ({}, "https://bucket.s3.amazonaws.com/a", "URL 1 leads to an origin that is not allowed here"),
        ({"put_origins": "https://a.example.org"}, "https://b.example.org/a", "not allowed here"),
        ({"put_origins": "https://a.example.org"}, "http://a.example.org/a", "not allowed here"),
        ({"put_anywhere": True}, "http://127.0.0.1:9/a", "no web server"),
        ({"put_anywhere": True}, "http://127.0.0.1:8080/a", "not public"),
        ({"put_anywhere": True}, "http://[::ffff:169.254.169.254]/a", "not public"),
        ({"put_anywhere": True}, "file:///etc/passwd", "must begin with http"),
    ],
)
async def test_where_nothing_may_go_nothing_is_sent(
    engine: FakeEngine, settings: dict[str, Any], url: str, said: str
) -> None:
    async with converter(engine.url, **settings) as caller:
        posted = len(engine.posted_prompts)
        reply = await caller.run(picture(1), outputs=to(url))
        assert (reply.status, reply.code) == (422, "invalid_input")
        assert said in reply.document["detail"]
        assert url not in reply.document["detail"]
        assert len(engine.posted_prompts) == posted


async def test_everything_that_is_wrong_with_urls_is_said_at_once(caller: Caller) -> None:
    reply = await caller.run(picture(1), outputs=to("ftp://x", "http://10.0.0.1/"))
    assert reply.document["detail"].count("URL") == 2
