"""Links to outputs: whoever has one gets the bytes until its end, and nobody gets anything by guessing."""

import io
import shutil
from typing import Any

import pytest
from PIL import Image

from tests.converter.api.sources import Source, content
from tests.converter.faults.graphs import picture, text, two_pictures
from tests.converter.faults.replica import Caller, Reply, converter
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of

URL = {"delivery": "url"}
SECRET = "s" * 32


def link(reply: Reply, number: int = 0) -> str:
    assert reply.status == 200, reply.body
    return str(reply.document["outputs"][number]["url"])


async def test_a_link_leads_to_the_bytes_again_and_again(caller: Caller) -> None:
    reply = await caller.run(two_pictures(0x111111, 0x222222), outputs=URL)
    for number, color in enumerate((0x111111, 0x222222)):
        described = reply.document["outputs"][number]
        assert "data" not in described
        for _ in range(2):
            fetched = await caller.get(described["url"])
            assert (fetched.status, fetched.headers["Content-Type"]) == (200, "image/png")
            assert color_of(fetched.body) == color
            assert len(fetched.body) == described["size"] == int(fetched.headers["Content-Length"])
            assert described["name"] in fetched.headers["Content-Disposition"]
            assert "sandbox" in fetched.headers["Content-Security-Policy"]
            assert 3590 <= int(fetched.headers["Cache-Control"].removeprefix("private, max-age=")) <= 3600


async def test_events_and_kept_jobs_have_links_too(caller: Caller) -> None:
    async with caller.events(picture(1), outputs=URL) as stream:
        last = await stream.last()
    assert color_of((await caller.get(last.data["outputs"][0]["url"])).body) == 1
    assert stream.all("output")[0]["url"] == last.data["outputs"][0]["url"]
    await caller.run(picture(2), {"Prefer": "respond-async"}, id="kept", outputs=URL)
    await caller.until_job("kept", "succeeded")
    first, again = [link(await caller.get("/v1/jobs/kept")) for _ in range(2)]
    assert first == again
    assert color_of((await caller.get(first)).body) == 2
    raw = await caller.get("/v1/jobs/kept", Accept="image/png")
    assert color_of(raw.body) == 2, "the bytes are there for who asks for them"


async def test_a_picture_behind_a_link_is_what_was_asked_for(caller: Caller) -> None:
    reply = await caller.run(picture(0x808080, size=64), outputs={**URL, "format": "webp", "quality": 30})
    [described] = reply.document["outputs"]
    assert described["name"].endswith(".webp")
    fetched = await caller.get(described["url"])
    assert fetched.headers["Content-Type"] == described["content_type"] == "image/webp"
    assert len(fetched.body) == described["size"]
    with Image.open(io.BytesIO(fetched.body)) as converted:
        assert converted.format == "WEBP"


async def test_what_no_file_holds_is_in_the_answer(caller: Caller) -> None:
    [described] = (await caller.run(text("words"), outputs=URL)).document["outputs"]
    assert described["text"] == "words"
    assert "url" not in described
    [described] = (await caller.run(picture(1, save="SaveImageWebsocket"), outputs=URL)).document["outputs"]
    assert described["data"]
    assert "stored it nowhere" in described["warning"]


async def test_large_files_stream_through_and_break_visibly(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(5 * 2**20 + 1)
    monkeypatch.setattr("converter.fitting.EngineFiles", lambda client: source)
    async with converter(engine.url, deliveries=1) as caller:
        url = link(await caller.run(picture(1), outputs=URL))
        assert source.files == 0
        assert (await caller.get(url)).body == content(source.size)
        source.gone = 1
        assert ((gone := await caller.get(url)).status, gone.code) == (410, "expired")
        source.breaks_at = 2**20
        with pytest.raises(Exception, match=r"payload|reset|closed"):
            await caller.get(url)
        assert source.files == 0


async def test_a_link_gives_parts_as_players_of_videos_ask_for_them(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(3 * 2**20 + 1)
    monkeypatch.setattr("converter.fitting.EngineFiles", lambda client: source)
    async with converter(engine.url, deliveries=1) as caller:
        url, whole = link(await caller.run(picture(1), outputs=URL)), content(source.size)
        for asked, first, last in (
            ("bytes=0-1", 0, 1),
            ("bytes=1048000-2100000", 1048000, 2100000),
            ("bytes=3145728-", 3145728, 3145728),
            ("bytes=-5", source.size - 5, source.size - 1),
        ):
            part = await caller.get(url, Range=asked)
            assert part.status == 206
            assert part.body == whole[first : last + 1]
            assert part.headers["Content-Range"] == f"bytes {first}-{last}/{source.size}"
            assert part.headers["Content-Type"] == "image/png"
            assert "sandbox" in part.headers["Content-Security-Policy"]
            assert source.files == 0
        beyond = await caller.get(url, Range=f"bytes={source.size}-")
        assert (beyond.status, beyond.code) == (416, "range_not_satisfiable")
        assert beyond.headers["Content-Range"] == f"bytes */{source.size}"
        for headers in ({"Range": "bytes=0-1,4-5"}, {"Range": "bytes=0-1", "If-Range": '"x"'}):
            reply = await caller.get(url, **headers)
            assert (reply.status, reply.body, reply.headers["Accept-Ranges"]) == (200, whole, "bytes")
        source.breaks_at = 2**20
        with pytest.raises(Exception, match=r"payload|reset|closed"):
            await caller.get(url, Range="bytes=500000-2000000")


@pytest.mark.parametrize("size", [300, 2**20])
async def test_a_link_tells_of_the_bytes_without_sending_them(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    source = Source(size)
    monkeypatch.setattr("converter.fitting.EngineFiles", lambda client: source)
    async with converter(engine.url) as caller:
        url = link(await caller.run(picture(1), outputs=URL))
        source.breaks_at = 0
        for _ in range(2):
            reply = await caller.ask("HEAD", url, {"Range": "bytes=0-1"})
            assert (reply.status, reply.body) == (200, b"")
            assert int(reply.headers["Content-Length"]) == size
            assert reply.headers["Content-Type"] == "image/png"


async def test_no_log_line_has_a_link_in_it(caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    url = link(await caller.run(picture(1), outputs=URL))
    await caller.get(url)
    await caller.get(url + "x")
    await caller.get(url + "/")
    for method in ("HEAD", "DELETE", "OPTIONS"):
        await caller.ask(method, url)
    logged = [f"{record.getMessage()} {vars(record)}" for record in caplog.records if record.name.startswith("conv")]
    assert any("/v1/outputs/{reference}" in line for line in logged)
    assert not any(url.rpartition(".")[2] in line for line in logged)


async def test_a_link_ends(engine: FakeEngine) -> None:
    async with converter(engine.url, url_expiry=0.001) as caller:
        reply = await caller.get(link(await caller.run(picture(1), outputs=URL)))
        assert (reply.status, reply.code) == (410, "expired")


async def test_what_was_not_signed_here_is_not_found(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller, converter(engine.url) as other:
        url = link(await caller.run(picture(1), outputs=URL))
        for forged in (url[:-1], url + "A", url.replace(".", ""), "/v1/outputs/x", "/v1/outputs/%00.%ff"):
            reply = await caller.get(forged)
            assert (reply.status, reply.code) == (404, "not_found"), forged
        assert (await other.get(url)).status == 404, "each process has a secret of its own"


async def test_links_of_one_secret_outlive_a_restart_and_stay_with_their_replica(engine: FakeEngine) -> None:
    async with converter(engine.url, url_secret=SECRET, replica_tag="a") as caller:
        url = link(await caller.run(picture(3), outputs=URL))
        assert url.startswith("/v1/outputs/a-")
    async with converter(engine.url, url_secret=SECRET, replica_tag="a") as caller:
        assert color_of((await caller.get(url)).body) == 3
    async with converter(engine.url, url_secret=SECRET, replica_tag="b") as caller:
        assert (await caller.get(url)).status == 404


async def test_a_link_is_the_key_to_its_output_and_to_nothing_else(engine: FakeEngine) -> None:
    key = {"Authorization": "Bearer " + "k" * 32}
    settings: dict[str, Any] = {"api_keys": "alice:" + "k" * 32, "public_url": "http://pictures.example/a"}
    async with converter(engine.url, **settings) as caller:
        url = link(await caller.run(picture(4), key, outputs=URL))
        assert url.startswith("http://pictures.example/a/v1/outputs/")
        path = url.removeprefix("http://pictures.example/a")
        assert color_of((await caller.get(path)).body) == 4
        assert (await caller.get("/v1/outputs/forged")).status == 404
        assert (await caller.run(picture(4))).status == 401


async def test_bytes_that_are_wanted_here_can_not_be_elsewhere(caller: Caller) -> None:
    reply = await caller.run(picture(1), {"Accept": "image/png"}, outputs=URL)
    assert (reply.status, reply.code) == (406, "not_acceptable")


async def test_a_file_that_is_gone_has_gone(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        url = link(await caller.run(picture(1), outputs=URL))
        shutil.rmtree(engine.folders.root / "output")
        reply = await caller.get(url)
        assert (reply.status, reply.code) == (410, "expired")
