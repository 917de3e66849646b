"""The native dialect: `/v1/run`, jobs and workflows.

Turns requests into orders and outcomes into answers. Leaves to others: reading bodies (`bodies`), sending answers
(`answers`), everything about jobs (`jobs`). Invariant: an order gets exactly one answer, or its caller has left.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from aiohttp import web

from converter.api.answers import JOB_ID, KEY_NAME, REPLAYED, REQUEST_ID, RUN, TIMES, send_json, send_raw, stream
from converter.api.bodies import Examination, read_document, validate
from converter.api.choices import choose, narrow, reselect
from converter.api.dialects import Hall
from converter.api.notices import NATIVE
from converter.api.requests import Common, RunRequest, TemplateRequest
from converter.api.turnstile import Turnstile
from converter.api.work import LONG_TIMEOUT, draw_seed
from converter.core import admission
from converter.core.guesses import suggest
from converter.core.idempotency import Claim, fingerprint, read_key
from converter.core.media import media_inputs
from converter.core.negotiation import Preference, Shape, Wish, read_accept, read_prefer
from converter.core.offers import Offer
from converter.core.order import Order, Part, Selection
from converter.core.template import Template, examine, fill, schema
from converter.core.workflow import clip
from converter.errors import Fault, InvalidRequest, NotAcceptable, NotFound
from converter.media.outputs import Item
from converter.runner import Run

RETURNS = 16
"""Bodies that are read at once of callers whose key stands for a job: they take no place from anybody."""

B = TypeVar("B", bound=Common)

Select = Callable[[list[str] | None], tuple[str, ...] | None]
"""Finds the nodes that `outputs.nodes` means; None is all."""


class Native:
    """The handlers."""

    def __init__(self, hall: Hall) -> None:
        self._gate = hall.gate
        self._jobs = hall.jobs
        self._offers = hall.offers
        self._bounds = hall.bounds
        self._timeout = hall.timeout
        self._max_timeout = hall.max_timeout
        self._silence = hall.silence
        self._public_url = hall.public_url
        self._notices = hall.notices
        self._returns = Turnstile(hall.gate, RETURNS, "too many callers come back with their keys at once")

    def routes(self) -> list[web.RouteDef]:
        """What this dialect serves."""
        return [
            web.post("/v1/run", self.run),
            web.get("/v1/jobs/{id}", self.show_job, allow_head=False),
            web.get("/v1/jobs/{id}/events", self.watch_job, allow_head=False),
            web.post("/v1/jobs/{id}/cancel", self.cancel_job),
            web.get("/v1/workflows", self.list_templates),
            web.get("/v1/workflows/{name}", self.show_template),
            web.post("/v1/workflows/{name}", self.run_template),
        ]

    # Running --------------------------------------------------------------------------------------------------------

    async def run(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/run`."""
        return await self._work(request, RunRequest, None, self._order_run, _take_nodes)

    async def run_template(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/workflows/NAME`."""
        template = self._find_offer(request).template
        compose, examination = partial(self._order_template, template), partial(_examine, template)
        return await self._work(request, TemplateRequest, examination, compose, template.select)

    async def _work(
        self,
        request: web.Request,
        model: type[B],
        examination: Examination | None,
        compose: Callable[[B, Mapping[str, Part], Preference], Order],
        select: Select,
    ) -> web.StreamResponse:
        """Read a request, begin its job or find the one that its idempotency key stands for, and answer."""
        wish, preference = _read_headers(request)
        key = read_key(request.headers.getall("Idempotency-Key", []))
        scope = request.get(KEY_NAME, "")
        ticket, claim, run = None, None, None
        with ExitStack() as stack:
            if key is not None and self._jobs.knows(scope, key):
                stack.enter_context(self._returns.passed())
            else:
                ticket = stack.enter_context(self._gate.knock())
            document, parts = await read_document(request, self._bounds)
            body = validate(model, document, examination)
            wish = narrow(body.outputs, wish)
            selection = choose(body.outputs, select(body.outputs.nodes), wish)
            self._jobs.check_delivery(selection.delivery)
            if key is not None:
                claim = Claim(scope, key, fingerprint(request.method, request.path, document, parts))
                run = self._jobs.recall(claim)
            if run is None:
                ticket = ticket or stack.enter_context(self._gate.knock())  # the key has become free meanwhile
                about = {"scope": scope, "request": request[REQUEST_ID]}
                order = replace(compose(body, parts, preference), selection=selection, **about)
                order = self._foresee(order, wish)
                if body.webhook is not None:
                    self._notices.check(body.webhook, "webhook")
                alone = preference.respond_async or body.webhook is not None  # the receiver waits for it, too
                run = self._jobs.begin(order, ticket, alone=alone, claim=claim)
                if body.webhook is not None:
                    await self._notices.expect(body.webhook, run, NATIVE)
            else:
                request[REPLAYED] = run.outcome.done()
        return await self._answer(request, run, wish, preference, selection)

    def _order_run(self, body: RunRequest, parts: Mapping[str, Part], preference: Preference) -> Order:
        return self._order(body, body.workflow, parts, preference)

    def _order_template(
        self, template: Template, body: TemplateRequest, parts: Mapping[str, Part], preference: Preference
    ) -> Order:
        workflow, used = fill(template, body.inputs, draw_seed)
        labels = {output.node_id: output.name for output in template.outputs}
        order = self._order(body, workflow, parts, preference)
        return replace(order, media=template.media, inputs=used, labels=labels, holes=template.inputs)

    def _order(
        self, body: Common, workflow: Mapping[str, Any], parts: Mapping[str, Part], preference: Preference
    ) -> Order:
        longer = preference.respond_async or preference.wait is not None
        timeout = body.timeout or (LONG_TIMEOUT if longer else self._timeout)
        return Order(
            id=body.id or self._jobs.name(),
            workflow=workflow,
            timeout=min(timeout, self._max_timeout),
            priority=body.priority,
            extra_data=body.extra_data,
            parts=parts,
        )

    def _foresee(self, order: Order, wish: Wish) -> Order:
        """The order with what the workflow shows of its outputs; refused if they could not be answered in the end."""
        nodes = self._jobs.foresee(order) or ()
        _refuse_strays(order)
        if wish.shape is Shape.RAW and wish.several is None and len(nodes) > 1:
            detail = f"the workflow has {len(nodes)} outputs, and the request allows only one"
            choice = "name one node in outputs.nodes, or accept multipart/mixed, application/zip or application/json"
            raise NotAcceptable(f"{detail}; {choice}", nodes=list(nodes))
        return replace(order, foreseen=nodes)

    async def _answer(
        self, request: web.Request, run: Run, wish: Wish, preference: Preference, selection: Selection
    ) -> web.StreamResponse:
        request[JOB_ID] = run.id
        request[RUN] = run
        if preference.respond_async and preference.wait is None:
            run.keep()
            return self._accepted(run, preference)
        with run.interested():
            try:
                if preference.wait is not None and not await _ends_within(run, preference.wait):
                    run.keep()
                    return self._accepted(run, preference)
                if wish.shape is Shape.STREAM:
                    owner = not run.kept
                    return await stream(request, run, self._jobs, owner=owner, after=0, silence=self._silence)
                return await self._conclude(request, run, wish, selection)
            finally:  # others may still watch the job: what is open for this caller is closed without waiting for them
                run.delivered()

    async def _conclude(self, request: web.Request, run: Run, wish: Wish, selection: Selection) -> web.StreamResponse:
        """The answer when the job has ended."""
        outcome = await asyncio.shield(run.outcome)
        if not request.get(REPLAYED):
            request[TIMES] = run.times
        if isinstance(outcome, Fault):
            run.told.set()
            raise outcome
        if run.kept:
            return await self._send_again(request, run, wish, selection)
        try:
            return await self._send(request, run, run.items, wish)
        except NotAcceptable:
            run.keep()
            raise

    async def _send(self, request: web.Request, run: Run, items: Sequence[Item], wish: Wish) -> web.StreamResponse:
        raw = wish.shape is Shape.RAW
        answer = send_raw(request, run, items, wish, self._place(run)) if raw else send_json(request, run, items)
        response = await answer
        run.told.set()
        return response

    def _accepted(self, run: Run, preference: Preference) -> web.Response:
        headers = {"Location": self._place(run), "Preference-Applied": preference.applied}
        return web.json_response(self._describe(run), status=202, headers=headers)

    def _place(self, run: Run) -> str:
        return f"{self._public_url}/v1/jobs/{run.id}"

    # Jobs -----------------------------------------------------------------------------------------------------------

    async def show_job(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/jobs/ID`: the result once there is one, else how far the job is."""
        run = self._find(request)
        wish, _ = _read_headers(request)
        if wish.shape is Shape.STREAM:
            return await self.watch_job(request)
        if run.state != "succeeded":
            if run.outcome.done():
                run.told.set()
            if wish.shape is Shape.RAW:
                raise _explain_absence(run)
            return web.json_response(self._describe(run, request[REQUEST_ID]))
        return await self._send_again(request, run, wish, reselect(run, wish))

    def _find(self, request: web.Request) -> Run:
        run = self._jobs.find(request.match_info["id"], request.get(KEY_NAME, ""))
        request[JOB_ID] = run.id
        return run

    async def _send_again(
        self, request: web.Request, run: Run, wish: Wish, selection: Selection | None = None
    ) -> web.StreamResponse:
        async with AsyncExitStack() as stack:
            return await self._send(request, run, await self._jobs.reopen(run, stack, selection), wish)

    async def watch_job(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/jobs/ID/events`: what happens from here on, or after `Last-Event-ID`; 204 ends an EventSource."""
        run = self._find(request)
        last = request.headers.get("Last-Event-ID", "")
        after = int(last) if last.isascii() and last.isdigit() and len(last) < 16 else 0
        if run.chronicle.is_told(after):
            return web.Response(status=204, headers={"X-Job-Id": run.id})
        with run.interested():
            return await stream(request, run, self._jobs, owner=False, after=after, silence=self._silence)

    async def cancel_job(self, request: web.Request) -> web.Response:
        """`POST /v1/jobs/ID/cancel`: idempotent; answers the state that the job is in by then."""
        run = self._find(request)
        self._jobs.cancel(run)
        run.told.set()
        return web.json_response(self._describe(run, request[REQUEST_ID]))

    def _describe(self, run: Run, request_id: str = "") -> dict[str, Any]:
        document = run.document()
        del document["outputs"]  # what a job without a result has is not none, but not known
        if run.state == "succeeded":
            return document
        if not run.outcome.done():
            status = run.status()
            document["queue"] = {name: status[name] for name in ("position", "estimated_seconds")}
            document["progress"] = run.chronicle.snapshot()
            return document
        outcome = run.outcome.result()
        if isinstance(outcome, Fault):
            document["error"] = outcome.problem() | {"request_id": request_id}
        return document

    # Templates ------------------------------------------------------------------------------------------------------

    async def list_templates(self, request: web.Request) -> web.Response:
        """`GET /v1/workflows`."""
        return web.json_response({"workflows": [_summarize(offer) for offer in self._offers().values()]})

    async def show_template(self, request: web.Request) -> web.Response:
        """`GET /v1/workflows/NAME`: with the JSON Schema of its inputs, and the nodes of its named outputs."""
        offer = self._find_offer(request)
        outputs = {
            output.name: {"node_id": output.node_id, "description": output.description}
            for output in offer.template.outputs
        }
        return web.json_response(_summarize(offer) | {"inputs": schema(offer.template), "outputs": outputs})

    def _find_offer(self, request: web.Request) -> Offer:
        name, offers = request.match_info["name"], self._offers()
        if name not in offers:
            raise NotFound(f"there is no workflow {name[:64]} here{suggest(name, offers)}")
        return offers[name]


def _examine(template: Template, document: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
    inputs = document.get("inputs", {})
    return examine(template, inputs) if isinstance(inputs, dict) else ()


def _refuse_strays(order: Order) -> None:
    """Parts that no input refers to are a mistake, as unknown fields are."""
    strays = set(order.parts)
    if strays:
        found = media_inputs(order.workflow, order.media, parts=order.parts)
        strays -= {media.value for media in found if media.kind == "part"}
    if strays:
        problems = [f'no input refers to the part "{clip(name, 64)}"' for name in sorted(strays)]
        raise InvalidRequest([{"pointer": "", "detail": problem} for problem in problems])


def _take_nodes(nodes: list[str] | None) -> tuple[str, ...] | None:
    return None if nodes is None else tuple(nodes)


def _explain_absence(run: Run) -> Fault:
    """Why a job that has not succeeded has no bytes."""
    outcome = run.outcome.result() if run.outcome.done() else None
    if isinstance(outcome, Fault):
        return outcome
    seconds = run.status()["estimated_seconds"] or admission.UNMEASURED
    retry_after = admission.retry_after(seconds, random.random())
    detail = f"the job is not finished yet, it is {run.state}; application/json tells how far it is"
    return NotAcceptable(detail, retry_after=retry_after)


def _summarize(offer: Offer) -> dict[str, Any]:
    template = offer.template
    about = {"name": template.name, "title": template.title, "description": template.description}
    return about | {"available": offer.available} | ({"reason": offer.reason} if offer.reason else {})


def _read_headers(request: web.Request) -> tuple[Wish, Preference]:
    wish = read_accept(",".join(request.headers.getall("Accept", [])))
    if wish is None:
        kinds = "application/json, text/event-stream, image/*, video/*, audio/*, application/octet-stream, "
        kinds += "multipart/mixed, application/zip"
        raise NotAcceptable(f"the Accept header allows nothing that is made here: {kinds}")
    return wish, read_prefer(request.headers.getall("Prefer", []))


async def _ends_within(run: Run, seconds: float) -> bool:
    done, _ = await asyncio.wait([run.outcome], timeout=seconds)
    return bool(done)
