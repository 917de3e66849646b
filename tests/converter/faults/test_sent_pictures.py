"""Pictures that a node sends over the websocket and stores nowhere: outputs like all others, and never half of them."""

import pytest

from tests.converter.faults.graphs import picture
from tests.converter.faults.replica import converter
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of

SENDER = "SaveImageWebsocket"
ASYNC = {"Prefer": "respond-async"}


async def test_what_is_sent_is_an_output(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        reply = await caller.run(picture(0x123456, save=SENDER, batch=2))
        assert reply.colors == [0x123456] * 2
        names = [(output["node_id"], output["class_type"], output["name"]) for output in reply.document["outputs"]]
        assert names == [("2", SENDER, "picture_00001.png"), ("2", SENDER, "picture_00002.png")]
        raw = await caller.run(picture(0x654321, save=SENDER), {"Accept": "image/png"})
        assert (raw.status, color_of(raw.body)) == (200, 0x654321)
        webp = await caller.run(picture(0x654321, save=SENDER), {"Accept": "image/webp"})
        assert (webp.status, webp.headers["Content-Type"]) == (200, "image/webp")
        several = await caller.run(picture(1, save=SENDER) | {"3": picture(1)["2"]}, {"Accept": "image/png"})
        assert several.status == 406


async def test_it_stands_where_its_node_does(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        graph = picture(1, save=SENDER) | {"0": picture(1)["2"]}
        assert [o["node_id"] for o in (await caller.run(graph)).document["outputs"]] == ["2", "0"]
        named = await caller.run(graph, outputs={"nodes": ["2"]})
        assert [o["node_id"] for o in named.document["outputs"]] == ["2"]


async def test_a_job_in_the_background_keeps_it(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        await caller.run(picture(0x123456, save=SENDER), ASYNC, id="sent")
        await caller.until_job("sent", "succeeded")
        for _ in range(2):
            assert color_of((await caller.get("/v1/jobs/sent", Accept="image/png")).body) == 0x123456
        assert (await caller.get("/v1/jobs/sent", Accept="image/jpeg")).headers["Content-Type"] == "image/jpeg"


async def test_it_is_no_preview(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller, caller.events(picture(0x123456, save=SENDER)) as stream:
        assert (await stream.last()).name == "result"
        assert len(stream.all("output")) == 1
        assert not stream.all("preview")


@pytest.mark.parametrize("message", [4, 7, 9, 11])
async def test_what_was_missed_is_sent_again(engine: FakeEngine, brisk: None, message: int) -> None:
    """Wherever the socket is cut: all pictures are answered, by a second run where one may have been lost."""
    async with converter(engine.url) as caller:
        engine.faults.drop_socket_at = message
        reply = await caller.run(picture(0x123456, save=SENDER, batch=3))
        assert reply.colors == [0x123456] * 3
        assert len(engine.posted_prompts) in (2, 3)
