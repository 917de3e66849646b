"""The dialect itself: its routes, its words for faults, and jobs.

Turns requests into orders, and jobs of ours into theirs. Leaves event streams to `events`, what is known of jobs to
`cases`, and what things are called to `core.comfyapi`. Invariant: whoever is answered 201 has a job that is in the
ledger; an idempotency key is given back only where surely nothing was begun.
"""

import asyncio
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiohttp import web

from converter.api.answers import JOB_ID, KEY_NAME, REQUEST_ID, render_as
from converter.api.bodies import read_document, validate
from converter.api.comfyapi.answers import answer, origin
from converter.api.comfyapi.assets import Assets
from converter.api.comfyapi.cases import Case, Cases
from converter.api.comfyapi.events import Stream
from converter.api.comfyapi.requests import JobRequest
from converter.api.dialects import Hall
from converter.api.turnstile import Turnstile
from converter.api.work import LONG_TIMEOUT, begin
from converter.core import comfyapi
from converter.core.comfyapi import MOUNT
from converter.core.idempotency import read_key
from converter.core.order import Order, Selection
from converter.core.workflow import check
from converter.errors import Fault, IdempotencyMismatch, InvalidInput, InvalidRequest, InvalidWorkflow, NotFound
from converter.ledger import KEYS, Ledger
from converter.runner import Run

ACCEPTANCE = 2.0
"""Seconds for which a submission waits for the engine's word on its workflow, where nobody is ahead of it."""

LISTS = 8
"""Lists that are made at once: each may go through all that is kept, for which others wait."""

PAGE, LONGEST_PAGE = 50, 100
"""Jobs of a list, unless its caller says otherwise, and at most."""

_LABEL = re.compile(r"metadata\[(.*)\]", re.DOTALL)


class ComfyApi:
    """The handlers."""

    orders = frozenset({("POST", f"{MOUNT}/jobs")})

    def __init__(self, hall: Hall, ledger: Ledger, cases: Cases, assets: Assets) -> None:
        self._hall = hall
        self._ledger = ledger
        self._cases = cases
        self._assets = assets
        self._listing = Turnstile(hall.gate, LISTS, "too many lists of jobs are made at once")

    def routes(self) -> list[web.RouteDef]:
        """What it serves."""
        return [
            web.post(f"{MOUNT}/jobs", self.submit),
            web.get(f"{MOUNT}/jobs", self.list_jobs, allow_head=False),
            web.get(f"{MOUNT}/jobs/{{id}}", self.show, allow_head=False),
            web.post(f"{MOUNT}/jobs/{{id}}/cancel", self.cancel),
            web.get(f"{MOUNT}/jobs/{{id}}/events", self.watch, allow_head=False),
            web.get(f"{MOUNT}/jobs/{{id}}/workflow", self.show_workflow, allow_head=False),
            web.get(f"{MOUNT}/jobs/{{id}}/logs", self.show_logs, allow_head=False),
            *self._assets.routes(),
        ]

    def owns(self, path: str) -> bool:
        """Whether it is a path of this API."""
        return path == MOUNT or path.startswith(f"{MOUNT}/")

    def render(self, fault: Fault, request_id: str) -> web.Response:
        """A fault in the API's envelope, with the headers that tell clients what to do about it."""
        response = render_as(fault, comfyapi.show_fault(fault))
        response.set_status(comfyapi.call_fault(fault)[0])
        response.headers["X-Comfy-Request-Id"] = request_id
        return response

    # Submitting -----------------------------------------------------------------------------------------------------

    async def submit(self, request: web.Request) -> web.Response:
        """`POST /jobs`."""
        scope, key = request.get(KEY_NAME, ""), read_key(request.headers.getall("Idempotency-Key", []))
        now = time.time()
        if key is not None and not await self._ledger.claim(scope, key, now, now + KEYS):
            raise IdempotencyMismatch("the Idempotency-Key was used before; list the jobs to find what it began")
        begun = False
        try:
            run, workflow, labels = await self._begin(request, scope)
            begun = True
            await self._cases.add(run, labels, workflow)
            begun = not await self._is_refused(run)
            if not begun:
                await self._cases.drop(run)
                raise run.outcome.result()  # type: ignore[misc]
        finally:
            if key is not None and not begun:
                await asyncio.shield(self._ledger.release(scope, key))
        case = await self._cases.find(scope, run.id)
        return answer(request, self._cases.show(case, origin(request, self._hall.public_url)), status=201)

    async def _begin(self, request: web.Request, scope: str) -> tuple[Run, Mapping[str, Any], Mapping[str, str]]:
        """Read a request and begin its job; the workflow as it came, and the caller's labels."""
        hall = self._hall
        with hall.gate.knock() as ticket:
            document, parts = await read_document(request, hall.bounds)
            if parts:
                raise InvalidRequest([{"pointer": "", "detail": "the body must be JSON alone; files are assets"}])
            body = validate(JobRequest, document)
            if comfyapi.is_ui_export(body.workflow):
                raise comfyapi.ui_export()
            check(body.workflow)
            staged = await self._assets.resolve(body.workflow, scope)
            order = Order(
                hall.jobs.name(),
                comfyapi.replace_references(body.workflow),
                min(LONG_TIMEOUT, hall.max_timeout),
                extra_data={} if body.extra_data is None else body.extra_data.model_dump(),
                selection=Selection(delivery="url"),  # of their bytes none stay here
                parts=staged,
            )
            run = begin(request, hall.jobs, order, ticket, alone=True)
        return run, body.workflow, body.metadata

    async def _is_refused(self, run: Run) -> bool:
        """Whether the engine refuses the workflow, where it can say so at once: nobody is ahead."""
        queue, depth = self._hall.gate.queue(), self._hall.gate.engine_depth
        if queue["running"] + queue["waiting"] <= depth:
            with suppress(TimeoutError):
                async with asyncio.timeout(ACCEPTANCE):
                    await run.settled.wait()
        return run.outcome.done() and isinstance(run.outcome.result(), InvalidWorkflow | InvalidInput)

    # Jobs -----------------------------------------------------------------------------------------------------------

    async def show(self, request: web.Request) -> web.Response:
        """`GET /jobs/ID`."""
        case = await self._find(request)
        return answer(request, self._cases.show(case, origin(request, self._hall.public_url)))

    async def cancel(self, request: web.Request) -> web.Response:
        """`POST /jobs/ID/cancel`: idempotent."""
        case = await self._find(request)
        if case.run is not None:
            self._hall.jobs.cancel(case.run)
        return await self.show(request)

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """`GET /jobs/ID/events`."""
        case = await self._find(request)
        address = origin(request, self._hall.public_url)
        return await Stream(request, self._cases, address, self._hall.silence).send(case)

    async def show_workflow(self, request: web.Request) -> web.Response:
        """`GET /jobs/ID/workflow`: as it came, assets and all."""
        workflow = await self._ledger.workflow(request.get(KEY_NAME, ""), request.match_info["id"], time.time())
        if workflow is None:
            raise NotFound("there is no such job here")
        return answer(request, {"workflow": workflow, "format": "api"})

    async def show_logs(self, request: web.Request) -> web.Response:
        """`GET /jobs/ID/logs`: none are captured."""
        await self._find(request)
        return web.Response(status=204, headers={"X-Comfy-Request-Id": request[REQUEST_ID]})

    async def list_jobs(self, request: web.Request) -> web.Response:
        """`GET /jobs`: the newest first, with `metadata[NAME]=VALUE`, `limit` and `cursor`."""
        labels, before, most = _read_query(request)
        scope = request.get(KEY_NAME, "")
        with self._listing.passed():
            records, cursor = await self._ledger.list(scope, time.time(), labels, before, most)
        cases = [self._cases.observe(record) for record in records]
        page: dict[str, Any] = {"jobs": [comfyapi.show_summary(record) for record in cases]}
        if cursor is not None:
            page["next_cursor"] = str(cursor)
        return answer(request, page)

    async def _find(self, request: web.Request) -> Case:
        case = await self._cases.find(request.get(KEY_NAME, ""), request.match_info["id"])
        request[JOB_ID] = case.record.id
        return case


def _read_query(request: web.Request) -> tuple[dict[str, str], int | None, int]:
    """Labels, cursor and limit of a list; raises InvalidRequest with everything that is wrong."""
    labels, problems = {}, []
    for name, value in request.query.items():
        found = _LABEL.fullmatch(name)
        if found is not None:
            labels[found[1]] = value
        elif name not in ("limit", "cursor"):
            problems.append({"pointer": "", "detail": f"no such parameter: {name[:64]}"})
    limit, cursor = request.query.get("limit", str(PAGE)), request.query.get("cursor")
    if not limit.isdecimal() or len(limit) > 6 or not 1 <= int(limit) <= LONGEST_PAGE:
        problems.append({"pointer": "", "detail": f"limit must be a whole number from 1 to {LONGEST_PAGE}"})
    if cursor is not None and (not cursor.isdecimal() or len(cursor) > 18):
        problems.append({"pointer": "", "detail": "cursor must be one that was given as next_cursor"})
    if problems:
        raise InvalidRequest(problems)
    return labels, None if cursor is None else int(cursor), int(limit)
