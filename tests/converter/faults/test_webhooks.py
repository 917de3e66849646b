"""Webhooks: whoever asked to be told of a job is told once, signed, however the job ended."""

import asyncio
import base64
import shutil
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from converter import postbox
from converter.app import _drain
from converter.core import retries
from converter.errors import CannotStart
from converter.media.vetted import Dialer
from tests.converter.faults.graphs import passed_through, picture
from tests.converter.faults.replica import PATIENCE, Caller, colors, converter
from tests.converter.receiver import SECRET, Receiver
from tests.fakes.engine import FakeEngine


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first delay between two attempts, fifty times as short."""
    monkeypatch.setattr(retries, "FIRST", 0.01)


async def test_the_notice_has_the_answer(engine: FakeEngine) -> None:
    async with Receiver() as receiver, converter(engine.url, **receiver.settings) as caller:
        reply = await caller.run(picture(0x123456), webhook=receiver.url)
        notice = await receiver.next()
        assert notice.type == "job.succeeded"
        assert notice.data == reply.document
        assert colors(notice.data) == [0x123456]
        await settle(caller)
        assert len(receiver.notices) == 1


async def test_every_secret_signs(engine: FakeEngine) -> None:
    other = "whsec_" + base64.b64encode(b"another one, which is to come now").decode()
    async with Receiver() as receiver:
        settings = receiver.settings | {"webhook_secret": f"{other},{SECRET}"}
        async with converter(engine.url, **settings) as caller:
            await caller.run(picture(5), webhook=receiver.url)
            notice = await receiver.next()
            assert Webhook(other).verify(notice.body, dict(notice.headers)) == notice.document


async def test_a_job_in_the_background_tells_when_it_ends(engine: FakeEngine) -> None:
    async with Receiver() as receiver, converter(engine.url, **receiver.settings) as caller:
        graph = picture(7)
        reply = await caller.run(graph, {"Prefer": "respond-async"}, id="later", webhook=receiver.url)
        assert reply.status == 202
        assert (await receiver.next()).data["id"] == "later"


async def test_a_caller_who_leaves_does_not_cancel_what_a_receiver_waits_for(engine: FakeEngine) -> None:
    async with Receiver() as receiver, converter(engine.url, **receiver.settings) as caller:
        engine.hold()
        caller.start(picture(5), webhook=receiver.url)
        await engine.until_held()
        await caller.leave()
        engine.release()
        assert (await receiver.next()).type == "job.succeeded"


async def test_failures_and_cancels_are_told(engine: FakeEngine) -> None:
    async with Receiver() as receiver, converter(engine.url, **receiver.settings) as caller:
        await caller.run(passed_through("TestRaise", kind="ValueError"), id="bad", webhook=receiver.url)
        notice = await receiver.next()
        assert (notice.type, notice.data["id"]) == ("job.failed", "bad")
        assert notice.data["error"]["code"] == "execution_failed"
        assert "outputs" not in notice.data
        engine.hold()
        caller.start(picture(5), id="gone", webhook=receiver.url)
        await engine.until_held()
        await caller.cancel("gone")
        notice = await receiver.next()
        assert (notice.type, notice.data["status"], notice.data["id"]) == ("job.canceled", "canceled", "gone")
        engine.release()


async def test_it_is_sent_again_until_it_is_taken(engine: FakeEngine) -> None:
    answers = (web.Response(status=500), None, web.Response(status=302, headers={"Location": "/hook"}))
    async with Receiver(*answers) as receiver, converter(engine.url, **receiver.settings) as caller:
        await caller.run(picture(5), webhook=receiver.url)
        notices = await receiver.until(4)
        assert len({notice.id for notice in notices}) == 1, "the receiver knows by it that it has the notice already"
        await settle(caller)
        assert len(receiver.notices) == 4
        assert await count(caller, "delivered") == 1


async def test_a_receiver_that_says_when_is_not_told_before(engine: FakeEngine) -> None:
    answer = web.Response(status=503, headers={"Retry-After": "1"})
    async with Receiver(answer) as receiver, converter(engine.url, **receiver.settings) as caller:
        await caller.run(picture(5), webhook=receiver.url)
        first, second = (notice.headers["webhook-timestamp"] for notice in await receiver.until(2))
        assert int(second) - int(first) >= 1


async def test_a_receiver_that_does_not_answer_holds_up_its_own_alone(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postbox, "ANSWER", 600.0)
    monkeypatch.setattr(postbox, "LAST", 0.0)
    came: asyncio.Queue[None] = asyncio.Queue()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.put_nowait(None)
        await reader.read(-1)  # until the sender gives up
        writer.close()

    async with Receiver() as receiver, await asyncio.start_server(listen, "127.0.0.1", 0) as silent:
        origin = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        settings = receiver.settings | {"webhook_origins": f"{receiver.origin},{origin}"}
        async with converter(engine.url, **settings) as caller:
            for number in range(postbox.AT_ONCE):
                await caller.run(picture(number), webhook=f"{origin}/hook")
            await caller.run(picture(0x123456), id="mine", webhook=receiver.url)
            assert (await receiver.next()).data["id"] == "mine"
            async with asyncio.timeout(PATIENCE):
                for _ in range(postbox.TO_ONE):
                    await came.get()
        assert came.empty()


@pytest.mark.parametrize(
    ("answer", "patience"),
    [(web.Response(status=410), 100.0), (web.Response(status=429, headers={"Retry-After": "200"}), 100.0)],
)
async def test_it_is_given_up_where_nothing_can_come_of_it(
    engine: FakeEngine, answer: web.Response, patience: float, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        Receiver(answer) as receiver,
        converter(engine.url, **receiver.settings, webhook_patience=patience) as caller,
    ):
        await caller.run(picture(5), webhook=receiver.url)
        await receiver.next()
        await settle(caller)
        assert len(receiver.notices) == 1
        assert await count(caller, "given_up") == 1
    assert "webhook given up" in caplog.messages
    assert "planted" not in str([record.__dict__ for record in caplog.records])


async def test_outputs_that_find_no_room_are_left_out(engine: FakeEngine) -> None:
    async with Receiver() as receiver, converter(engine.url, **receiver.settings, webhook_bytes=1000) as caller:
        await caller.run(picture(5), webhook=receiver.url, extra_data={"extra_pnginfo": {"filler": "x" * 2000}})
        notice = await receiver.next()
        [output] = notice.data["outputs"]
        assert output["size"] > 2000
        assert "data" not in output
        again = await caller.job(notice.data["id"])
        assert len(base64.b64decode(again["outputs"][0]["data"])) == output["size"]


async def test_orders_that_can_not_be_told_of_are_refused(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        reply = await caller.run(picture(1), webhook="https://example.org/hook")
        assert (reply.status, reply.code) == (422, "invalid_input")
        assert reply.document["input_name"] == "webhook"
        assert "webhook_secret" in reply.document["detail"]
    async with Receiver() as receiver, converter(engine.url, **receiver.settings, webhook_backlog=1) as caller:
        for url in (
            "http://127.0.0.1:1/",
            "http://169.254.169.254/",
            "ftp://x",
            "x",
            f"http://a@{receiver.origin[7:]}/",
        ):
            reply = await caller.run(picture(1), webhook=url)
            assert (reply.status, reply.document["input_name"]) == (422, "webhook"), url
        engine.hold()
        caller.start(picture(5), webhook=receiver.url)
        await engine.until_held()
        reply = await caller.run(picture(6), webhook=receiver.url)
        assert (reply.status, reply.code) == (429, "queue_full")
        engine.release()
        await settle(caller)


async def test_a_public_name_that_leads_to_this_machine_is_not_told(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def look_up(*_: object) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setattr(Dialer, "_look_up", look_up)
    async with Receiver() as receiver:
        settings = receiver.settings | {"webhook_origins": "", "webhook_patience": 0.0}
        async with converter(engine.url, **settings) as caller:
            await caller.run(picture(5), webhook=f"http://hooks.example.org:{receiver.port}/hook")
            await settle(caller)
            assert await count(caller, "given_up") == 1
        assert not receiver.notices
    assert "a webhook got no answer: Closed" in caplog.messages


async def test_a_private_address_is_refused_with_the_setting_that_would_allow_it(engine: FakeEngine) -> None:
    async with Receiver() as receiver, converter(engine.url, **receiver.settings) as caller:
        setting = "CONVERTER_WEBHOOK_ORIGINS"
        for url in ("http://10.0.0.1/hook", "http://backend/hook", "https://hooks.example.org:22/hook"):
            refused = await caller.run(picture(5), webhook=url)
            assert (refused.code, setting in refused.document["detail"]) == ("invalid_input", True)
        refused = await caller.run(picture(5), webhook="https://me:secret@hooks.example.org/hook")
        assert setting not in refused.document["detail"]


async def test_a_request_that_is_sent_again_tells_once(engine: FakeEngine) -> None:
    async with Receiver() as receiver, converter(engine.url, **receiver.settings) as caller:
        for _ in range(2):
            reply = await caller.run(picture(5), {"Idempotency-Key": "one"}, webhook=receiver.url)
            assert reply.status == 200
        await settle(caller)
        assert len(receiver.notices) == 1


async def test_what_is_pending_is_delivered_before_a_drained_replica_ends(engine: FakeEngine) -> None:
    answers = [web.Response(status=503), web.Response(status=503)]
    async with Receiver(*answers) as receiver, converter(engine.url, **receiver.settings) as caller:
        engine.hold()
        caller.start(picture(5), webhook=receiver.url)
        await engine.until_held()
        await caller.leave()
        engine.release()
        await _drain(caller.replica, grace=30.0, delay=0.0)
        assert [notice.type for notice in receiver.notices] == ["job.succeeded"] * 3


async def test_jobs_that_a_drain_gives_up_are_told_of(engine: FakeEngine) -> None:
    async with Receiver() as receiver:
        async with converter(engine.url, **receiver.settings) as caller:
            engine.hold()
            caller.start(picture(5), webhook=receiver.url)
            await engine.until_held()
            await caller.leave()
            await _drain(caller.replica, grace=0.0, delay=0.0)
        [notice] = receiver.notices
        assert (notice.type, notice.data["error"]["code"]) == ("job.failed", "draining")
        engine.release()


async def test_a_restart_goes_on_with_what_is_kept(engine: FakeEngine, tmp_path: Path) -> None:
    receiver = Receiver()
    async with receiver:
        settings = receiver.settings | {"state_dir": str(tmp_path)}
    async with converter(engine.url, **settings) as caller:  # nobody receives
        reply = await caller.run(picture(5), webhook=receiver.url)
        await _drain(caller.replica, grace=30.0, delay=0.0)
        assert await count(caller, "delivered") == 0
    async with receiver, converter(engine.url, **settings) as caller:
        assert (await receiver.next()).data == reply.document
        await settle(caller)
        left = b"".join([(tmp_path / f"webhooks.sqlite{end}").read_bytes() for end in ("", "-wal")])
        assert left, "the replica has them open"
        assert b"planted-token" not in left, "what is done is gone"


async def test_a_job_that_its_replica_does_not_survive_is_told_of_by_the_next(
    engine: FakeEngine, tmp_path: Path
) -> None:
    async with Receiver() as receiver:
        settings = receiver.settings | {"state_dir": str(tmp_path)}
        later = tmp_path / "later"
        later.mkdir()
        async with converter(engine.url, **settings) as caller:
            engine.hold()
            caller.start(picture(5), id="lost", webhook=receiver.url)
            await engine.until_held()
            await caller.until(lambda: b'"lost"' in (tmp_path / "webhooks.sqlite-wal").read_bytes())
            for name in ("webhooks.sqlite", "webhooks.sqlite-wal"):  # as the end of the process would leave them
                shutil.copy(tmp_path / name, later)
            engine.release()
            assert (await receiver.next()).type == "job.succeeded"
        async with converter(engine.url, **settings | {"state_dir": str(later)}):
            notice = await receiver.next()
            assert (notice.type, notice.data["id"]) == ("job.failed", "lost")
            assert notice.data["error"]["retry"] == "later"


async def test_a_folder_belongs_to_one_replica(engine: FakeEngine, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"webhook_secret": SECRET, "state_dir": str(tmp_path)}
    async with converter(engine.url, **settings):
        with pytest.raises(CannotStart, match=r"webhooks\.sqlite can't be used"):
            async with converter(engine.url, **settings):
                pass


async def settle(caller: Caller) -> None:
    """Every notice is delivered or given up."""
    await caller.until(lambda: not caller.replica.postbox.pending)


async def count(caller: Caller, outcome: str) -> int:
    """How many notices ended so."""
    text = (await caller.get("/metrics")).body.decode()
    [line] = [line for line in text.splitlines() if line.startswith(f'converter_webhooks_total{{outcome="{outcome}"}}')]
    return int(float(line.split()[-1]))
