"""Assets of Comfy API v2, by comfy-sdk and by hand, over a scripted engine."""

import asyncio
import io
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData
from blake3 import blake3
from comfy_low.errors import BlobNotFound, HashMismatch, IdempotencyKeyReuse
from comfy_sdk import ComfyError, MissingAsset, NotFound

from converter.api.bodies import MAX_PARTS
from converter.api.comfyapi.assets import UPLOADS
from tests.converter.api.comfy import check, comfy
from tests.converter.api.exchange import PATIENCE, connect, field, multipart, request
from tests.converter.faults.graphs import loaded, picture
from tests.converter.faults.replica import Caller, Reply, converter
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of, encode, solid

ASSETS = "/api/v2/assets"

PICTURE = encode(solid(0x0000FF)[0])

LARGE = encode(solid(0x00FF00, 512, 512)[0], "BMP")
"""More than is held in memory."""


def name_hash(data: bytes) -> str:
    return f"blake3:{blake3(data).hexdigest()}"


async def post(caller: Caller, data: bytes = PICTURE, headers: Mapping[str, str] | None = None, **fields: str) -> Reply:
    """An upload by hand, checked against its schema."""
    form = FormData()
    for name, value in {"content_type": "image/png", "file_path": "a.png", **fields}.items():
        form.add_field(name, value)
    form.add_field("file", data, filename="a.png", content_type="image/png")
    reply = await caller.ask("POST", ASSETS, headers, data=form)
    check("POST", ASSETS, reply.status, reply.document)
    return reply


def code(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.document["error"]["code"]


@pytest.mark.parametrize("data", [PICTURE, LARGE], ids=["small", "large"])
async def test_the_sdk_uploads_once_and_runs_with_it(caller: Caller, engine: FakeEngine, data: bytes) -> None:
    async with comfy(caller.url) as client:
        asset = client.assets.from_bytes(data, filename="blue.png")
        workflow = client.workflows.from_json(loaded(""))
        workflow.set_input("1", "image", asset)
        job = await client.run(workflow)
        assert color_of(await job.outputs[0].to_bytes()) == 0xFFFFFF ^ color_of(data)
        assert (asset.created_new, asset.hash) == (True, name_hash(data))
        again = client.assets.from_bytes(data, filename="other.png")
        await again.commit()
        assert (again.created_new, again.file_path) == (False, "other.png")
        assert again.id != asset.id
        kept = await job.get_workflow()
        assert kept.graph["1"]["inputs"]["image"]["info"]["id"] == asset.id


async def test_content_comes_back_in_whole_and_in_part(caller: Caller) -> None:
    document = (await post(caller, LARGE)).document
    path = document["url"].removeprefix(caller.url)
    whole = await caller.get(path)
    assert (whole.status, whole.body, whole.headers["Content-Type"]) == (200, LARGE, "image/png")
    assert whole.headers["Accept-Ranges"] == "bytes"
    assert whole.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    for header, part in (("bytes=3-9", LARGE[3:10]), ("bytes=-7", LARGE[-7:]), ("bytes=700000-", LARGE[700_000:])):
        reply = await caller.get(path, Range=header)
        assert (reply.status, reply.body) == (206, part)
    reply = await caller.get(path, Range="bytes=700000-")
    assert reply.headers["Content-Range"] == f"bytes 700000-{len(LARGE) - 1}/{len(LARGE)}"
    outside = await caller.get(path, Range=f"bytes={len(LARGE)}-")
    assert (outside.status, outside.headers["Content-Range"]) == (416, f"bytes */{len(LARGE)}")


async def test_metadata_say_what_an_asset_is(caller: Caller) -> None:
    created = (await post(caller, file_path="folder/ä.png", expires_in="60")).document
    document = (await caller.get(f"{ASSETS}/{created['id']}")).document
    check("GET", f"{ASSETS}/ID", 200, document)
    assert (document["hash"], document["size_bytes"]) == (name_hash(PICTURE), len(PICTURE))
    assert document["file_path"] == "folder/ä.png"
    assert created.pop("created_new")
    assert document == created
    async with comfy(caller.url) as client:
        assert (await client.assets.get(created["id"])).hash == name_hash(PICTURE)


async def test_a_deleted_asset_is_gone_and_others_of_its_bytes_are_not(caller: Caller) -> None:
    async with comfy(caller.url) as client:
        first, second = client.assets.from_bytes(PICTURE), client.assets.from_bytes(PICTURE)
        await first.commit()
        path = f"{ASSETS}/{await second.commit()}/content"
        await first.delete()
        assert (await caller.get(path)).body == PICTURE
        await second.delete()
        assert (await caller.get(path)).status == 404
        with pytest.raises(NotFound):
            await client.assets.delete("nothing")
        with pytest.raises(BlobNotFound):
            await client._low.asset_from_hash(name_hash(PICTURE))


async def test_bytes_that_are_others_than_declared_are_refused(caller: Caller) -> None:
    wrong = name_hash(b"other bytes")
    assert code(await post(caller, expected_hash=wrong)) == (409, "hash_mismatch")
    assert (await caller.ask("HEAD", f"{ASSETS}/by-hash/{name_hash(PICTURE)}")).status == 404
    async with comfy(caller.url) as client:
        with pytest.raises(HashMismatch):
            await client._low.post_assets(io.BytesIO(PICTURE), "image/png", "a.png", expected_hash=wrong)


async def test_a_key_of_an_upload_counts_once(caller: Caller) -> None:
    key = {"Idempotency-Key": "mine"}
    assert code(await post(caller, headers=key, expected_hash=name_hash(b"other")))[0] == 409
    assert (await post(caller, headers=key)).status == 201
    assert code(await post(caller, headers=key)) == (422, "idempotency_key_reuse")
    reply = await caller.post("/api/v2/jobs", {"workflow": picture(1)}, Idempotency_Key="mine")
    assert reply.status == 201  # jobs have keys of their own
    async with comfy(caller.url) as client:
        with pytest.raises(IdempotencyKeyReuse):
            await client._low.post_assets(io.BytesIO(PICTURE), "image/png", "a.png", idempotency_key="mine")


async def test_other_callers_do_not_learn_which_bytes_are_there(engine: FakeEngine) -> None:
    one, two = ({"Authorization": f"Bearer {name}-secret-of-all"} for name in ("first", "second"))
    async with converter(engine.url, api_keys="one:first-secret-of-all,two:second-secret-of-all") as caller:
        asset = (await post(caller, headers=one)).document
        probe = f"{ASSETS}/by-hash/{name_hash(PICTURE)}"
        assert (await caller.ask("HEAD", probe, one)).status == 200
        assert (await caller.ask("HEAD", probe, two)).status == 404
        for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
            reply = await caller.ask(method, f"{ASSETS}/{asset['id']}{path}", two)
            assert code(reply) == (404, "not_found")
        reply = await caller.ask("POST", f"{ASSETS}/from-hash", two, json={"hash": name_hash(PICTURE)})
        assert code(reply) == (404, "blob_not_found")
        workflow = loaded("")
        workflow["1"]["inputs"]["image"] = {"__type": "core/ASSET", "info": {"id": asset["id"]}}
        reply = await caller.ask("POST", "/api/v2/jobs", two, json={"workflow": workflow})
        assert code(reply) == (422, "missing_asset")
        assert (await post(caller, headers=two)).status == 201


async def test_references_that_lead_nowhere_are_all_named(caller: Caller) -> None:
    workflow = {**loaded(""), "9": loaded("")["1"]}
    workflow["1"]["inputs"]["image"] = {"__type": "core/ASSET", "info": {"id": "nothing"}}
    workflow["9"] = {"class_type": "LoadImage", "inputs": {"image": {"__type": "core/ASSET", "info": {}}}}
    async with comfy(caller.url) as client:
        with pytest.raises(MissingAsset) as missing:
            await client.submit(client.workflows.from_json(workflow))
        assert missing.value.details is not None
        assert len(missing.value.details["assets"]) == 2


async def test_references_may_stand_anywhere_in_an_input(caller: Caller, engine: FakeEngine) -> None:
    async with comfy(caller.url) as client:
        first, second = (client.assets.from_bytes(encode(solid(color)[0])) for color in (1, 2))
        workflow = client.workflows.from_json(picture(3))
        workflow.set_input("1", "passed_over", {"files": [first, second, "text"], "again": first})
        await client.run(workflow)
    [posted] = [asked.body for asked in engine.requests if asked.path == "/prompt" and asked.method == "POST"][-1:]
    given = posted["prompt"]["1"]["inputs"]["passed_over"]
    assert given == {"files": [given["again"], given["files"][1], "text"], "again": given["again"]}
    folders, names = zip(*(name.split("/") for name in given["files"][:2]), strict=True)
    assert set(folders) == {"converter"}
    stored = [engine.folders.locate(name, kind="input", subfolder="converter") for name in names]
    assert [color_of(path.read_bytes()) for path in stored] == [1, 2]


async def test_an_output_is_an_asset_for_the_next_workflow(caller: Caller) -> None:
    async with comfy(caller.url) as client:
        [output] = (await client.run(client.workflows.from_json(picture(0x112233)))).outputs
        workflow = loaded("")
        workflow["1"]["inputs"]["image"] = {"__type": "core/ASSET", "info": {"id": output.id}}
        [inverted] = (await client.run(client.workflows.from_json(workflow))).outputs
        assert color_of(await inverted.to_bytes()) == 0xFFFFFF ^ 0x112233
        with pytest.raises(ComfyError) as held:
            await client.assets.delete(output.id)
        assert (held.value.http_status, held.value.code) == (409, "asset_in_use")


def referring(ids: Iterable[str]) -> dict[str, Any]:
    """A workflow with references to these assets."""
    workflow = picture(3)
    workflow["1"]["inputs"]["passed_over"] = [{"__type": "core/ASSET", "info": {"id": id}} for id in ids]
    return {"workflow": workflow}


async def test_references_are_only_so_many(caller: Caller) -> None:
    reply = await caller.post("/api/v2/jobs", referring(f"x{number}" for number in range(MAX_PARTS)))
    assert code(reply) == (422, "missing_asset")
    reply = await caller.post("/api/v2/jobs", referring(f"x{number}" for number in range(MAX_PARTS + 1)))
    assert code(reply) == (413, "too_large")


async def test_outputs_that_are_referred_to_have_bounds_together(engine: FakeEngine) -> None:
    async with converter(engine.url, max_body=10_000) as caller, comfy(caller.url) as client:
        ids = []
        for color in (1, 2, 3):
            [output] = (await client.run(client.workflows.from_json(picture(color, size=900)))).outputs
            assert 10_000 / 3 < output.size_bytes < 10_000 / 2
            ids.append(output.id)
        assert (await caller.post("/api/v2/jobs", referring(ids[:2]))).status == 201
        assert code(await caller.post("/api/v2/jobs", referring(ids))) == (413, "too_large")


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"content_type": "png"}, "/content_type"),
        ({"file_path": ""}, "/file_path"),
        ({"expected_hash": "sha256:1"}, "/expected_hash"),
        ({"expires_in": "3"}, "/expires_in"),
        ({"name": "a"}, "/name"),
    ],
)
async def test_what_is_wrong_with_an_upload_is_named(caller: Caller, fields: dict[str, str], word: str) -> None:
    reply = await post(caller, PICTURE, None, **fields)
    assert code(reply) == (400, "invalid_request")
    assert word in reply.document["error"]["message"]


async def test_an_upload_needs_a_file(caller: Caller) -> None:
    form = FormData({"content_type": "image/png", "file_path": "a.png"}, default_to_multipart=True)
    assert code(await caller.ask("POST", ASSETS, data=form)) == (400, "invalid_request")
    assert code(await caller.ask("POST", ASSETS, json={})) == (415, "unsupported_media_type")


async def test_two_files_are_one_too_many(caller: Caller) -> None:
    parts = [(field("file"), PICTURE), (field("file"), PICTURE)]
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert code(await caller.ask("POST", ASSETS, headers, data=multipart(*parts))) == (400, "invalid_request")


async def test_only_so_many_uploads_are_read_at_once(caller: Caller) -> None:
    begun = request("POST", ASSETS, None, Content_Type="multipart/form-data; boundary=b", Content_Length="1000")
    async with AsyncExitStack() as stack:
        for _ in range(UPLOADS):
            wire = await stack.enter_async_context(connect(caller.url))
            await wire.send(begun + b"--b\r\n")
        async with asyncio.timeout(PATIENCE):
            while (reply := await post(caller)).status != 429:
                pass  # until all of them have begun
        assert code(reply) == (429, "queue_full")
        assert reply.headers["Retry-After"] == "1"
    async with asyncio.timeout(PATIENCE):
        while (await post(caller)).status == 429:
            pass


async def test_what_is_too_large_is_refused(engine: FakeEngine) -> None:
    async with converter(engine.url, max_body=2**20, asset_bytes=1000) as caller:
        assert code(await post(caller, bytes(2**20))) == (413, "too_large")
        assert code(await post(caller, bytes(1001))) == (413, "too_large")
        assert (await post(caller, bytes(1000))).status == 201


@pytest.mark.parametrize("kept", [False, True], ids=["in memory", "in a folder"])
async def test_the_oldest_give_way_where_there_is_no_room(engine: FakeEngine, tmp_path: Path, kept: bool) -> None:
    state: dict[str, Any] = {"state_dir": tmp_path} if kept else {}
    async with converter(engine.url, asset_bytes=1000, **state) as caller:
        ids = [(await post(caller, bytes([number]) * 400)).document["id"] for number in range(3)]
        assert [(await caller.get(f"{ASSETS}/{id}/content")).status for id in ids] == [404, 200, 200]
        if kept:
            assert len(list((tmp_path / "assets").iterdir())) == 2
