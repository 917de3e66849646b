"""Whatever happens to the websocket, the answer is right and nothing runs twice."""

from functools import partial

import aiohttp
import pytest

from converter import app
from converter.link.session import Session, Timing
from tests.converter.faults.graphs import passed_through, picture
from tests.converter.faults.replica import converter
from tests.fakes.engine import FakeEngine
from tests.fakes.relay import Fate, Relay

MESSAGES = 14
"""Messages of a run of `picture`, those of the queue's length included."""


async def test_a_run_has_so_many_messages(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        await engine.until_idle()
        engine.faults.drop_socket_at = 1000
        assert (await caller.run(picture(0x123456))).colors == [0x123456]
        await engine.until_idle()
        assert engine.faults.drop_socket_at == 1000 - MESSAGES


@pytest.mark.parametrize("message", range(1, MESSAGES + 1))
async def test_the_socket_is_cut_at_one_message(engine: FakeEngine, message: int) -> None:
    async with converter(engine.url) as caller:
        await engine.until_idle()
        engine.faults.drop_socket_at = message
        reply = await caller.run(picture(0x123456))
        assert (reply.status, reply.colors) == (200, [0x123456])
        assert len(engine.posted_prompts) == 2, "the warm-up and the order"
        assert (await caller.run(picture(0x654321))).colors == [0x654321]


@pytest.mark.parametrize("message", [4, 7, 10])
async def test_the_socket_is_cut_under_an_event_stream(engine: FakeEngine, message: int) -> None:
    async with converter(engine.url) as caller:
        await engine.until_idle()
        engine.faults.drop_socket_at = message
        async with caller.events(picture(0x123456)) as stream:
            last = await stream.last()
        assert last.name == "result"
        assert last.data["status"] == "succeeded"
        assert len(engine.posted_prompts) == 2


@pytest.mark.parametrize("cuts", [1, 3])
async def test_the_network_cuts_the_socket_while_a_node_runs(engine: FakeEngine, cuts: int) -> None:
    async with Relay(engine.url) as relay, converter(relay.url) as caller:
        engine.hold()
        running = caller.start(picture(0x123456))
        await engine.until_held()
        for _ in range(cuts):
            await relay.until(lambda: any(c.kind == "websocket" for c in relay.connections))
            relay.cut("websocket")
        engine.release()
        assert (await running).colors == [0x123456]
        assert len(engine.posted_prompts) == 2


async def test_a_socket_that_the_network_holds_up_is_not_waited_for(engine: FakeEngine) -> None:
    async with Relay(engine.url) as relay, converter(relay.url) as caller:
        relay.stall("to_client", "websocket")
        reply = await caller.run(picture(0x123456))
        assert reply.colors == [0x123456]
        assert reply.document["timings"]["total"] < 5
        assert len(engine.posted_prompts) == 2


async def test_a_deaf_socket_is_seen_through_and_renewed(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.deafen()
        [deaf] = engine.sockets.open
        assert (await caller.run(picture(0x123456))).colors == [0x123456]
        await engine.until(lambda: len(engine.sockets.open) == 1 and deaf not in engine.sockets.open)
        reply = await caller.run(picture(0x654321))
        assert reply.colors == [0x654321]
        assert not engine.asked("GET", f"/history/{reply.prompt_id}"), "the new socket told everything"


async def test_an_engine_whose_first_socket_is_deaf_becomes_ready() -> None:
    async with FakeEngine() as engine:
        engine.faults.deaf_socket = 1
        async with converter(engine.url) as caller:
            assert (await caller.run(picture(0x123456))).colors == [0x123456]


async def test_an_engine_whose_sockets_are_all_deaf_works_by_looks(engine: FakeEngine) -> None:
    engine.faults.deaf_socket = 10_000
    async with converter(engine.url) as caller:
        for color in (1, 2):
            assert (await caller.run(picture(color))).colors == [color]
        assert len(engine.posted_prompts) == 3


async def test_a_socket_that_is_lost_while_idle_changes_nothing_for_the_probes(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        instance = caller.replica.watch.instance
        states = set()
        for _ in range(2):
            engine.drop_sockets()
            await engine.until(lambda: not engine.sockets.open)
            reads = len(engine.asked("GET", "/queue"))

            def observe(before: int = reads) -> bool:
                states.add(caller.state)
                return bool(engine.sockets.open) and len(engine.asked("GET", "/queue")) > before + 1

            await caller.until(observe)
        assert states == {"READY"}
        assert caller.replica.watch.instance == instance
        assert (await caller.run(picture(1))).colors == [1]
        assert len(engine.posted_prompts) == 2


async def test_somebody_elses_socket_of_our_id_makes_ours_deaf(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        first = await caller.run(picture(0x111111))
        client_id = engine.prompts.history[first.prompt_id]["prompt"][3]["client_id"]
        async with aiohttp.ClientSession() as session:
            twin = await session.ws_connect(f"{engine.url}/ws?clientId={client_id}")
            await engine.until(lambda: len(engine.sockets.open) == 2)
            await twin.close()
        await engine.until(lambda: len(engine.sockets.open) == 1)
        assert (await caller.run(picture(0x222222))).colors == [0x222222]
        third = await caller.run(picture(0x333333))
        assert third.colors == [0x333333]
        assert engine.prompts.history[third.prompt_id]["prompt"][3]["client_id"] != client_id
        assert len(engine.posted_prompts) == 4


async def test_an_engine_that_takes_no_socket_any_more_still_works(engine: FakeEngine) -> None:
    async with Relay(engine.url) as relay, converter(relay.url) as caller:
        relay.script = [("websocket", Fate("refuse"))] * 1000
        relay.cut("websocket")
        await engine.until(lambda: not engine.sockets.open)
        assert (await caller.run(picture(0x123456))).colors == [0x123456]
        assert caller.ready
        relay.script.clear()
        await engine.until(lambda: engine.sockets.open)


async def test_a_socket_is_tried_again_as_often_as_the_engine_answers_otherwise(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "Session", partial(Session, timing=Timing(delay=1e6, longest=1e6)))
    async with Relay(engine.url) as relay, converter(relay.url) as caller:
        relay.script = [("websocket", Fate("refuse"))] * 5
        relay.cut("websocket")
        await caller.until(lambda: not relay.script)
        await engine.until(lambda: engine.sockets.open)


@pytest.mark.parametrize(
    "fate",
    [
        Fate("refuse"),
        Fate("cut", after=700),
        Fate("close", after=700),
        Fate("half_close", after=700),
        Fate("half_close", after=300, direction="to_engine"),
        Fate("stall", after=700),
        Fate("stall", after=300, direction="to_engine"),
        Fate(delay=0.05),
    ],
    ids=lambda fate: f"{fate.action}-{fate.direction}",
)
async def test_whatever_befalls_the_socket_the_answer_is_right(engine: FakeEngine, fate: Fate) -> None:
    async with Relay(engine.url) as relay, converter(relay.url) as caller:
        relay.script = [("websocket", fate)]
        relay.cut("websocket")
        await relay.until(lambda: not relay.script)
        for color in (1, 2):
            assert (await caller.run(picture(color))).colors == [color]
        assert len(engine.posted_prompts) == 3


async def test_duplicates_and_messages_about_others_change_nothing(engine: FakeEngine) -> None:
    engine.faults.duplicate_events = engine.faults.foreign_events = True
    async with converter(engine.url) as caller:
        async with caller.events(passed_through("TestPreview", 0x123456, steps=3)) as stream:
            last = await stream.last()
        assert last.name == "result"
        assert [output["node_id"] for output in last.data["outputs"]] == ["2"]
        assert len(stream.all("output")) == 1
        assert [event.name for event in stream.heard].count("result") == 1
        values = [data["value"] for data in stream.all("progress")]
        assert values == sorted(values)
        assert {data["nodes_total"] for data in stream.all("progress")} == {3}


async def test_messages_of_eight_megabytes_are_passed_over(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with converter(engine.url) as caller:
        engine.faults.huge_message = 8 * 2**20
        assert (await caller.run(picture(0x123456))).colors == [0x123456]
        await engine.until_idle()
        assert "1009 (message too big)" not in caplog.text


async def test_not_a_number_in_an_output_is_read(engine: FakeEngine) -> None:
    engine.faults.nan_in_json = True
    async with converter(engine.url) as caller:
        assert (await caller.run(picture(0x123456))).colors == [0x123456]
        [socket] = engine.sockets.open
        socket.cut()
        assert (await caller.run(picture(0x654321))).colors == [0x654321]
