"""The dialect `runpod`: a replica as one serverless endpoint of RunPod's that runs worker-comfyui.

For: callers of `/run`, `/runsync`, `/status`, `/cancel` and `/health`, such as RunPod's own clients, under `/runpod/`.
Leaves RunPod's words for jobs to `core.runpod`. Invariant: a job that was begun is told as a job, whatever became of
it; what was not begun, and what lies under no path here, is an HTTP error.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from converter.api import work
from converter.api.answers import JOB_ID, KEY_NAME, TIMES, render_as, send
from converter.api.bodies import read_document, validate
from converter.api.dialects import Hall
from converter.api.requests import lacking
from converter.core import runpod
from converter.core.order import Order
from converter.core.workflow import check
from converter.errors import Fault, InvalidRequest, NotFound
from converter.media.deliver import JsonBody
from converter.media.outputs import Item
from converter.runner import Run

WAIT = 90.0
"""Seconds that `/runsync` waits unless it is told otherwise."""

LACKING = ("stream", "status-sync", "retry", "purge-queue", "requests", "openai")
"""Operations of RunPod's endpoints that are not offered."""


class Image(BaseModel):
    """A picture under the name by which the workflow refers to it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1, max_length=255)]
    image: Annotated[str, Field(min_length=1)]


class Input(BaseModel):
    """What worker-comfyui takes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    workflow: dict[str, Any]
    images: Annotated[list[Image], Field(max_length=64)] = []
    api_key_comfy_org: str | None = None


class Policy(BaseModel):
    """RunPod's execution policy. `ttl` is in milliseconds, for the whole life of the job until it ends."""

    model_config = ConfigDict(extra="forbid", strict=True)

    ttl: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    low_priority: Annotated[bool, Field(alias="lowPriority")] = False
    execution_timeout: Annotated[None, Field(alias="executionTimeout"), lacking("use ttl")] = None


class Request(BaseModel):
    """The body of `/run` and `/runsync`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input: Input
    policy: Policy = Policy()
    webhook: Annotated[None, lacking("poll /status")] = None
    s3_config: Annotated[None, Field(alias="s3Config"), lacking("outputs are in the answer")] = None


@asynccontextmanager
async def open_dialect(hall: Hall) -> AsyncIterator["RunPod"]:
    """The dialect; it counts the jobs that it has begun."""
    yield RunPod(hall)


class RunPod:
    """The handlers."""

    orders = frozenset({("POST", "/runpod/run"), ("POST", "/runpod/runsync")})

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._ended: Counter[str] = Counter()

    def routes(self) -> list[web.RouteDef]:
        """What this dialect serves."""
        return [
            web.post("/runpod/run", self.run),
            web.post("/runpod/runsync", self.run_sync),
            web.get("/runpod/status/{id}", self.show, allow_head=False),
            web.post("/runpod/cancel/{id}", self.cancel),
            web.get("/runpod/health", self.health, allow_head=False),
            web.route("*", f"/runpod/{{operation:{'|'.join(LACKING)}}}{{rest:(/.*)?}}", self.refuse),
        ]

    def owns(self, path: str) -> bool:
        """Whether callers of a path expect its words."""
        return path.startswith("/runpod/")

    def render(self, fault: Fault, request_id: str) -> web.Response:
        """A fault: `error` is text, as RunPod has it, and `problem` all that is known."""
        return render_as(fault, {"error": fault.detail, "problem": fault.problem() | {"request_id": request_id}})

    async def run(self, request: web.Request) -> web.Response:
        """`POST /run`: the job goes on without its caller."""
        run = await self._begin(request, alone=True)
        return web.json_response(_describe(run))

    async def run_sync(self, request: web.Request) -> web.StreamResponse:
        """`POST /runsync`: waits for the job, and lets it go on without its caller after that."""
        wait = _read_wait(request.query.get("wait"))
        run = await self._begin(request, alone=False)
        with work.served(run):
            ended, _ = await asyncio.wait([run.outcome], timeout=wait)
            if not ended:
                run.keep()
                return web.json_response(_describe(run))
            request[TIMES] = run.times
            outcome = run.outcome.result()
            if isinstance(outcome, Fault) and outcome.retry == "later":  # nothing has been done for it
                raise outcome
            return await self._answer(request, run)

    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /status/ID`: the job, with its output once there is one."""
        return await self._answer(request, self._find(request))

    async def cancel(self, request: web.Request) -> web.Response:
        """`POST /cancel/ID`: idempotent; answers the state that the job is in by then."""
        run = self._find(request)
        self._hall.jobs.cancel(run)
        run.told.set()
        return web.json_response(_describe(run))

    async def health(self, request: web.Request) -> web.Response:
        """`GET /health`: jobs of the replica, and the replica as the one worker of an endpoint."""
        gate = self._hall.gate
        ended = (self._ended["succeeded"], self._ended["failed"])
        return web.json_response(runpod.health(gate.view().state.value, gate.queue(), *ended))

    async def refuse(self, request: web.Request) -> web.Response:
        """What RunPod's endpoints have beside these."""
        raise NotFound(f"/{request.match_info['operation']} is not offered here")

    async def _begin(self, request: web.Request, *, alone: bool) -> Run:
        jobs, longest = self._hall.jobs, self._hall.max_timeout
        with self._hall.gate.knock() as ticket:
            document, parts = await read_document(request, self._hall.bounds)
            if parts:
                raise InvalidRequest([{"pointer": "", "detail": "images come inside, as input.images"}])
            body = validate(Request, document)
            images = [(image.name, image.image) for image in body.input.images]
            workflow, places = runpod.place_images(check(body.input.workflow), images)
            key, ttl = body.input.api_key_comfy_org, body.policy.ttl
            order = Order(
                jobs.name(),
                workflow,
                min(work.LONG_TIMEOUT if ttl is None else ttl / 1000, longest),
                priority=-1 if body.policy.low_priority else 0,
                extra_data={} if key is None else {"api_key_comfy_org": key},
                media=places,
            )
            run = work.begin(request, jobs, order, ticket, alone=alone)
        run.outcome.add_done_callback(lambda _: self._ended.update([run.state]))
        return run

    def _find(self, request: web.Request) -> Run:
        run = self._hall.jobs.find(request.match_info["id"], request.get(KEY_NAME, ""))
        request[JOB_ID] = run.id
        return run

    async def _answer(self, request: web.Request, run: Run) -> web.StreamResponse:
        if run.outcome.done():
            run.told.set()
        if run.state != "succeeded":
            return web.json_response(_describe(run))
        async with AsyncExitStack() as stack:
            items = await self._hall.jobs.reopen(run, stack) if run.kept else run.items
            body = JsonBody(partial(_enclose, _describe(run)), [_as_file(item) for item in items], _describe_file)
            return await send(request, body, {"Content-Type": "application/json"})


def _describe(run: Run) -> dict[str, Any]:
    outcome = run.outcome.result() if run.outcome.done() else None
    return runpod.describe(run.id, run.state, run.times, outcome if isinstance(outcome, Fault) else None)


def _enclose(document: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    return {**document, "output": {"images": place}}


def _as_file(item: Item) -> Item:
    """Texts are files, too: RunPod's form has nothing else for them."""
    return item if item.content is not None else replace(item, content=(item.output.text or "").encode())


def _describe_file(item: Item) -> Mapping[str, Any]:
    return {"filename": item.output.name, "type": "base64"}


def _read_wait(text: str | None) -> float:
    """Seconds, from milliseconds in the query."""
    if text is None:
        return WAIT
    if not (text.isascii() and text.isdigit() and 1000 <= int(text[:9]) <= 300_000 and len(text) < 10):
        raise InvalidRequest([{"pointer": "", "detail": "the query's wait must be from 1000 to 300000 (milliseconds)"}])
    return int(text) / 1000
