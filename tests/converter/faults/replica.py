"""A whole converter in the test's own loop, and somebody who calls it over HTTP and knows nothing of its inside.

    async with FakeEngine() as engine, converter(engine.url) as caller:
        reply = await caller.run(picture(0x123456))

Leaves the engine and what is wrong with it to `tests.fakes`. Invariant: whoever leaves the block in peace has left
nothing in the converter: no job is carried, no ticket is held.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientResponse, ClientSession, ClientTimeout, TCPConnector
from multidict import CIMultiDictProxy

from converter.app import Replica, run_replica
from converter.settings import load
from converter.spans import Tracing
from tests.fakes.pictures import color_of

PATIENCE = 30.0
"""Seconds after which a wait for anything fails."""

POLL = 0.005
"""Seconds between two looks at what tells nobody that it has changed."""


@dataclass(frozen=True)
class Reply:
    """One whole answer."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The fault's code."""
        return str(self.document["code"])

    @property
    def prompt_id(self) -> str:
        """The prompt that the result came from."""
        return str(self.document["engine"]["prompt_id"])

    @property
    def colors(self) -> list[int]:
        """The colours of the pictures in the result, in its order."""
        return colors(self.document)


def colors(result: Mapping[str, Any]) -> list[int]:
    """The colours of the pictures in a result document, in its order."""
    assert result["status"] == "succeeded", result
    return [color_of(base64.b64decode(output["data"])) for output in result["outputs"]]


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    id: int
    name: str
    data: Any


class Stream:
    """An open event stream; `heard` has every event so far, `comments` counts what is no event."""

    def __init__(self, response: ClientResponse) -> None:
        self.response = response
        self.heard: list[Event] = []
        self.comments = 0
        self._rest = b""

    async def advance(self) -> bool:
        """Take one more event or comment in; whether there was one."""
        while b"\n\n" not in self._rest:
            chunk = await self.response.content.readany()
            if not chunk:
                assert not self._rest, "the stream broke off in the middle of an event"
                return False
            self._rest += chunk
        block, _, self._rest = self._rest.partition(b"\n\n")
        if block.startswith(b":"):
            self.comments += 1
        else:
            fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
            self.heard.append(Event(int(fields["id"]), fields["event"], json.loads(fields["data"])))
        return True

    async def until_comments(self, count: int) -> None:
        """So many comments have come."""
        async with asyncio.timeout(PATIENCE):
            while self.comments < count:
                assert await self.advance(), "the stream ended"

    async def until(self, name: str, **data: Any) -> Event:
        """The next event of that name whose data have these members."""
        async with asyncio.timeout(PATIENCE):
            seen = len(self.heard)
            while await self.advance():
                for event in self.heard[seen:]:
                    if event.name == name and data.items() <= event.data.items():
                        return event
                seen = len(self.heard)
        raise AssertionError(f"the stream ended without {name} {data}: {self.heard}")

    async def last(self) -> Event:
        """The last event, once the stream has ended."""
        async with asyncio.timeout(PATIENCE):
            while await self.advance():
                pass
        return self.heard[-1]

    def all(self, name: str) -> list[Any]:
        """The data of all events of that name so far."""
        return [event.data for event in self.heard if event.name == name]


class Caller:
    """Calls one converter. `replica` is for what no probe shows."""

    def __init__(self, replica: Replica, session: ClientSession) -> None:
        self.replica = replica
        self.url = replica.address
        self.session = session
        self._tasks: set[asyncio.Task[Reply]] = set()

    async def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None, **options: Any) -> Reply:
        """One request and its whole answer; raises ClientError where the answer breaks off."""
        async with self.session.request(method, f"{self.url}{path}", headers=headers, **options) as response:
            return Reply(response.status, response.headers, await response.read())

    async def get(self, path: str, **headers: str) -> Reply:
        """GET; header names are written with underscores."""
        return await self.ask("GET", path, _headers(headers))

    async def post(self, path: str, document: Any, **headers: str) -> Reply:
        """POST of JSON; header names are written with underscores."""
        return await self.ask("POST", path, _headers(headers), json=document)

    async def run(self, workflow: Any, headers: Mapping[str, str] | None = None, **fields: Any) -> Reply:
        """`POST /v1/run`; `fields` are those beside the workflow."""
        return await self.ask("POST", "/v1/run", headers, json={"workflow": workflow, **fields})

    def start(self, workflow: Any, headers: Mapping[str, str] | None = None, **fields: Any) -> asyncio.Task[Reply]:
        """`run` in the background; canceling the task is how a caller leaves."""
        task = asyncio.create_task(self.run(workflow, headers, **fields))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @asynccontextmanager
    async def events(self, workflow: Any, **fields: Any) -> AsyncIterator[Stream]:
        """`POST /v1/run` as an event stream; leaving the block early is how its caller leaves."""
        body = {"workflow": workflow, **fields}
        accept = {"Accept": "text/event-stream"}
        async with self.session.post(f"{self.url}/v1/run", json=body, headers=accept) as response:
            assert response.status == 200, await response.text()
            yield Stream(response)
            response.close()

    @asynccontextmanager
    async def watch(self, job_id: str, *, after: int | None = None) -> AsyncIterator[Stream]:
        """`GET /v1/jobs/ID/events`."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        async with self.session.get(f"{self.url}/v1/jobs/{job_id}/events", headers=headers) as response:
            assert response.status == 200, await response.text()
            yield Stream(response)
            response.close()

    async def cancel(self, job_id: str) -> Reply:
        """`POST /v1/jobs/ID/cancel`."""
        return await self.ask("POST", f"/v1/jobs/{job_id}/cancel")

    async def job(self, job_id: str) -> Any:
        """`GET /v1/jobs/ID`, as its document."""
        return (await self.get(f"/v1/jobs/{job_id}")).document

    async def until_job(self, job_id: str, *states: str) -> Any:
        """The job's document once it is in one of the states."""
        async with asyncio.timeout(PATIENCE):
            while True:
                document = await self.job(job_id)
                if document.get("status") in states:
                    return document
                await asyncio.sleep(POLL)

    # What no caller sees ---------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """As the probes say it."""
        return self.replica.gate.view().state.value

    @property
    def ready(self) -> bool:
        """As `/readyz` says it."""
        return self.replica.gate.view().ready

    @property
    def tickets(self) -> int:
        """Places taken by orders of ours."""
        queue = self.replica.gate.queue()
        return queue["running"] + queue["waiting"]

    async def until(self, condition: Callable[[], object], timeout: float = PATIENCE) -> None:
        """Wait until something about the converter is true; raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while True:
                if condition():
                    return
                await asyncio.sleep(POLL)

    async def until_ready(self) -> None:
        """The engine is up and warm, the converter listens to it, and there is a place."""
        await self.until(lambda: self.ready)

    @property
    def prompts(self) -> int:
        """Prompts that somebody follows."""
        return len(self.replica.jobs._means.link.prompts)

    @property
    def hears(self) -> bool:
        """Whether the websocket to the engine is open."""
        return self.replica.jobs._means.link.client_id is not None

    async def until_empty(self) -> None:
        """No job is carried, no ticket is held."""
        await self.until(lambda: not self.tickets)
        async with asyncio.timeout(PATIENCE):
            await self.replica.jobs.idle()

    async def leave(self) -> None:
        """Break off every request that `start` began."""
        for task in list(self._tasks):
            await give_up(task)


async def give_up(task: asyncio.Task[Reply]) -> None:
    """Leave before the answer is there."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@asynccontextmanager
async def converter(
    engine_url: str, *, wait: bool = True, tracing: Tracing | None = None, **settings: Any
) -> AsyncIterator[Caller]:
    """A converter with these settings (by name), attached to the engine; ready, unless `wait` is false."""
    loaded = load({"engine_url": engine_url, "port": 0, **settings}, {})
    connector = TCPConnector(limit=0)
    failure: Exception | None = None
    async with (
        run_replica(loaded, {}, tracing) as replica,
        ClientSession(connector=connector, timeout=ClientTimeout(total=90)) as session,
    ):
        caller = Caller(replica, session)
        try:
            if wait:
                await caller.until_ready()
            yield caller
            await caller.leave()
            await caller.until_empty()
        except Exception as error:  # kept, since the replica's task groups would wrap it
            failure = error
            await caller.leave()
    if failure is not None:
        raise failure


def _headers(named: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in named.items()}
