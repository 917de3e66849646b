"""What the passthrough keeps is bounded: messages for slow readers, uploads, and prompts."""

import asyncio

from aiohttp import ClientSession, WSMsgType, web
from aiohttp.test_utils import TestServer

from converter.api.comfyui.ears import BOUND, Ears
from converter.api.comfyui.uploads import MOST, Uploads
from converter.core.comfyui import say
from converter.core.order import Part
from converter.media.spool import hold

CLIENT = ("", "me")


async def test_who_does_not_keep_up_loses_pictures_first_and_the_connection_last() -> None:
    ears = Ears()
    heard: list[WSMsgType] = []
    flooded = asyncio.Event()

    async def listen(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        with ears.open(CLIENT, socket) as ear:
            for number in range(BOUND):
                ears.tell(CLIENT, b"picture")
                if number < BOUND // 2:
                    ears.tell(CLIENT, say("status", number=number))
            for _ in range(BOUND if flooded.is_set() else 0):
                ears.tell(CLIENT, say("status"))
            speaking = asyncio.create_task(ear.speak())
            await socket.receive()
            speaking.cancel()
            await asyncio.wait([speaking])
        return socket

    app = web.Application()
    app.router.add_get("/ws", listen)
    async with TestServer(app) as server, ClientSession() as session:
        async with session.ws_connect(server.make_url("/ws")) as socket:
            while sum(kind == WSMsgType.TEXT for kind in heard) < BOUND // 2:
                heard.append((await socket.receive()).type)
        assert len(heard) < BOUND
        flooded.set()
        async with session.ws_connect(server.make_url("/ws")) as socket:
            message = await socket.receive()
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1013)
    assert not ears.count


def test_the_oldest_uploads_go() -> None:
    uploads = Uploads()
    for number in range(MOST + 1):
        uploads.add("me", "", f"{number}.png", Part("image/png", hold(b"%d" % number)), overwrite=False)
    assert uploads.find("me", "0.png") is None
    assert uploads.find("me", "1.png") is not None
    assert uploads.find("you", "1.png") is None


def test_a_name_is_given_once_unless_it_is_overwritten() -> None:
    uploads = Uploads()
    first, second = (Part("image/png", hold(data)) for data in (b"1", b"2"))
    assert uploads.add("me", "a", "x.png", first, overwrite=False) == "x.png"
    assert uploads.add("me", "a", "x.png", second, overwrite=False) == "x (1).png"
    assert uploads.add("me", "a", "x.png", second, overwrite=False) == "x (1).png"
    assert uploads.add("me", "b", "x.png", second, overwrite=False) == "x.png"
    assert uploads.add("me", "a", "x.png", second, overwrite=True) == "x.png"
    assert uploads.find("me", "a/x.png") is second


def test_only_inputs_that_load_take_uploads() -> None:
    uploads = Uploads()
    part = Part("image/png", hold(b"1"))
    uploads.add("me", "", "x.png", part, overwrite=False)
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "x.png [input]"}},
        "2": {"class_type": "Own", "inputs": {"picture": "x.png", "text": "x.png"}},
        "3": {"class_type": "LoadImage", "inputs": {"image": "y.png", "other": 1}},
    }
    placed, parts = uploads.place("me", graph, [("Own", "picture")])
    assert parts == {"x.png": part}
    assert placed["1"]["inputs"] == {"image": {"part": "x.png"}}
    assert placed["2"]["inputs"] == {"picture": {"part": "x.png"}, "text": "x.png"}
    assert placed["3"]["inputs"] == graph["3"]["inputs"]
    assert uploads.place("you", graph, ()) == (graph, {})
