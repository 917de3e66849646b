"""Webhooks over the end of a process: what was promised before `kill -9` is told after the next start, once."""

import signal
from pathlib import Path

from tests.converter.faults.graphs import picture
from tests.converter.receiver import Receiver
from tests.e2e.service import ask, open_session, running
from tests.fakes.engine import FakeEngine


async def test_who_waits_for_a_job_of_a_killed_replica_is_told_by_the_next(tmp_path: Path) -> None:
    receiver = Receiver()
    async with receiver:
        origin, url, secret = receiver.origin, receiver.url, receiver.settings["webhook_secret"]
    async with FakeEngine() as engine, open_session() as session:
        flags = ["--engine-url", engine.url, "--state-dir", str(tmp_path), "--drain-delay", "0"]
        flags += ["--webhook-secret", secret, "--webhook-origins", origin]

        async def begin(job_id: str, color: int) -> None:
            body = {"id": job_id, "workflow": picture(color), "webhook": url}
            headers = {"Prefer": "respond-async"}
            reply = await ask(session, "POST", f"{service.url}/v1/run", json=body, headers=headers)
            assert reply.status == 202, reply

        with running(tmp_path, *flags) as service:
            await service.listens()
            await service.ready()
            await begin("done", 5)  # and nobody receives
            await service.until(lambda: "a webhook got no answer" in service.log)
            engine.hold()
            await begin("lost", 6)
            await engine.until_held()
            service.signal(signal.SIGKILL)
            await service.ends()
        engine.release()
        async with receiver:
            with running(tmp_path, *flags) as service:
                await service.listens()
                notices = {notice.data["id"]: notice for notice in await receiver.until(2)}
                assert {name: notice.type for name, notice in notices.items()} == {
                    "done": "job.succeeded",
                    "lost": "job.failed",
                }
                assert notices["done"].data["outputs"][0]["data"]
                await service.until(lambda: service.log.count('"webhook delivered"') == 2)
                service.signal(signal.SIGTERM)
                assert await service.ends() == 0
            assert len(receiver.notices) == 2
            assert secret not in service.log
            assert "planted-token" not in service.log
