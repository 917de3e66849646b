"""Outputs in object storage: whole or not at all, under keys of the operator's, and never with a secret told."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from tests.converter.api.sources import Source, content
from tests.converter.faults.graphs import picture, text, two_pictures
from tests.converter.faults.replica import Caller, converter
from tests.fakes.bucket import Bucket, serve_bucket
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with serve_bucket() as bucket:
        yield bucket


@pytest.fixture
def settings(bucket: Bucket, tmp_path: Path) -> dict[str, Any]:
    """Those that name two destinations in the bucket, one folder, and one place that is not there."""
    options = "\n".join(f"{name} = {json.dumps(value)}" for name, value in bucket.options.items())
    file = tmp_path / "destinations.toml"
    file.write_text(f"""
[results]
url = "s3://results/made"
key = "{{caller}}/{{job}}/{{number}}_{{name}}"
options = {{ {options.replace(chr(10), ", ")} }}

[silent]
url = "s3://results/silent"
expiry = 0
options = {{ {options.replace(chr(10), ", ")} }}

[missing]
url = "s3://nowhere/made"
options = {{ {options.replace(chr(10), ", ")} }}

[folder]
url = {json.dumps((tmp_path / "folder").as_uri())}
""")
    return {"destinations_file": str(file)}


def to(name: str) -> dict[str, object]:
    return {"delivery": {"storage": name}}


async def test_outputs_are_uploaded_and_had_by_signed_urls(
    engine: FakeEngine, bucket: Bucket, settings: dict[str, Any]
) -> None:
    async with converter(engine.url, **settings) as caller:
        reply = await caller.run(two_pictures(0x111111, 0x222222), outputs=to("results"), id="two")
        first, second = reply.document["outputs"]
        assert first["key"] == f"anyone/two/1_{first['name']}"
        assert (first["destination"], "data" in first) == ("results", False)
        objects = bucket.objects()
        for described, color in ((first, 0x111111), (second, 0x222222)):
            content_type, data = objects[f"made/{described['key']}"]
            assert (content_type, color_of(data), len(data)) == ("image/png", color, described["size"])
            async with caller.session.get(URL(described["url"], encoded=True)) as fetched:
                assert (fetched.status, await fetched.read()) == (200, data)
            assert described["expires_at"].endswith("Z")


async def test_a_destination_may_give_no_urls(engine: FakeEngine, bucket: Bucket, settings: dict[str, Any]) -> None:
    async with converter(engine.url, **settings) as caller:
        [described] = (await caller.run(picture(1), outputs=to("silent"))).document["outputs"]
        assert "url" not in described
        assert f"silent/{described['key']}" in bucket.objects()


async def test_a_folder_is_a_destination(engine: FakeEngine, settings: dict[str, Any], tmp_path: Path) -> None:
    async with converter(engine.url, **settings) as caller:
        graph = {**picture(0x123456), "8": text("words")["1"], "9": text("words")["2"]}
        graph["9"]["inputs"]["source"] = ["8", 0]
        saved, words = (await caller.run(graph, outputs={**to("folder"), "format": "webp"})).document["outputs"]
        assert words["text"] == "words", "texts are in the answer itself"
        [path] = [path for path in (tmp_path / "folder").rglob("*") if path.is_file()]
        assert path.relative_to(tmp_path / "folder").as_posix() == saved["key"]
        assert path.name.endswith(".webp")
        assert path.stat().st_size == saved["size"]


async def test_large_outputs_stream_through(
    engine: FakeEngine, bucket: Bucket, settings: dict[str, Any], source: Source
) -> None:
    async with converter(engine.url, **settings) as caller:
        source.size = 12 * 2**20 + 5
        [described] = (await caller.run(picture(1), outputs=to("results"), id="large")).document["outputs"]
        assert bucket.objects()[f"made/{described['key']}"][1] == content(source.size)
        assert source.files == 0


async def test_an_output_that_breaks_off_leaves_nothing_behind(
    engine: FakeEngine, bucket: Bucket, settings: dict[str, Any], source: Source
) -> None:
    async with converter(engine.url, **settings) as caller:
        source.size, source.breaks_at = 20 * 2**20, 15 * 2**20
        before = bucket.objects()
        reply = await caller.run(picture(1), outputs=to("results"))
        assert (reply.status, reply.code) == (502, "engine_failed")
        assert (bucket.objects(), bucket.unfinished()) == (before, 0)


async def test_who_leaves_during_an_upload_leaves_nothing_behind(
    engine: FakeEngine, bucket: Bucket, settings: dict[str, Any], source: Source
) -> None:
    async with converter(engine.url, **settings) as caller:
        source.size = 2**40
        before = bucket.objects()
        waiting = caller.start(picture(1), outputs=to("results"))
        await caller.until(lambda: bucket.unfinished())
        waiting.cancel()
        await asyncio.wait([waiting])
        await caller.until_empty()
        assert source.files == 0
        assert (bucket.objects(), bucket.unfinished()) == (before, 0)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    source = Source()
    monkeypatch.setattr("converter.fitting.EngineFiles", lambda client: source)
    return source


async def test_a_store_that_does_not_take_an_output_is_a_fault_without_secrets(
    engine: FakeEngine, bucket: Bucket, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with converter(engine.url, **settings) as caller:
        reply = await caller.run(picture(1), outputs=to("missing"))
        assert (reply.status, reply.code) == (502, "delivery_failed")
        assert reply.document["detail"] == "the destination missing did not take an output"
        [record] = [record for record in caplog.records if "not uploaded" in record.getMessage()]
        assert vars(record)["destination"] == "missing"
        assert "hidden-secret" not in caplog.text


async def test_a_job_in_the_background_is_delivered_without_its_caller(
    engine: FakeEngine, bucket: Bucket, settings: dict[str, Any]
) -> None:
    async with converter(engine.url, **settings) as caller:
        await caller.run(picture(7), {"Prefer": "respond-async"}, id="later", outputs=to("results"))
        document = await caller.until_job("later", "succeeded")
        assert color_of(bucket.objects()[f"made/{document['outputs'][0]['key']}"][1]) == 7
        assert color_of((await caller.get("/v1/jobs/later", Accept="image/png")).body) == 7


async def test_a_destination_that_is_none_is_refused_with_those_that_are(
    engine: FakeEngine, caller: Caller, settings: dict[str, Any]
) -> None:
    posted = len(engine.posted_prompts)
    reply = await caller.run(picture(1), outputs=to("nowhere"))
    assert (reply.status, reply.code) == (422, "invalid_input")
    assert "the operator has named none" in reply.document["detail"]
    assert len(engine.posted_prompts) == posted
    async with converter(engine.url, **settings) as other:
        reply = await other.run(picture(1), outputs=to("nowhere"))
        assert "there are folder, missing, results, silent" in reply.document["detail"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a]\nurl = 5", "a: url must be text"),
        ("[a", "Expected"),
        ('[a]\nurl = "ftp://x"', "a: .*ftp"),
        ('[a]\nurl = "s3://b"\noptions = {nope = "hidden-secret"}', "a: .*nope"),
    ],
)
async def test_destinations_that_can_not_be_used_stop_the_start(
    engine: FakeEngine, tmp_path: Path, text: str, said: str
) -> None:
    from converter.errors import CannotStart

    file = tmp_path / "destinations.toml"
    file.write_text(text)
    with pytest.raises(CannotStart, match=said) as raised:
        async with converter(engine.url, destinations_file=str(file)):
            pass
    assert "hidden-secret" not in str(raised.value)
    assert "\n" not in str(raised.value)
