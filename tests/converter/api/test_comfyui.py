"""The passthrough, spoken as ComfyUI's own example speaks: websocket-client and urllib, nothing else."""

import asyncio
import json
import struct
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import pytest
import requests
import websocket
from aiohttp import FormData
from websocket import WebSocket

from converter.api.comfyui.dialect import DESCRIPTIONS, UPLOADS
from converter.app import _drain
from converter.core.comfyui import explain
from converter.errors import Fault
from tests.converter.api.exchange import connect, request
from tests.converter.api.renderings import DETAIL, FAULTS, make
from tests.converter.faults.graphs import Graph, passed_through, picture, text
from tests.converter.faults.replica import PATIENCE, Caller, converter
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of, encode, solid

T = TypeVar("T")


class Client:
    """ComfyUI's `websockets_api_example`, pointed at another address."""

    def __init__(self, address: str, headers: dict[str, str] | None = None) -> None:
        self.address = address
        self.headers = headers or {}
        self.id = str(uuid.uuid4())
        self.socket: Any = WebSocket()
        self.told: list[Any] = []

    def connect(self) -> "Client":
        header = [f"{name}: {value}" for name, value in self.headers.items()]
        self.socket.connect(f"ws://{self.address[7:]}/ws?clientId={self.id}", header=header, timeout=PATIENCE)
        return self

    def ask(self, path: str, document: Any = None) -> Any:
        data = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(self.address + path, data=data, headers=self.headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            body = response.read()
        return json.loads(body) if body else None

    def queue_prompt(self, graph: Graph, **more: Any) -> str:
        return str(self.ask("/prompt", {"prompt": graph, "client_id": self.id, **more})["prompt_id"])

    def hear(self) -> Any:
        out = self.socket.recv()
        self.told.append(json.loads(out) if isinstance(out, str) else out)
        return self.told[-1]

    def follow(self, prompt_id: str) -> None:
        """Everything that is told until the prompt has ended."""
        while True:
            message = self.hear()
            if isinstance(message, dict) and message["type"] == "executing":
                data = message["data"]
                if data["node"] is None and data["prompt_id"] == prompt_id:
                    return

    def get_images(self, graph: Graph) -> dict[str, list[bytes]]:
        prompt_id = self.queue_prompt(graph)
        self.follow(prompt_id)
        found = {}
        history = self.ask(f"/history/{prompt_id}")[prompt_id]
        for node_id, output in history["outputs"].items():
            found[node_id] = [self.view(image) for image in output.get("images", ())]
        return found

    def view(self, image: dict[str, str]) -> bytes:
        request = urllib.request.Request(f"{self.address}/view?{urllib.parse.urlencode(image)}", headers=self.headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return bytes(response.read())

    def kinds(self) -> list[str]:
        return [message["type"] if isinstance(message, dict) else "picture" for message in self.told]

    def close(self) -> None:
        self.socket.close()
        self.socket.shutdown()  # which the first leaves open if the server was first


async def call(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    return await asyncio.to_thread(function, *arguments, **options)


async def refusal(function: Callable[..., Any], *arguments: Any) -> tuple[int, Any]:
    """Status and document of a call that fails."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        await call(function, *arguments)
    with caught.value as answer:
        return answer.code, json.load(answer) | {"headers": answer.headers}


@pytest.fixture
async def caller(engine: FakeEngine) -> AsyncIterator[Caller]:
    async with converter(engine.url, comfy_passthrough=True, dialects="none") as caller:
        yield caller


@pytest.fixture
async def client(caller: Caller) -> AsyncIterator[Client]:
    client = Client(caller.url)
    await call(client.connect)
    yield client
    await call(client.close)


def colors(found: dict[str, list[bytes]]) -> dict[str, list[int]]:
    return {node: [color_of(image) for image in images] for node, images in found.items()}


async def test_the_example_gets_its_pictures(client: Client) -> None:
    assert colors(await call(client.get_images, picture(0x123456, batch=2))) == {"2": [0x123456, 0x123456]}
    kinds = client.kinds()
    assert kinds[0] == "status"
    order = [kind for kind in kinds if kind not in ("status", "executing", "progress", "picture")]
    assert order == ["execution_start", "execution_cached", "executed", "execution_success"]
    assert client.told[0]["data"]["sid"] == client.id


async def test_under_the_prefix_it_works_beside_comfyui_api(engine: FakeEngine) -> None:
    async with converter(engine.url, comfy_passthrough=True, dialects="comfyui-api") as caller:
        client = Client(f"{caller.url}/comfy")
        await call(client.connect)
        assert colors(await call(client.get_images, picture(5))) == {"2": [5]}
        await call(client.close)
        reply = await caller.post("/prompt", {"prompt": picture(6)})
        assert reply.document["filenames"], "without the prefix comfyui-api speaks"
        assert (await caller.get("/history")).status == 404


async def test_it_is_off_unless_it_is_wanted(engine: FakeEngine) -> None:
    async with converter(engine.url, dialects="none") as caller:
        for path in ("/comfy/queue", "/queue", "/ws"):
            assert (await caller.get(path)).status == 404


async def test_previews_are_told_as_they_come(client: Client, engine: FakeEngine) -> None:
    engine.hold("SaveImage")
    prompt_id = await call(client.queue_prompt, passed_through("TestPreview", steps=3))
    await engine.until_held()
    while "picture" not in client.kinds():
        await call(client.hear)
    assert struct.unpack(">II", client.told[-1][:8]) == (1, 1)
    engine.release()
    await call(client.follow, prompt_id)
    nodes = [m["data"]["node"] for m in client.told if isinstance(m, dict) and m["type"] == "executing"]
    assert nodes[-2:] == ["2", None]


async def test_pictures_that_are_only_sent_come_over_the_websocket(client: Client) -> None:
    graph = picture(0x00FF00, save="SaveImageWebsocket")
    prompt_id = await call(client.queue_prompt, graph)
    await call(client.follow, prompt_id)
    [frame] = [message for message in client.told if isinstance(message, bytes)]
    assert struct.unpack(">II", frame[:8]) == (1, 2)
    assert color_of(frame[8:]) == 0x00FF00
    before = client.told[client.told.index(frame) - 1]
    assert (before["type"], before["data"]["node"]) == ("executing", "2")


async def test_texts_are_in_the_history(client: Client) -> None:
    prompt_id = await call(client.queue_prompt, text("some words"))
    await call(client.follow, prompt_id)
    entry = (await call(client.ask, f"/history/{prompt_id}"))[prompt_id]
    assert entry["outputs"] == {"2": {"text": ["some words"]}}
    assert entry["status"]["status_str"] == "success"
    assert [message[0] for message in entry["status"]["messages"]][-1] == "execution_success"


async def test_what_the_engine_refuses_is_400_in_its_shape(client: Client) -> None:
    graph = picture(5)
    graph["2"]["inputs"] = {}
    status, document = await refusal(client.queue_prompt, graph)
    assert status == 400
    assert document["error"]["type"] == "prompt_outputs_failed_validation"
    assert document["node_errors"]["2"]["errors"][0]["extra_info"]["input_name"]
    assert document["node_errors"]["2"]["class_type"] == "SaveImage"
    assert await call(client.ask, "/history") == {}


async def test_a_node_that_fails_is_told(client: Client) -> None:
    prompt_id = await call(client.queue_prompt, passed_through("TestRaise", kind="ValueError"))
    await call(client.follow, prompt_id)
    [error] = [m["data"] for m in client.told if isinstance(m, dict) and m["type"] == "execution_error"]
    assert (error["node_id"], error["node_type"], error["prompt_id"]) == ("9", "TestRaise", prompt_id)
    entry = (await call(client.ask, f"/history/{prompt_id}"))[prompt_id]
    assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("error", False)


async def test_uploads_are_found_by_their_names(client: Client, engine: FakeEngine) -> None:
    def send(name: str, color: int, **fields: str) -> dict[str, str]:
        files = {"image": (name, encode(solid(color)[0]), "image/png")}
        answer = requests.post(f"{client.address}/upload/image", files=files, data=fields, timeout=PATIENCE)
        return dict(answer.json())

    assert await call(send, "a.png", 0xFF0000) == {"name": "a.png", "subfolder": "", "type": "input"}
    assert (await call(send, "a.png", 0xFF0000))["name"] == "a.png"
    assert (await call(send, "a.png", 0x00FF00))["name"] == "a (1).png"
    assert (await call(send, "a.png", 0x0000FF, subfolder="mine"))["subfolder"] == "mine"
    for name, color in (("a.png", 0x00FFFF), ("a (1).png", 0xFF00FF), ("mine/a.png", 0xFFFF00)):
        graph = {
            "1": {"class_type": "LoadImage", "inputs": {"image": name}},
            "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
            "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
        }
        assert colors(await call(client.get_images, graph)) == {"3": [color]}
    assert color_of(await call(client.view, {"filename": "a.png", "type": "input"})) == 0xFF0000


async def test_files_are_sent_as_what_does_nothing_in_a_browser(client: Client, caller: Caller) -> None:
    large = b"<html>" + bytes(2**19)
    await caller.ask("POST", "/upload/image", data=_form(large))
    prompt_id = await call(client.queue_prompt, picture(5))
    await call(client.follow, prompt_id)
    record = (await call(client.ask, f"/history/{prompt_id}"))[prompt_id]
    [made] = record["outputs"]["2"]["images"]
    for query in ("filename=a.png&type=input", urllib.parse.urlencode(made)):
        reply = await caller.get(f"/view?{query}")
        assert (reply.status, reply.headers["X-Content-Type-Options"]) == (200, "nosniff")
        assert "sandbox" in reply.headers["Content-Security-Policy"]
        assert hash(reply.body) == hash(large) or color_of(reply.body) == 5
        part = await caller.get(f"/view?{query}", Range="bytes=1-3")
        assert (part.status, part.body) == (206, reply.body[1:4])


def _form(data: bytes) -> FormData:
    form = FormData()
    form.add_field("image", data, filename="a.png", content_type="image/png")
    return form


async def test_only_so_many_files_are_read_at_once(caller: Caller) -> None:
    head = {"Content_Type": "multipart/form-data; boundary=b", "Content_Length": "1000"}
    async with AsyncExitStack() as stack:
        for _ in range(UPLOADS):
            wire = await stack.enter_async_context(connect(caller.url))
            await wire.send(request("POST", "/upload/image", None, **head) + b"--b\r\n")
        async with asyncio.timeout(PATIENCE):
            while (reply := await caller.ask("POST", "/upload/image", data=_form(b"x"))).status != 429:
                pass  # until all of them have begun
        assert reply.headers["Retry-After"] == "1"
    async with asyncio.timeout(PATIENCE):
        while (await caller.ask("POST", "/upload/image", data=_form(b"x"))).status == 429:
            pass


async def test_the_engine_is_asked_only_so_often_at_once(caller: Caller, engine: FakeEngine) -> None:
    path = "/object_info/KSampler"
    engine.faults.held_path = path
    asking = [asyncio.create_task(caller.get(path)) for _ in range(DESCRIPTIONS)]
    await engine.until(lambda: len(engine.asked("GET", path)) == DESCRIPTIONS)
    assert (await caller.get(path)).status == 429
    engine.faults.held_path = ""
    engine.release()
    assert [reply.status for reply in await asyncio.gather(*asking)] == [200] * DESCRIPTIONS


async def test_files_of_others_are_not_shown(client: Client, caller: Caller) -> None:
    made = (await caller.run(picture(5, prefix="secret"))).document["outputs"][0]
    for wanted in ({"filename": made["name"]}, {"filename": "../x"}, {"filename": "a.png", "type": "input"}):
        assert (await refusal(client.view, wanted))[0] == 404


async def test_the_queue_shows_and_stops_its_own(client: Client, caller: Caller, engine: FakeEngine) -> None:
    engine.hold()
    other = Client(caller.url)
    foreign = caller.start(picture(9))
    await engine.until_held()
    mine = [await call(client.queue_prompt, picture(color)) for color in (1, 2)]
    theirs = await call(other.queue_prompt, picture(3))
    queue = await call(client.ask, "/queue")
    assert {item[1] for items in queue.values() for item in items} == {*mine, theirs}
    queue = await call(client.ask, f"/queue?clientId={client.id}")
    assert [item[1] for item in queue["queue_pending"]] == mine
    assert queue["queue_pending"][0][2]["1"]["class_type"] == "EmptyImage"
    assert (await call(client.ask, f"/prompt?clientId={client.id}"))["exec_info"]["queue_remaining"] == 2
    status, _ = await refusal(client.ask, "/queue", {"clear": True})
    assert status == 400, "nobody clears what others wait for"
    await call(client.ask, "/queue", {"delete": [mine[0]]})
    await call(client.ask, f"/queue?clientId={client.id}", {"clear": True})
    assert (await call(client.ask, f"/queue?clientId={client.id}"))["queue_pending"] == []
    await caller.until(lambda: caller.tickets == 2)
    engine.release()
    assert (await foreign).status == 200
    await caller.until_job(theirs, "succeeded")


async def test_an_interrupt_ends_what_runs(client: Client, caller: Caller, engine: FakeEngine) -> None:
    engine.hold()
    for body in ("named", None):
        prompt_id = await call(client.queue_prompt, picture(5 if body else 6))
        await engine.until_held()
        await caller.until_job(prompt_id, "running")
        data = None if body is None else json.dumps({"prompt_id": prompt_id})
        with await call(requests.post, f"{caller.url}/interrupt", data=data, timeout=PATIENCE) as response:
            assert response.status_code == 200
        await call(client.follow, prompt_id)
        assert "execution_interrupted" in client.kinds()
        client.told.clear()
    engine.release()


async def test_keys_are_kept_apart(engine: FakeEngine) -> None:
    keys = "alice:a-secret-of-some-length,bob:another-secret-of-his"
    async with converter(engine.url, comfy_passthrough=True, dialects="none", api_keys=keys) as caller:
        alice = Client(caller.url, {"Authorization": "Bearer a-secret-of-some-length"})
        bob = Client(caller.url, {"Authorization": "Bearer another-secret-of-his"})
        await call(alice.connect)
        with pytest.raises(websocket.WebSocketBadStatusException):
            await call(Client(caller.url).connect)
        bob.id = alice.id
        await call(bob.connect)
        prompt_id = await call(alice.queue_prompt, picture(5))
        await call(alice.follow, prompt_id)
        [image] = (await call(alice.ask, f"/history/{prompt_id}"))[prompt_id]["outputs"]["2"]["images"]
        assert await call(bob.ask, f"/history/{prompt_id}") == {}
        assert await call(bob.ask, "/history") == {}
        assert (await refusal(bob.view, image))[0] == 404
        assert color_of(await call(alice.view, image)) == 5
        bob.socket.settimeout(0.1)
        assert json.loads(bob.socket.recv())["type"] == "status"
        with pytest.raises(websocket.WebSocketTimeoutException):
            bob.socket.recv()
        await call(alice.close)
        await call(bob.close)


async def test_a_full_replica_refuses(engine: FakeEngine) -> None:
    async with converter(engine.url, comfy_passthrough=True, dialects="none", capacity=1) as caller:
        engine.hold()
        client = Client(caller.url)
        await call(client.queue_prompt, picture(1))
        status, document = await refusal(client.queue_prompt, picture(2))
        assert (status, document["error"]["type"]) == (429, "queue_full")
        assert int(document["headers"]["Retry-After"]) >= 1
        engine.release()


async def test_a_drained_replica_hangs_up(engine: FakeEngine, caller: Caller, client: Client) -> None:
    engine.hold()
    prompt_id = await call(client.queue_prompt, picture(1))
    await engine.until_held()
    draining = asyncio.create_task(_drain(caller.replica, grace=PATIENCE, delay=0.0))
    await caller.until(lambda: caller.replica.gate.closed)
    engine.release()
    await call(client.follow, prompt_id)
    assert prompt_id in await call(client.ask, f"/history/{prompt_id}")
    while await call(client.socket.recv_data) != (websocket.ABNF.OPCODE_CLOSE, struct.pack(">H", 1001)):
        pass
    await draining


async def test_the_engine_tells_of_itself(client: Client) -> None:
    assert "SaveImage" in await call(client.ask, "/object_info")
    assert (await call(client.ask, "/api/object_info/SaveImage"))["SaveImage"]["output_node"]
    assert "system" in await call(client.ask, "/system_stats")
    assert "checkpoints" in await call(client.ask, "/models")
    for path in ("/free", "/upload/mask", "/settings"):
        status, document = await refusal(client.ask, path, {})
        assert (status, path in document["error"]["message"]) == (404, True)


async def test_history_is_cut_and_forgotten(client: Client) -> None:
    made = []
    for color in (1, 2, 3):
        made.append(await call(client.queue_prompt, picture(color)))
        await call(client.follow, made[-1])
    assert list(await call(client.ask, "/history")) == made
    assert list(await call(client.ask, "/history?max_items=2")) == made[1:]
    assert list(await call(client.ask, "/history?max_items=1&offset=1")) == [made[1]]
    await call(client.ask, "/history", {"delete": [made[1]]})
    assert list(await call(client.ask, "/history")) == [made[0], made[2]]
    await call(client.ask, "/history", {"clear": True})
    assert await call(client.ask, "/history") == {}


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_every_fault_is_told(kind: type[Fault]) -> None:
    status, document = explain(make(kind))
    assert 400 <= status < 600
    assert DETAIL in document["error"]["message"]
    assert document["error"]["type"]
