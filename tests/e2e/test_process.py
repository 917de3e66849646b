"""Real processes: started, killed, drained and interrupted as operators, kernels and people do it."""

import asyncio
import base64
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession

from tests.e2e.service import PATIENCE, POLL, Reply, Service, ask, open_session, running
from tests.fakes.pictures import color_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

START = 5.0
"""Seconds for the converter to listen: it needs less than one, on a machine that is not busy."""


def workflow(color: int, seconds: float = 0.0, node: str = "TestSleep", **inputs: Any) -> dict[str, Any]:
    """A picture of one colour, which goes through a test node of the engine on its way."""
    given = {"seconds": seconds} if node.startswith("TestSleep") else inputs
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": color}},
        "2": {"class_type": node, "inputs": {"value": ["1", 0], **given}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "e2e"}},
    }


def color(reply: Reply) -> int:
    assert reply.status == 200, reply
    [output] = reply.document["outputs"]
    return color_of(base64.b64decode(output["data"]))


class Caller:
    """Calls one service, over HTTP only."""

    def __init__(self, service: Service, session: ClientSession) -> None:
        self.service = service
        self.session = session

    async def get(self, path: str) -> Reply:
        return await ask(self.session, "GET", f"{self.service.url}{path}")

    def start(self, graph: dict[str, Any], **fields: Any) -> asyncio.Task[Reply]:
        body = {"workflow": graph, **fields}
        return asyncio.create_task(ask(self.session, "POST", f"{self.service.url}/v1/run", json=body))

    async def until_running(self, job_id: str) -> None:
        """The engine works on the job."""
        await self.until(f"/v1/jobs/{job_id}", lambda reply: reply.document.get("status") == "running")

    async def until(self, path: str, condition: Callable[[Reply], bool]) -> Reply:
        """Ask until the answer is as it should be."""
        async with asyncio.timeout(PATIENCE):
            while True:
                if condition(reply := await self.get(path)):
                    return reply
                await asyncio.sleep(POLL)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Caller]:
    """One service for the tests after which it is as it was."""
    with running(tmp_path_factory.mktemp("service"), "--restart-budget", "50", "--max-attempts", "3") as service:
        await service.listens()
        async with open_session() as session:
            await service.ready()
            yield Caller(service, session)


@pytest_asyncio.fixture(loop_scope="module")
async def session() -> AsyncIterator[ClientSession]:
    async with open_session() as session:
        yield session


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Service]:
    """A service of the test's own, not ready yet."""
    with running(tmp_path, "--drain-delay", "0") as service:
        yield service


async def test_it_listens_at_once_and_says_that_it_is_starting(own: Service, session: ClientSession) -> None:
    await own.listens()
    assert time.monotonic() - own.started_at < START
    reply = await ask(session, "GET", f"{own.url}/startupz")
    assert (reply.status, reply.document["state"]) in ((503, "STARTING"), (200, "READY"))
    assert (await ask(session, "GET", f"{own.url}/livez")).status == 200


async def test_a_killed_engine_costs_a_job_nothing_but_time(shared: Caller) -> None:
    engine = await shared.service.engine()
    first = (await shared.get("/readyz")).document["engine"]["instance"]
    job = shared.start(workflow(0xA1B2C3, 1.0), id="survivor")
    await shared.until_running("survivor")
    engine.kill()
    reply = await job
    assert color(reply) == 0xA1B2C3
    assert reply.document["engine"]["instance"] != first
    assert (await shared.service.engine()).pid != engine.pid
    await shared.service.ready()
    metrics = await metrics_of(shared)
    assert metrics['converter_jobs_total{outcome="succeeded"}'] == 1
    assert metrics["converter_engine_restarts_total"] == 1


async def metrics_of(caller: Caller) -> dict[str, float]:
    async with caller.session.get(f"{caller.service.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


async def test_who_kills_the_engine_is_found_and_barred_and_its_neighbour_is_served(shared: Caller) -> None:
    killer = workflow(1, node="TestExit", code=3)
    neighbour, killed = await asyncio.gather(shared.start(workflow(0x00FF00, 0.3)), shared.start(killer))
    assert color(neighbour) == 0x00FF00
    assert (killed.status, killed.document["code"]) == (422, "invalid_workflow"), killed
    assert killed.document["node_errors"] == {}
    await shared.service.ready()
    again = await shared.start(killer)
    assert (again.status, again.document["code"]) == (422, "invalid_workflow"), "refused without another death"
    assert "refused for a while" in again.document["detail"]
    assert again.document["node_errors"] == {}
    assert color(await shared.start(workflow(0x0000FF))) == 0x0000FF


async def test_what_is_sent_over_the_websocket_is_answered(shared: Caller) -> None:
    graph = workflow(0xABCDEF)
    graph["3"] = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["2", 0]}}
    assert color(await shared.start(graph)) == 0xABCDEF


async def run_cli(url: str, folder: Path, graph: object) -> subprocess.CompletedProcess[str]:
    path = folder / "workflow.json"
    path.write_text(json.dumps(graph))
    command = [sys.executable, "-m", "converter.cli", "run", str(path), "-o", str(folder / "out.png"), "--url", url]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


async def test_the_command_line_gets_its_picture(shared: Caller, tmp_path: Path) -> None:
    done = await run_cli(shared.service.url, tmp_path, workflow(0x123456))
    assert done.returncode == 0, done
    assert color_of((tmp_path / "out.png").read_bytes()) == 0x123456


@pytest.mark.parametrize(
    ("graph", "status", "words"),
    [
        ({"1": {"class_type": "NoSuchNode", "inputs": {}}}, 3, "NoSuchNode"),
        ({"nodes": [], "links": []}, 3, "Export (API)"),
        (workflow(1, node="TestRaise", kind="ValueError", message="on purpose"), 5, "on purpose"),
    ],
)
async def test_the_command_line_says_what_is_wrong(
    shared: Caller, tmp_path: Path, graph: object, status: int, words: str
) -> None:
    done = await run_cli(shared.service.url, tmp_path, graph)
    assert done.returncode == status, done
    assert words in done.stderr
    assert not (tmp_path / "out.png").exists()


async def test_sigterm_lets_what_is_in_flight_finish(tmp_path: Path, session: ClientSession) -> None:
    with running(tmp_path, "--drain-delay", "0.5") as service:
        await service.listens()
        await service.ready()
        caller = Caller(service, session)
        jobs = [caller.start(workflow(number, 0.7), id=f"job{number}") for number in (1, 2, 3)]
        for number in (1, 2, 3):
            await caller.until(f"/v1/jobs/job{number}", lambda reply: reply.status == 200)
        service.signal(signal.SIGTERM)
        probe = await caller.until("/readyz", lambda reply: reply.document["state"] != "READY")
        assert (probe.status, probe.document["state"]) == (503, "DRAINING")
        assert (await caller.get("/livez")).status == 200
        assert [color(await job) for job in jobs] == [1, 2, 3]
        assert await service.ends() == 0
        assert not service.engines()
        assert (await caller.get("/livez")).status == 0


async def test_ctrl_c_has_an_echo(own: Service, session: ClientSession) -> None:
    """`make` repeats it to the whole group: the second within a second is the same wish, and work is finished."""
    await own.listens()
    await own.ready()
    caller = Caller(own, session)
    job = caller.start(workflow(7, 0.5), id="last")
    await caller.until_running("last")
    own.signal(signal.SIGINT)
    own.signal(signal.SIGINT)
    assert color(await job) == 7
    assert await own.ends() == 0


async def test_a_later_ctrl_c_ends_everything_at_once(own: Service, session: ClientSession) -> None:
    await own.listens()
    await own.ready()
    caller = Caller(own, session)
    job = caller.start(workflow(7, 600.0), id="endless")
    await caller.until_running("endless")
    own.signal(signal.SIGINT)
    sent = time.monotonic()
    await own.until(lambda: time.monotonic() > sent + 1.2)  # what comes before is an echo
    assert own.process.poll() is None
    own.signal(signal.SIGINT)
    assert await own.ends() == 128 + signal.SIGINT
    assert (await job).status == 0


async def test_ctrl_c_before_it_is_ready_ends_in_time(tmp_path: Path) -> None:
    never = f"{sys.executable} -c 'import time; time.sleep(600)' --port {{port}}"
    with running(tmp_path, engine=never) as service:
        await service.listens()
        await service.until(service.family)
        service.signal(signal.SIGINT)
        assert await service.ends(20.0) == 0


async def test_a_killed_converter_leaves_no_engine(own: Service, session: ClientSession) -> None:
    await own.listens()
    await own.ready()
    caller = Caller(own, session)
    job = caller.start(workflow(7, 600.0), id="endless")
    await caller.until_running("endless")
    assert own.engines()
    own.signal(signal.SIGKILL)
    assert await own.ends() == -signal.SIGKILL
    assert (await job).status == 0
