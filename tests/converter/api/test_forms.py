"""The form of an answer, as `outputs.delivery` or `Accept` asks for it."""

import base64
import io
import zipfile

import pytest

from tests.converter.api.sources import Source, content
from tests.converter.faults.graphs import picture, text, two_pictures
from tests.converter.faults.replica import Caller
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of

ZIP = {"delivery": "zip"}


async def test_a_zip_file_has_all_outputs_by_name(caller: Caller) -> None:
    graph = {**two_pictures(0x111111, 0x222222), "8": text("a")["1"], "9": text("words")["2"]}
    graph["9"]["inputs"]["source"] = ["8", 0]
    graph["8"]["inputs"]["text"] = "words"
    for name, headers, outputs in (("a", {"Accept": "application/zip"}, {}), ("b", {}, ZIP)):
        reply = await caller.run(graph, headers, outputs=outputs, id=name)
        assert (reply.status, reply.headers["Content-Type"]) == (200, "application/zip")
        assert reply.headers["Content-Disposition"] == f'attachment; filename="{name}.zip"'
        with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
            first, second, words = archive.namelist()
            assert (color_of(archive.read(first)), color_of(archive.read(second))) == (0x111111, 0x222222)
            assert archive.read(words) == b"words"


async def test_a_large_zip_file_streams_through(
    engine: FakeEngine, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(3 * 2**20 + 7)
    monkeypatch.setattr(caller.replica.jobs._means.files, "open", source.open)
    reply = await caller.run(two_pictures(1, 2), outputs=ZIP)
    assert int(reply.headers["Content-Length"]) == len(reply.body)
    with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
        assert [archive.read(name) for name in archive.namelist()] == [content(source.size)] * 2
    source.breaks_at = 2**20
    with pytest.raises(Exception, match=r"payload|reset|closed"):
        await caller.run(two_pictures(1, 2), outputs=ZIP)


async def test_other_forms_are_those_of_the_accept_header(caller: Caller) -> None:
    raw = await caller.run(picture(0x123456), outputs={"delivery": "raw"})
    assert raw.headers["Content-Type"] == "image/png"
    assert color_of(raw.body) == 0x123456
    webp = await caller.run(picture(1), {"Accept": "image/webp"}, outputs={"delivery": "raw"})
    assert webp.headers["Content-Type"] == "image/webp"
    several = await caller.run(two_pictures(1, 2), outputs={"delivery": "multipart"})
    assert several.headers["Content-Type"].startswith("multipart/mixed; boundary=")
    assert (await caller.run(two_pictures(1, 2), outputs={"delivery": "raw"})).status == 406


@pytest.mark.parametrize(
    ("accept", "delivery"),
    [
        ("application/json", "zip"),
        ("image/png", "multipart"),
        ("application/json", "raw"),
        ("text/event-stream", "zip"),
    ],
)
async def test_a_form_that_the_header_rules_out_is_refused(caller: Caller, accept: str, delivery: str) -> None:
    reply = await caller.run(picture(1), {"Accept": accept}, outputs={"delivery": delivery})
    assert (reply.status, reply.code) == (406, "not_acceptable")
    assert delivery in reply.document["detail"]


@pytest.mark.parametrize(
    ("delivery", "pointer", "said"),
    [
        ("ftp", "/outputs/delivery", '\'url\', {"storage": NAME} or {"put": URL}'),
        (5, "/outputs/delivery", "must be an object"),
        ({"storage": 1}, "/outputs/delivery/storage", "must be text"),
        ({"bucket": "x"}, "/outputs/delivery/bucket", "no such field"),
        ({"put": 3}, "/outputs/delivery/put", "must be text"),
        ({"put": ["https://a.example.com/", 3]}, "/outputs/delivery/put/1", "must be text"),
        ({"put": []}, "/outputs/delivery/put", "1 or more entries"),
    ],
)
async def test_a_way_that_is_none_is_said(caller: Caller, delivery: object, pointer: str, said: str) -> None:
    reply = await caller.run(picture(1), outputs={"delivery": delivery})
    assert (reply.status, reply.code) == (400, "invalid_request")
    assert any(p["pointer"] == pointer and said in p["detail"] for p in reply.document["problems"]), reply.document


async def test_the_embedded_workflow_is_kept_or_taken_out(caller: Caller) -> None:
    for form in (None, "webp", "jpeg", "avif"):
        for metadata, there in (("keep", True), ("strip", False), (None, True)):
            outputs = {name: value for name, value in (("format", form), ("metadata", metadata)) if value}
            [described] = (await caller.run(picture(1), outputs=outputs)).document["outputs"]
            assert "warning" not in described
            data = base64.b64decode(described["data"])
            assert (b"EmptyImage" in data) is there, (form, metadata)
            assert described["content_type"] == f"image/{form or 'png'}"
