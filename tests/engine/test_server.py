"""The HTTP face beyond the contract that all engines share: this engine's own nodes, routes and refusals."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from PIL import Image

from engine.executor import Executor
from engine.nodes.numbering import Numbering
from engine.nodes.registry import list_nodes
from engine.nodes.spec import Folders
from engine.server import Server, describe_features, listen
from engine.sockets import Hub
from tests.engine.graphs import make_folders, node, picture, through
from tests.engine.waiting import until
from tests.fakes.recordings import load
from tests.fakes.talker import Talker, labels, talk


@dataclass
class Engine:
    """A server in this process."""

    url: str
    folders: Folders
    executor: Executor


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    folders = make_folders(tmp_path)
    registry = list_nodes(tests=True)
    hub = Hub(describe_features(1))
    ended: list[bool] = []
    executor = Executor(
        registry, folders, hub.send, services={Numbering: Numbering()}, on_end=lambda: ended.append(True), patience=30
    )
    with executor:
        app = Server(executor, hub, registry, folders, lambda: [{"name": "none"}], ["--argument"]).make_app()
        async with listen(app, "127.0.0.1", 0) as port:
            yield Engine(f"http://127.0.0.1:{port}", folders, executor)
    assert not ended


@pytest.fixture
async def talker(engine: Engine) -> AsyncIterator[Talker]:
    async with talk(engine.url) as talker:
        yield talker


async def ask(talker: Talker, method: str, path: str, **options: Any) -> tuple[int, str, bytes]:
    """Status, content type and body."""
    async with talker.session.request(method, talker.url + path, **options) as answer:
        return answer.status, answer.content_type, await answer.read()


async def start_slow(talker: Talker, **fields: Any) -> str:
    """A prompt that runs for a minute unless it is interrupted; its id."""
    prompt_id = await talker.submit(through("TestSleep", seconds=60.0), **fields)
    while (await talker.receive())["type"] != "progress":
        pass
    return prompt_id


TROUBLE = b"500 Internal Server Error\n\nServer got itself in trouble"


NO_OBJECT = pytest.mark.parametrize(
    "body",
    [
        *("", "{nope", "null", '{"a": NaN}', '{"a": 1e999}', "\xff"),
        pytest.param("[" * 100_000, id="deep"),
        pytest.param(f'{{"a": {"9" * 5000}}}', id="long"),
    ],
)


@pytest.mark.parametrize("path", ["/queue", "/history", "/free", "/api/jobs/cancel"])
@NO_OBJECT
async def test_bodies_that_are_no_json_object(talker: Talker, path: str, body: str) -> None:
    status, _, answer = await ask(talker, "POST", path, data=body.encode("latin-1"))
    assert (status, answer) == (500, TROUBLE)


@NO_OBJECT
async def test_prompts_that_are_no_json_object_are_refused(talker: Talker, body: str) -> None:
    """Where ComfyUI answers with a plain 500, after which nobody knows what has become of the prompt."""
    status, _, answer = await ask(talker, "POST", "/prompt", data=body.encode("latin-1"))
    assert (status, json.loads(answer)["error"]["type"]) == (400, "invalid_prompt")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/api/nothing", 404),
        ("GET", "/interrupt", 404),
        ("HEAD", "/interrupt", 404),
        ("PUT", "/prompt", 405),
        ("POST", "/view", 405),
        ("HEAD", "/prompt", 200),
        ("OPTIONS", "/anything", 200),
        ("POST", "/jobs/cancel", 404),
    ],
)
async def test_paths_and_methods(talker: Talker, method: str, path: str, status: int) -> None:
    answer = await ask(talker, method, path)
    assert answer[0] == status
    assert answer[2] == (b"405: Method Not Allowed" if status == 405 else b"")


async def test_histories_want_numbers(talker: Talker) -> None:
    assert (await ask(talker, "GET", "/history?max_items=abc"))[0] == 500
    assert (await ask(talker, "GET", "/history?offset=abc"))[0] == 500


async def test_a_body_has_a_limit(talker: Talker) -> None:
    status, _, answer = await ask(talker, "POST", "/prompt", data=io.BytesIO(b" " * ((100 << 20) + 1)))
    assert status == 413
    assert answer.startswith(b"Maximum request body size 104857600 exceeded")


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:8188", "http://127.0.0.1:8188", 200),
        ("127.0.0.1:8188", "http://evil.example", 403),
        ("localhost:8188", "http://localhost:3000", 403),
        ("localhost", "http://[broken", 403),
        ("localhost", "null", 200),
        ("[::1]:8188", "http://evil.example", 403),
        ("comfy.example", "http://evil.example", 200),
    ],
)
async def test_pages_of_other_sites(talker: Talker, host: str, origin: str, status: int) -> None:
    headers = {"Host": host, "Origin": origin}
    assert (await ask(talker, "GET", "/prompt", headers=headers))[0] == status


async def test_features_and_system(talker: Talker) -> None:
    assert await talker.get("/features") == {
        "supports_preview_metadata": True,
        "max_upload_size": 100 << 20,
        "max_concurrent_prompts": 1,
    }
    stats = await talker.get("/system_stats")
    assert stats["devices"] == [{"name": "none"}]
    assert stats["system"]["argv"] == ["--argument"]
    assert stats["system"]["ram_total"] >= stats["system"]["ram_free"] > 0


async def test_nodes_as_comfyui_describes_them(talker: Talker) -> None:
    info = (await talker.get("/object_info/SaveImage"))["SaveImage"]
    assert info["input"]["hidden"] == {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
    assert info["input_order"] == {
        "required": ["images", "filename_prefix"],
        "hidden": ["prompt", "extra_pnginfo"],
    }
    assert (info["output"], info["output_node"]) == ([], True)
    everything = await talker.get("/object_info")
    assert everything["LoadImage"]["input"]["required"]["image"] == [[], {"image_upload": True}]
    assert everything["TestMakeListNode"]["output_is_list"] == [True]
    assert "optional" in everything["TestSleep"]["input"]
    assert "output_tooltips" in everything["CheckpointLoaderSimple"]


async def test_models(engine: Engine, talker: Talker) -> None:
    checkpoints = engine.folders.models / "checkpoints"
    (checkpoints / "sd" / "unet").mkdir(parents=True)
    (checkpoints / "sd" / "model_index.json").touch()
    (checkpoints / "sd" / "unet" / "weights.safetensors").touch()
    (checkpoints / "old").mkdir()
    header = json.dumps({"__metadata__": {"made": "here"}}).encode()
    (checkpoints / "old" / "one.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (checkpoints / "bad.safetensors").write_bytes(b"\xff" * 20)
    (engine.folders.models / "embeddings").mkdir()
    (engine.folders.models / "embeddings" / "style.pt").touch()
    assert await talker.get("/models") == ["checkpoints", "embeddings"]
    assert await talker.get("/models/checkpoints") == ["bad.safetensors", "demo", "old/one.safetensors", "sd"]
    assert (await ask(talker, "GET", "/models/nothing"))[0] == 404
    assert await talker.get("/embeddings") == ["style"]
    assert await talker.get("/extensions") == []
    assert await talker.get("/view_metadata/checkpoints?filename=old/one.safetensors") == {"made": "here"}
    for path in (
        "checkpoints?filename=bad.safetensors",
        "checkpoints?filename=no.safetensors",
        "x?filename=a.safetensors",
    ):
        assert (await ask(talker, "GET", f"/view_metadata/{path}"))[0] == 404
    assert (await ask(talker, "GET", "/view_metadata/checkpoints?filename=../../x.safetensors"))[0] == 404


async def test_cancelling_several(talker: Talker) -> None:
    slow = await start_slow(talker)
    waiting = await talker.submit(picture(1))
    answer = await ask(talker, "POST", "/api/jobs/cancel", json={"job_ids": [waiting, slow, "nobody", 5]})
    assert json.loads(answer[2]) == {"cancelled": True}
    assert labels(await talker.follow(slow))[-2:] == ["execution_interrupted", "end"]
    answer = await ask(talker, "POST", f"/api/jobs/{waiting}/cancel")
    assert json.loads(answer[2]) == {"cancelled": False}


async def test_interrupts_without_a_name(talker: Talker) -> None:
    for body in (b"", b"{}", b"junk"):
        slow = await start_slow(talker)
        assert (await ask(talker, "POST", "/interrupt", data=body))[0] == 200
        assert labels(await talker.follow(slow))[-2:] == ["execution_interrupted", "end"]
    assert (await ask(talker, "POST", "/interrupt", data=b"[]"))[0] == 500
    assert (await ask(talker, "POST", "/interrupt", data=b'{"prompt_id": 5}'))[0] == 200


async def test_a_full_queue(engine: Engine, talker: Talker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.executor, "_max_pending", 0)
    status, answer = await talker.post(picture())
    assert (status, answer["error"]["type"]) == (429, "queue_full")


async def test_masks(engine: Engine, talker: Talker) -> None:
    Image.new("RGB", (4, 4), (10, 20, 30)).save(engine.folders.input / "up.png")
    mask = Image.new("RGBA", (4, 4), (0, 0, 0, 100))
    buffer = io.BytesIO()
    mask.save(buffer, "png")

    async def upload(name: str, reference: str | None) -> tuple[int, Any]:
        form = aiohttp.FormData({} if reference is None else {"original_ref": reference})
        form.add_field("image", buffer.getvalue(), filename=name, content_type="image/png")
        status, kind, body = await ask(talker, "POST", "/upload/mask", data=form)
        return status, json.loads(body) if kind == "application/json" else body

    answer = await upload("mask.png", '{"filename": "up.png", "type": "input"}')
    assert answer == (200, {"name": "mask.png", "subfolder": "", "type": "input"})
    with Image.open(engine.folders.input / "mask.png") as image:
        assert image.getpixel((0, 0)) == (10, 20, 30, 100)
    for reference in (
        '{"filename": "no.png"}',
        '{"filename": "../x", "type": "input"}',
        '{"filename": "a", "type": "x"}',
    ):
        assert (await upload("other.png", reference))[0] == 200
        assert not (engine.folders.input / "other.png").exists()
    for wrong in (None, "junk", "[]", "{}"):
        assert (await upload("other.png", wrong))[0] == 500
    _, _, alpha = await ask(talker, "GET", "/view?filename=mask.png&type=input&channel=a")
    with Image.open(io.BytesIO(alpha)) as image:
        assert image.getpixel((0, 0)) == (0, 0, 0, 100)
    _, _, colours = await ask(talker, "GET", "/view?filename=mask.png&type=input&channel=rgb")
    with Image.open(io.BytesIO(colours)) as image:
        assert (image.mode, image.getpixel((0, 0))) == ("RGB", (10, 20, 30))


async def test_names_of_uploads(engine: Engine, talker: Talker) -> None:
    for name in ("../up.png", "a/b/up.png"):
        answer = await talker.upload(b"x", name)
        assert (engine.folders.input / answer["name"]).read_bytes() == b"x"
    for status, fields, name in ((400, {}, ""), (500, {"type": "models"}, "x"), (400, {"subfolder": "/etc"}, "x")):
        form = aiohttp.FormData(fields)
        form.add_field("image", b"x", filename=name)
        assert (await ask(talker, "POST", "/upload/image", data=form))[0] == status


async def test_ways_to_look_at_a_file(engine: Engine, talker: Talker) -> None:
    Image.new("RGBA", (4, 4), (10, 20, 30, 40)).save(engine.folders.input / "a.png")
    (engine.folders.output / "page.html").write_text("<script>")
    (engine.folders.output / "note.txt").write_text("text")
    status, kind, body = await ask(talker, "GET", "/view?filename=a.png%20%5Binput%5D&preview=jpeg")
    assert (status, kind, body[:2]) == (200, "image/jpeg", b"\xff\xd8")
    status, kind, _ = await ask(talker, "GET", "/view?filename=a.png&type=input&preview=bogus;x")
    assert (status, kind) == (200, "image/webp")
    assert (await ask(talker, "GET", "/view?filename=page.html"))[1] == "application/octet-stream"
    assert (await ask(talker, "GET", "/view?filename=note.txt"))[1] == "text/plain"
    assert (await ask(talker, "GET", "/view?filename=note.txt&preview=webp"))[0] == 400
    assert (await ask(talker, "GET", "/view?filename=note.txt&channel=a"))[0] == 400
    async with talker.session.get(f"{talker.url}/view?filename=note.txt") as answer:
        etag = answer.headers["Etag"]
        assert answer.headers["Content-Disposition"] == 'filename="note.txt"'
    assert (await ask(talker, "GET", "/view?filename=note.txt", headers={"If-None-Match": etag}))[0] == 304


async def test_junk_in_ui_reaches_nobody_and_the_next_prompt_works(talker: Talker) -> None:
    for kind in ("NaN in ui", "object in ui", "endless text"):
        prompt_id, heard = await talker.run(through("TestReturnJunk", kind=kind))
        assert labels(heard)[-2:] == ["execution_error", "end"]
        assert (await talker.record(prompt_id))["status"]["status_str"] == "error"
    assert labels((await talker.run(picture(5)))[1])[-2:] == ["execution_success", "end"]


async def test_what_would_end_the_worker_of_comfyui_is_refused(talker: Talker) -> None:
    names = ["bad-node-in-unused-part", "extra-data-null", "link-to-missing-node-under-unknown-input"]
    for name in [*names, "value-looks-like-link"]:
        body = next(row["body"] for row in load(f"14-worker-death-{name}") if row.get("path") == "/prompt")
        text = json.dumps(body).replace("TestSleepX", "TestSleep")
        async with talker.session.post(f"{talker.url}/prompt", data=text) as answer:
            assert answer.status == 400, name
            assert (await answer.json())["error"]["type"], name
    status, _ = await talker.post({"1": picture()["1"], "2": node("TestExit", value=["1", 0], code=3)})
    assert status == 400
    assert labels((await talker.run(picture(6)))[1])[-2:] == ["execution_success", "end"]


async def test_two_prompts_of_one_id(talker: Talker) -> None:
    prompt_id = str(uuid4())
    slow = await start_slow(talker, prompt_id=prompt_id, number=5)
    status, answer = await talker.post(picture(), prompt_id=prompt_id, number=5)
    assert (status, answer["error"]["type"]) == (400, "invalid_prompt_id")
    await talker.tell("/interrupt", {"prompt_id": slow})
    await talker.follow(slow)


def spoken(messages: list[Any]) -> list[Any]:
    """Messages without what differs from run to run: ids of prompts, times, random names, number of steps."""
    kept: list[Any] = []
    for message in messages:
        if isinstance(message, dict) and message["type"] != "status":
            data = {k: v for k, v in message["data"].items() if k not in ("prompt_id", "timestamp", "traceback")}
            if message["type"] == "progress_state":
                data = {node_id: state["state"] for node_id, state in message["data"]["nodes"].items()}
            elif message["type"] == "progress":
                data = {"node": data["node"]}
            entry = (message["type"], json.dumps(data, sort_keys=True))
            if not (kept and kept[-1] == entry) and not (entry[0] == "progress" and entry in kept[-2:]):
                kept.append(entry)
    return kept


@pytest.mark.parametrize("name", ["01", "04"])
async def test_messages_are_those_of_the_recording(talker: Talker, name: str) -> None:
    """Each recorded prompt of client A is sent again; message for message, the same comes back."""
    rows = load(name)
    for row, answer in pairwise(row for row in rows if row["kind"].startswith("http")):
        if row.get("path") != "/prompt" or row["body"].get("client_id") != "client-a" or answer["status"] != 200:
            continue
        prompt_id = answer["body"]["prompt_id"]
        theirs = [r["msg"] for r in rows if r["kind"] == "ws_text" and r["msg"]["data"].get("prompt_id") == prompt_id]
        body = row["body"] | {"client_id": talker.client_id}
        async with talker.session.post(f"{talker.url}/prompt", json=body) as response:
            ours = await talker.follow((await response.json())["prompt_id"])
        assert spoken(ours) == spoken(theirs)


async def test_messages_about_the_queue(talker: Talker) -> None:
    _, heard = await talker.run(picture(7))
    remaining = [m["data"]["status"]["exec_info"]["queue_remaining"] for m in heard if m["type"] == "status"]
    assert remaining == [1, 1, 0]
    assert [m["type"] for m in heard[:3]] == ["status", "status", "execution_start"]
    assert [m["type"] for m in heard[-3:]] == ["execution_success", "status", "executing"]


async def test_who_leaves_is_forgotten(engine: Engine) -> None:
    async with talk(engine.url) as talker:
        slow = await start_slow(talker)
    async with talk(engine.url) as other:
        await other.tell("/interrupt", {"prompt_id": slow})
        await until(lambda: engine.executor.remaining == 0)
        assert (await other.record(slow))["status"]["status_str"] == "error"
