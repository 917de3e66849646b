"""Callers: each order is asked for when its time has come, whatever became of those before; every answer is noted.

Leaves what answers ought to be to `verdict`. Invariant: each request that is sent becomes one `Answer`.
"""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector
from PIL import Image

from tests.e2e.chaos.orders import SIDE, TIMEOUT, WAITING, Order
from tests.e2e.chaos.records import Answer
from tests.fakes.pictures import color_of

LONGEST = TIMEOUT + 60.0
"""Seconds after which a caller takes it that no answer will come."""

APART = 0.05
"""Seconds between the two requests of twins, if the first has no answer by then."""

POLL = 0.1
"""Seconds between two looks at a job."""


class Callers:
    """Asks the service at `url`. `sent`: orders so far; `on_sent` is called after each."""

    def __init__(self, url: str, answers: list[Answer], on_sent: Callable[[int], None] = lambda sent: None) -> None:
        self.url = url
        self.sent = 0
        self._answers = answers
        self._on_sent = on_sent

    async def __aenter__(self) -> "Callers":
        self._session = ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(total=LONGEST))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    async def ask_all(self, orders: Iterable[Order], rate: float) -> None:
        """An open loop: `rate` orders a second on average. Returns when all have their answers or have left."""
        due = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for order in orders:
                due += order.pause / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                group.create_task(self.ask(order))
                self.sent += 1
                self._on_sent(self.sent)

    async def ask(self, order: Order) -> None:
        """Ask for one order, once or as its twins do."""
        if order.shape == "junk":
            await self._send_junk(order)
        elif order.shape == "twins":
            await self._ask_twice(order)
        else:
            await self.run(order)

    async def _ask_twice(self, order: Order) -> None:
        """The second of twins comes while the first waits, or when it has its answer."""
        key = {"Idempotency-Key": f'"{order.number}"'}
        async with asyncio.TaskGroup() as group:
            first = group.create_task(self.run(order, "-a", key))
            await asyncio.wait([first], timeout=APART if order.variety % 2 else None)
            group.create_task(self.run(order, "-b", key))

    async def run(self, order: Order, suffix: str = "", headers: Mapping[str, str] | None = None) -> Answer:
        """One request for the order."""
        body = {"workflow": order.graph(), "timeout": TIMEOUT, "priority": order.priority}
        answer = Answer(f"{order.number}{suffix}", order, asked=time.time())
        given = {"X-Request-Id": answer.request_id, **WISHES.get(order.shape, {}), **(headers or {})}
        try:
            async with asyncio.timeout(order.leaves if order.shape in WAITING else None):
                async with self._session.post(f"{self.url}/v1/run", json=body, headers=given) as response:
                    await self._read(answer, response)
        except TimeoutError:
            if order.leaves is None:
                answer.trouble = "no answer in time"
            else:
                answer.left = time.time()
        except (ClientError, OSError, ValueError) as error:
            answer.trouble = repr(error)
        return self._note(answer)

    async def _read(self, answer: Answer, response: ClientResponse) -> None:
        """The whole answer, whatever its shape."""
        answer.retry_after = response.headers.get("Retry-After")
        if response.content_type == "text/event-stream":
            read_last_event(answer, await response.read())
        elif response.status == 202:
            await response.read()
            await self._follow(answer, f"{self.url}{response.headers['Location']}")
        elif response.content_type == "image/png":
            answer.picture = read_color(await response.read())
        else:
            read_document(answer, await response.json(content_type=None))
        answer.status = answer.status or response.status

    async def _follow(self, answer: Answer, job: str) -> None:
        """A job that goes on alone, to its end."""
        if answer.order.shape == "canceled":
            await asyncio.sleep(answer.order.leaves or 0.0)
            async with self._session.post(f"{job}/cancel") as response:
                await response.read()
        if answer.order.shape == "background":
            async with self._session.get(f"{job}/events") as response:
                read_last_event(answer, await response.read())
            return
        while not answer.status:
            async with self._session.get(job) as response:
                read_job(answer, await response.json())
            await asyncio.sleep(POLL)

    def _note(self, answer: Answer) -> Answer:
        answer.answered = time.time()
        self._answers.append(answer)
        return answer

    async def _send_junk(self, order: Order) -> None:
        """Bytes on a connection of their own; some callers leave in the middle of what they send."""
        data, leaves = JUNK[order.variety % len(JUNK)]
        answer = Answer(str(order.number), order, asked=time.time())
        parts = urlsplit(self.url)
        try:
            async with asyncio.timeout(LONGEST):
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
                writer.write(data)
                await writer.drain()
                if leaves:
                    answer.left = time.time()
                else:
                    read_head(answer, await reader.readuntil(b"\r\n\r\n"))
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
        except (TimeoutError, OSError, EOFError, ValueError) as error:
            answer.trouble = repr(error)
        self._note(answer)


_ALONE = {"Prefer": "respond-async"}

WISHES: Mapping[str, Mapping[str, str]] = {
    "raw": {"Accept": "image/png"},
    "events": {"Accept": "text/event-stream"},
    "background": _ALONE,
    "polled": _ALONE,
    "canceled": _ALONE,
}


def read_document(answer: Answer, document: Any) -> None:
    """A result, or a fault."""
    answer.code = document.get("code", "")
    if answer.retry_after is None and "retry_after" in document:  # where the answer had begun before it was refused
        answer.retry_after = str(document["retry_after"])
    if document.get("status") == "succeeded":
        pictures = [base64.b64decode(output["data"]) for output in document["outputs"]]
        answer.picture = read_color(pictures[0]) if len(pictures) == 1 else None


def read_job(answer: Answer, document: Any) -> None:
    """A job's document, which says how it ended, once it has; raises ValueError."""
    error = document.get("error", document)
    if document.get("status") == "succeeded" or "code" in error:
        answer.status = error.get("status", 200) if "code" in error else 200
        read_document(answer, error)


def read_last_event(answer: Answer, body: bytes) -> None:
    """The stream's last event, which must be its only `result` or `error`; raises ValueError."""
    events = [
        dict(line.split(": ", 1) for line in block.split("\n"))
        for block in body.decode().removesuffix("\n\n").split("\n\n")
        if block and not block.startswith(":")
    ]
    names = [event["event"] for event in events]
    if not names or names[-1] not in ("result", "error") or len({"result", "error"}.intersection(names)) != 1:
        raise ValueError(f"a stream with the events {names[-5:]}")
    document = json.loads(events[-1]["data"])
    read_document(answer, document)
    answer.status = 200 if names[-1] == "result" else document["status"]


def read_head(answer: Answer, head: bytes) -> None:
    """Status and `Retry-After` of a bare answer; raises ValueError."""
    first, *lines = head.decode().split("\r\n")
    answer.status = int(first.split(" ", 2)[1])
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    answer.retry_after = headers.get("retry-after")


def read_color(data: bytes) -> int | None:
    """The one colour of all pixels of a picture of the right size; None if it is anything else."""
    try:
        with Image.open(BytesIO(data)) as picture:
            alike = picture.convert("RGB").getcolors(1) is not None
            return color_of(data) if alike and picture.size == (SIDE, SIDE) else None
    except OSError:
        return None


def _request(body: bytes, method: str = "POST", path: str = "/v1/run", kind: str = "application/json") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


_NODE = {"class_type": "NoSuchNode", "inputs": {}}
_SAVING = {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "junk"}}

JUNK: tuple[tuple[bytes, bool], ...] = (
    (_request(b"{'workflow':"), False),
    (_request(b"{}"), False),
    (_request(json.dumps({"workflow": {"nodes": [], "links": []}}).encode()), False),
    (_request(json.dumps({"workflow": {"1": _NODE}}).encode()), False),
    (_request(json.dumps({"workflow": {"1": _SAVING}}).encode()), False),
    (_request(json.dumps({"workflow": {"1": _NODE}, "wrkflow": 1}).encode()), False),
    (_request(b"workflow", kind="text/plain"), False),
    (_request(b"", method="DELETE"), False),
    (_request(b"", method="GET", path="/v1/jobs/none"), False),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", False),
    (_request(b'{"workflow": {}}')[:-4], True),
    (b"POST /v1/run HTTP/1.1\r\nHost:", True),
)  # fmt: skip
"""Bytes, and whether their caller leaves without an answer."""
