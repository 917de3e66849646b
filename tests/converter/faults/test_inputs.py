"""Inputs that come with a request: staged exactly as they are, and nothing that only looks like one is touched."""

import asyncio
import base64
import gc
import json
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData

from converter.errors import CannotStart
from tests.converter.faults.graphs import loaded, picture, text
from tests.converter.faults.phases import data_uri
from tests.converter.faults.replica import Caller, Reply, converter
from tests.fakes.bucket import serve_bucket
from tests.fakes.engine import FakeEngine
from tests.fakes.origin import Origin
from tests.fakes.pictures import encode, solid

RED, CYAN = 0xFF0000, 0x00FFFF
FILE = encode(solid(RED, 8, 8)[0])


async def send_parts(caller: Caller, document: object, **parts: bytes) -> Reply:
    """The document as the first part of a form, and files beside it."""
    form = FormData()
    form.add_field("request", json.dumps(document), content_type="application/json")
    for name, data in parts.items():
        form.add_field(name, data, filename=name, content_type="image/png")
    return await caller.ask("POST", "/v1/run", data=form)


@pytest.mark.parametrize("value", [data_uri(RED), base64.b64encode(FILE).decode()])
async def test_inputs_inside_the_workflow_arrive_as_they_are(engine: FakeEngine, value: str) -> None:
    async with converter(engine.url) as caller:
        assert (await caller.run(loaded(value))).colors == [CYAN]
        [upload] = engine.uploads
        assert engine.folders.locate(upload["name"], kind="input", subfolder=upload["subfolder"]).read_bytes() == FILE


async def test_inputs_beside_the_workflow_arrive_as_they_are(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        graph = loaded("")
        graph["1"]["inputs"]["image"] = {"part": "photo"}
        assert (await send_parts(caller, {"workflow": graph}, photo=FILE)).colors == [CYAN]
        missing = await send_parts(caller, {"workflow": graph})
        assert (missing.status, missing.code) == (422, "invalid_input")


async def test_the_same_bytes_are_there_once(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        for _ in range(3):
            assert (await caller.run(loaded(data_uri(RED)))).colors == [CYAN]
        assert len(engine.uploads) == 1


async def test_in_a_shared_folder_nothing_is_left(engine: FakeEngine) -> None:
    folder = engine.folders.root / "input"
    async with converter(engine.url, input_dir=str(folder)) as caller:
        for _ in range(2):
            assert (await caller.run(loaded(data_uri(RED)))).colors == [CYAN]
        await caller.until_empty()
        assert [path for path in folder.rglob("*") if path.is_file()] == []


async def test_a_file_that_the_engine_has_is_named_as_it_is(engine: FakeEngine) -> None:
    (engine.folders.root / "input" / "mine.png").write_bytes(FILE)
    async with converter(engine.url) as caller:
        assert (await caller.run(loaded("mine.png"))).colors == [CYAN]
        assert engine.uploads == []


@pytest.mark.parametrize(
    "value", ["/etc/passwd", "../../secret.png", "http://169.254.169.254/latest", "data:image/png;base64,!!!"]
)
async def test_what_leads_elsewhere_is_refused_before_anything_is_done(engine: FakeEngine, value: str) -> None:
    async with converter(engine.url) as caller:
        reply = await caller.run(loaded(value))
        assert (reply.status, reply.code) == (422, "invalid_input")
        assert reply.document["node_id"] == "1"
        assert engine.uploads == []
        assert len(engine.posted_prompts) == 1
        assert not caller.tickets


@pytest.mark.parametrize("words", ["http://127.0.0.1:1/x.png", "data:image/png;base64,AAAA", "/etc/passwd"])
async def test_a_text_that_looks_like_an_input_stays_a_text(engine: FakeEngine, words: str) -> None:
    async with converter(engine.url) as caller:
        [output] = (await caller.run(text(words))).document["outputs"]
        assert output["text"] == words
        assert engine.uploads == []


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin() as origin:
        origin.files["/red.png"] = FILE
        yield origin


async def test_a_url_is_fetched_from_where_the_operator_allows_it(engine: FakeEngine, origin: Origin) -> None:
    origin.places["/moved"] = (302, "/red.png")
    async with converter(engine.url, fetch_origins=origin.url) as caller:
        assert (await caller.run(loaded(f"{origin.url}/moved"))).colors == [CYAN]
        [upload] = engine.uploads
        assert engine.folders.locate(upload["name"], kind="input", subfolder=upload["subfolder"]).read_bytes() == FILE
    async with converter(engine.url) as caller:
        reply = await caller.run(loaded(f"{origin.url}/red.png"))
        assert (reply.status, reply.code) == (422, "invalid_input")
        assert "it leads to an address that is not public (CONVERTER_FETCH_ORIGINS" in reply.document["detail"]
        assert len(origin.requests) == 2


@pytest.mark.parametrize("mood", ["short", "stalling", "endless", "404", "garbage"])
async def test_a_bad_download_is_the_callers_fault_and_touches_no_other_job(
    engine: FakeEngine, origin: Origin, mood: str
) -> None:
    settings: dict[str, Any] = {"fetch_origins": origin.url, "fetch_timeout": 1.0, "max_input": 2**22}
    async with converter(engine.url, engine_depth=1, **settings) as caller:
        bad = caller.start(loaded(f"{origin.url}/{mood}/red.png?signature=hush"))
        assert (await caller.run(loaded(f"{origin.url}/red.png"))).colors == [CYAN]
        reply = await bad
        assert (reply.status, reply.code) == (422, "invalid_input")
        assert reply.document["node_id"] == "1"
        assert b"hush" not in reply.body
        assert len(engine.uploads) == 1


async def test_who_leaves_while_an_input_is_fetched_leaves_nothing(engine: FakeEngine, origin: Origin) -> None:
    async with converter(engine.url, fetch_origins=origin.url) as caller:
        caller.start(loaded(f"{origin.url}/silent"))
        await caller.until(lambda: origin.requests)
        await caller.leave()
        await caller.until_empty()
        assert engine.uploads == []


async def test_everything_that_can_not_be_fetched_is_named_at_once(engine: FakeEngine, origin: Origin) -> None:
    async with converter(engine.url, fetch_origins=origin.url) as caller:
        for first, retry in (("404", "never"), ("503", "same")):
            graph = loaded(f"{origin.url}/{first}") | {"9": loaded(f"{origin.url}/500")["1"]}
            reply = await caller.run(graph)
            assert (reply.status, reply.code, reply.document["retry"]) == (422, "invalid_input", retry)
            assert reply.headers.get("x-should-retry") == ("false" if retry == "never" else None)
            assert [place["node_id"] for place in reply.document["inputs"]] == ["1", "9"]


async def test_an_input_that_could_not_be_fetched_this_time_does_not_spoil_its_key(
    engine: FakeEngine, origin: Origin
) -> None:
    async with converter(engine.url, fetch_origins=origin.url) as caller:
        key = {"Idempotency-Key": "again"}
        origin.places["/now"] = (503, "")
        first = await caller.run(loaded(f"{origin.url}/now"), key)
        assert (first.code, first.document["retry"]) == ("invalid_input", "same")
        origin.places["/now"] = (302, "/red.png")
        assert (await caller.run(loaded(f"{origin.url}/now"), key)).colors == [CYAN]


async def test_an_object_is_read_from_the_places_that_the_operator_names(engine: FakeEngine, tmp_path: Path) -> None:
    with serve_bucket() as bucket:
        bucket.client.put_object(Bucket="results", Key="in/red.png", Body=FILE)
        options = ", ".join(f"{name} = {json.dumps(value)}" for name, value in bucket.options.items())
        file = tmp_path / "sources.toml"
        file.write_text(f'[photos]\nurl = "s3://results/in"\noptions = {{ {options} }}\n')
        async with converter(engine.url, sources_file=str(file)) as caller:
            assert (await caller.run(loaded("s3://results/in/red.png"))).colors == [CYAN]
            missing = await caller.run(loaded("s3://results/in/none.png"))
            elsewhere = await caller.run(loaded("s3://results/red.png"))
            assert [missing.code, elsewhere.code] == ["invalid_input"] * 2
            assert b"hidden-secret" not in missing.body
    async with converter(engine.url) as caller:
        reply = await caller.run(loaded("s3://results/in/red.png"))
        assert reply.code == "invalid_input"
        assert "there is none here that inputs may be read from" in reply.document["detail"]


async def test_sources_that_can_not_be_used_stop_the_start(tmp_path: Path) -> None:
    file = tmp_path / "sources.toml"
    file.write_text('[photos]\nurl = "https://example.com/"\n')
    with pytest.raises(CannotStart, match="photos: url must be text such as s3://"):
        async with converter("http://127.0.0.1:1", sources_file=str(file)):
            pass


async def test_what_the_engine_declares_as_an_upload_is_fetched(engine: FakeEngine, origin: Origin) -> None:
    async with converter(engine.url, fetch_origins=origin.url) as caller:
        graph = loaded("") | {"1": {"class_type": "CustomLoader", "inputs": {"clip": f"{origin.url}/red.png"}}}
        assert (await caller.run(graph)).colors == [CYAN]


async def test_a_list_of_pictures_becomes_a_folder(engine: FakeEngine, origin: Origin) -> None:
    folder = engine.folders.root / "input"
    async with converter(engine.url, fetch_origins=origin.url, input_dir=str(folder)) as caller:
        pictures = [data_uri(CYAN), f"{origin.url}/red.png"]
        graph = loaded("") | {"1": {"class_type": "VHS_LoadImages", "inputs": {"directory": pictures}}}
        assert (await caller.run(graph)).colors == [RED, CYAN]
        await caller.until_empty()
        assert [path.name for path in folder.rglob("*")] == ["converter"]


async def test_an_engine_that_comes_back_without_its_files_is_not_the_callers_fault(engine: FakeEngine) -> None:
    """The same request may be sent again, and has its inputs uploaded again."""
    async with converter(engine.url) as caller:
        engine.hold("ImageInvert")
        running = caller.start(loaded(data_uri(RED)))
        await engine.until_held()
        await engine.crash()
        shutil.rmtree(engine.folders.root / "input" / "converter")
        engine.release()
        await engine.restart()
        reply = await running
        assert (reply.status, reply.code, reply.document["retry"]) == (502, "engine_failed", "same")
        assert "may have lost the inputs" in reply.document["detail"]
        await caller.until_ready()
        assert (await caller.run(loaded(data_uri(RED)))).colors == [CYAN]


async def test_parts_may_be_the_pictures_of_a_list(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        parts = [{"part": "one"}, {"part": "two"}, {"part": "one"}]
        graph = loaded("") | {"1": {"class_type": "VHS_LoadImages", "inputs": {"directory": parts}}}
        blue = encode(solid(0x0000FF, 8, 8)[0])
        assert (await send_parts(caller, {"workflow": graph}, one=FILE, two=blue)).colors == [CYAN, 0xFFFF00, CYAN]
        stray = await send_parts(caller, {"workflow": graph}, one=FILE, two=blue, three=blue)
        assert (stray.status, stray.code) == (400, "invalid_request")


def count_nameless() -> int:
    """Open files of this process that have no name."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            count += str(link.readlink()).endswith("(deleted)")
    return count


@pytest.mark.parametrize("accepted", [True, False])
async def test_a_large_part_is_no_open_file_any_more_when_its_request_has_ended(
    engine: FakeEngine, accepted: bool
) -> None:
    before = count_nameless()
    graph = loaded("")
    graph["1"]["inputs"]["image"] = {"part": "photo" if accepted else "other"}
    async with converter(engine.url) as caller:
        engine.faults.held_path = "/upload"
        form = send_parts(caller, {"workflow": graph, "id": "kept"}, photo=FILE + bytes(2**19))
        request = asyncio.create_task(form)
        if accepted:
            await engine.until(lambda: engine.asked("POST", "/upload"))
            assert count_nameless() > before
        engine.faults.held_path = ""
        engine.release()
        assert (await request).status == (200 if accepted else 400)
        await caller.until_empty()
        gc.collect()
        assert count_nameless() == before


async def test_a_disk_without_room_is_an_error_of_the_service(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with converter(engine.url) as caller:
        graph = loaded("")
        graph["1"]["inputs"]["image"] = {"part": "photo"}
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        reply = await send_parts(caller, {"workflow": graph}, photo=FILE + bytes(2**19))
        assert (reply.status, reply.code) == (500, "internal")
        assert "no room" in reply.document["detail"]
        assert str(tmp_path) not in reply.document["detail"]
        assert "a part of a request was not kept" in caplog.text
        assert (await send_parts(caller, {"workflow": graph}, photo=FILE)).colors == [CYAN]


async def test_orders_that_are_being_staged_count(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=2) as caller:
        engine.faults.held_path = "/upload"
        tasks = [caller.start(loaded(data_uri(color))) for color in (RED, CYAN)]
        await engine.until(lambda: len(engine.asked("POST", "/upload")) == 2)
        probe = await caller.get("/readyz")
        assert (probe.status, probe.document["state"]) == (503, "BUSY")
        assert (await caller.run(picture(1))).code == "queue_full"
        engine.faults.held_path = ""
        engine.release()
        assert [(await task).colors for task in tasks] == [[CYAN], [RED]]


async def test_one_of_two_orders_uploads_what_both_have(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.faults.held_path = "/upload"
        tasks = [caller.start(loaded(data_uri(RED))) for _ in range(2)]
        await engine.until(lambda: engine.asked("POST", "/upload"))
        await caller.until(lambda: caller.tickets == 2)
        engine.faults.held_path = ""
        engine.release()
        assert [(await task).colors for task in tasks] == [[CYAN]] * 2
        assert len(engine.uploads) == 1


async def test_who_is_staged_holds_up_nobody(engine: FakeEngine) -> None:
    async with converter(engine.url, engine_depth=1) as caller:
        engine.faults.held_path = "/upload"
        slow = caller.start(loaded(data_uri(RED)))
        await engine.until(lambda: engine.asked("POST", "/upload"))
        assert (await caller.run(picture(1))).colors == [1]
        engine.faults.held_path = ""
        engine.release()
        assert (await slow).colors == [CYAN]


async def test_a_job_whose_input_the_engine_does_not_take_is_known_to_have_failed(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError

    async with converter(engine.url) as caller:
        monkeypatch.setattr(engine.folders, "store_upload", refuse)
        accepted = await caller.run(loaded(data_uri(RED)), {"Prefer": "respond-async"}, id="unlucky")
        assert accepted.status == 202
        failed = await caller.until_job("unlucky", "failed")
        assert failed["error"]["code"] == "engine_failed"


@pytest.mark.parametrize("job_id", ["../../x", "a/b", "", ".hidden", "x" * 65, "a b"])
async def test_ids_that_could_lead_anywhere_are_refused(engine: FakeEngine, job_id: str) -> None:
    async with converter(engine.url) as caller:
        reply = await caller.run(picture(1), id=job_id)
        assert (reply.status, reply.code) == (400, "invalid_request")
        assert reply.document["problems"][0]["pointer"] == "/id"


async def test_secrets_reach_the_engine_and_nobody_else(engine: FakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with converter(engine.url) as caller:
        secrets = {"api_key_comfy_org": "hush-hush", "auth_token_comfy_org": "hush-too"}
        reply = await caller.run(picture(1), id="quiet", extra_data=secrets)
        sent = engine.asked("POST", "/prompt")[-1].body["extra_data"]
        assert secrets.items() <= sent.items()
        failed = await caller.run(picture(1, save="NoSuchNode"), extra_data=secrets)
        kept = await caller.get("/v1/jobs/quiet")
        told = reply.body + failed.body + kept.body + (await caller.get("/status")).body
        assert b"hush" not in told
        assert "hush" not in caplog.text


@pytest.mark.parametrize("accept", ["application/json, text/plain, */*", "*/*", "APPLICATION/JSON", None])
async def test_usual_headers_of_clients_are_understood(engine: FakeEngine, accept: str | None) -> None:
    async with converter(engine.url) as caller:
        headers = {"Content-Type": "application/json; charset=utf-8"} | ({"Accept": accept} if accept else {})
        body = json.dumps({"workflow": picture(1)}).encode()
        assert (await caller.ask("POST", "/v1/run", headers, data=body)).colors == [1]


async def test_outputs_in_subfolders_come_back(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        reply = await caller.run(picture(7, prefix="deep/er/still"))
        assert reply.colors == [7]
        assert reply.document["outputs"][0]["name"] == "still_00001_.png"


async def test_an_input_that_can_not_be_removed_is_reported_and_harms_nobody(
    engine: FakeEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "converter").write_text("a file where the engine's folder should be")
    async with converter(engine.url, input_dir=str(tmp_path)) as caller:
        assert (await caller.run(loaded(data_uri(RED)))).colors == [CYAN]
        await caller.until_empty()
        assert "a staged input was not removed" in caplog.text
        assert (await caller.run(picture(1))).colors == [1]
