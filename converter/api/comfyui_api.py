"""The dialect `comfyui-api`: SaladTechnologies' comfyui-api, version 1.18, as its callers know it.

For: `POST /prompt`, `/workflow/NAME` and `/interrupt`, the probes `/health` and `/ready`, and `/models`. Leaves its
words for statistics and errors to `core.comfyui_api`, and webhooks to `notices`. Invariant: readiness, refusals and
cancels are the converter's own; what is not offered is refused by its name.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from converter import __version__
from converter.api import work
from converter.api.answers import JOB_ID, KEY_NAME, render_as, send
from converter.api.bodies import read_document, validate
from converter.api.dialects import Hall
from converter.api.requests import WHOLE, Id, lacking
from converter.core import comfyui_api
from converter.core.guesses import suggest
from converter.core.order import Order, Selection
from converter.core.template import Template, fill
from converter.core.webhooks import format_time
from converter.core.workflow import check
from converter.errors import Expired, Fault, InvalidRequest, NotFound
from converter.media.deliver import JsonBody
from converter.media.outputs import Item
from converter.runner import Run

PATHS = ("/prompt", "/interrupt", "/health", "/ready", "/models", "/download")

B = TypeVar("B", bound="Common")


class Options(BaseModel):
    """How pictures are converted. What comfyui-api has beside the quality is taken at its default alone."""

    model_config = ConfigDict(extra="forbid", strict=True)

    quality: Annotated[int, Field(ge=1, le=100), WHOLE] = 80
    progressive: Literal[False] = False
    chroma_subsampling: Annotated[Literal["4:2:0"], Field(alias="chromaSubsampling")] = "4:2:0"
    optimize_coding: Annotated[Literal[True], Field(alias="optimizeCoding")] = True
    mozjpeg: Literal[False] = False
    trellis_quantisation: Annotated[Literal[False], Field(alias="trellisQuantisation")] = False
    overshoot_deringing: Annotated[Literal[False], Field(alias="overshootDeringing")] = False
    optimize_scans: Annotated[Literal[False], Field(alias="optimizeScans")] = False
    quantisation_table: Annotated[Literal[0], Field(alias="quantisationTable"), WHOLE] = 0
    alpha_quality: Annotated[Literal[100], Field(alias="alphaQuality"), WHOLE] = 100
    lossless: Literal[False] = False
    near_lossless: Annotated[Literal[False], Field(alias="nearLossless")] = False
    smart_subsample: Annotated[Literal[False], Field(alias="smartSubsample")] = False
    preset: Literal["default"] = "default"
    effort: Annotated[Literal[4], WHOLE] = 4


class Conversion(BaseModel):
    """`convert_output`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["png", "jpeg", "jpg", "webp"]
    options: Options = Options()


_UPLOADS = lacking("outputs are in the answer, or in the webhook")


class Common(BaseModel):
    """The fields that every request for work has."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Id | None = None
    webhook_v2: Annotated[str, Field(max_length=8192)] | None = None
    convert_output: Conversion | None = None
    webhook: Annotated[None, lacking("it is not signed; use webhook_v2")] = None
    s3: Annotated[None, _UPLOADS] = None
    hf_upload: Annotated[None, _UPLOADS] = None
    azure_blob_upload: Annotated[None, _UPLOADS] = None
    http_upload: Annotated[None, _UPLOADS] = None
    compress_outputs: Annotated[None, lacking("outputs come one by one")] = None
    signed_url: Annotated[None, lacking("outputs are in the answer")] = None
    credentials: Annotated[None, lacking("inputs come from URLs that ask for none, or as base64")] = None


class Prompt(Common):
    """The body of `POST /prompt`."""

    prompt: dict[str, Any]


class Workflow(Common):
    """The body of `POST /workflow/NAME`."""

    input: dict[str, Any]


class Interrupt(BaseModel):
    """The body of `POST /interrupt`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str


@asynccontextmanager
async def open_dialect(hall: Hall) -> AsyncIterator["ComfyuiApi"]:
    """The dialect; it keeps nothing."""
    yield ComfyuiApi(hall)


class ComfyuiApi:
    """The handlers."""

    orders = frozenset({("POST", "/prompt"), ("POST", "/workflow/{name}")})
    opened = frozenset({"/health", "/ready"})

    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    def routes(self) -> list[web.RouteDef]:
        """What this dialect serves."""
        return [
            web.post("/prompt", self.prompt),
            web.post("/workflow/{name}", self.workflow),
            web.post("/interrupt", self.interrupt),
            web.get("/health", self.health),
            web.get("/ready", self.ready),
            web.get("/models", self.models),
            web.post("/download", self.refuse),
        ]

    def owns(self, path: str) -> bool:
        """Whether callers of a path expect its words."""
        return path in PATHS or path.startswith("/workflow/")

    def render(self, fault: Fault, request_id: str) -> web.Response:
        """A fault: `error` is text, as comfyui-api has it."""
        status, document = comfyui_api.explain(fault)
        response = render_as(fault, document | {"request_id": request_id})
        response.set_status(status)
        return response

    # Running ----------------------------------------------------------------------------------------------------------

    async def prompt(self, request: web.Request) -> web.StreamResponse:
        """`POST /prompt`."""
        return await self._work(request, Prompt, lambda body: (body.prompt, None))

    async def workflow(self, request: web.Request) -> web.StreamResponse:
        """`POST /workflow/NAME`: a template."""
        name = request.match_info["name"]
        template = self._hall.templates.get(name)
        if template is None:
            raise NotFound(f"there is no workflow {name[:64]} here{suggest(name, self._hall.templates)}")
        return await self._work(request, Workflow, lambda body: (_fill(template, body.input), template))

    async def _work(
        self, request: web.Request, model: type[B], compose: Callable[[B], tuple[Mapping[str, Any], Template | None]]
    ) -> web.StreamResponse:
        hall = self._hall
        if "text/event-stream" in request.headers.get("Accept", ""):
            raise InvalidRequest([{"pointer": "", "detail": "events are not offered here; /v1/run has them"}])
        with hall.gate.knock() as ticket:
            document, parts = await read_document(request, hall.bounds)
            if parts:
                raise InvalidRequest([{"pointer": "", "detail": "the body must be JSON alone"}])
            body = validate(model, document)
            url = body.webhook_v2
            if url is not None:
                hall.notices.check(url, "webhook_v2")
            workflow, template = compose(body)
            order = Order(
                body.id or hall.jobs.name(),
                check(workflow),
                min(hall.timeout if url is None else work.LONG_TIMEOUT, hall.max_timeout),
                selection=_select(body.convert_output, None if template is None else template.select(None)),
                media=frozenset() if template is None else template.media,
            )
            run = work.begin(request, hall.jobs, order, ticket, alone=url is not None)
        words = _Words(run, body, workflow)
        if url is None:
            async with work.result(request, run) as items:
                return await send(request, words.result(run, items), {"Content-Type": "application/json"})
        await hall.notices.expect(url, run, words)
        return web.json_response({**words.echo, "status": "ok"}, status=202)

    async def interrupt(self, request: web.Request) -> web.Response:
        """`POST /interrupt`: cancels a job, whether it runs already or still waits."""
        document, _ = await read_document(request, self._hall.bounds)
        job_id = validate(Interrupt, document).id
        try:
            run = self._hall.jobs.find(job_id, request.get(KEY_NAME, ""))
        except (NotFound, Expired):
            return web.json_response({"id": job_id, "interrupted": "failed"}, status=404)
        request[JOB_ID] = run.id
        if run.outcome.done():
            return web.json_response({"id": job_id, "interrupted": "failed"}, status=404)
        self._hall.jobs.cancel(run)
        return web.json_response({"id": job_id, "interrupted": "success"})

    # The replica ------------------------------------------------------------------------------------------------------

    async def health(self, request: web.Request) -> web.Response:
        """`GET /health`: 200 once the first warm-up has succeeded, until only a new container helps."""
        view = self._hall.gate.view()
        return _probe("healthy", ok=view.started and view.live, otherwise=500)

    async def ready(self, request: web.Request) -> web.Response:
        """`GET /ready`: as `/readyz` has it."""
        return _probe("ready", ok=self._hall.gate.view().ready, otherwise=503)

    async def models(self, request: web.Request) -> web.Response:
        """`GET /models`: the names of the engine's models, by kind."""
        return web.json_response(await self._hall.models())

    async def refuse(self, request: web.Request) -> web.Response:
        """What comfyui-api has beside these."""
        raise NotFound(f"{request.path} is not offered here: models are the engine's own")


class _Words:
    """What is told of one job. `echo`: the request as it was, with the job's id and its workflow."""

    def __init__(self, run: Run, body: Common, workflow: Mapping[str, Any]) -> None:
        given = body.model_dump(mode="json", by_alias=True, exclude_unset=True)
        self.echo = {**given, "id": run.id, "prompt": workflow}
        self._asked = None if body.convert_output is None else body.convert_output.format

    def result(self, run: Run, items: Sequence[Item]) -> JsonBody:
        head = {} if "webhook_v2" not in self.echo else _open("prompt.complete")
        names = [comfyui_api.rename(item.output.name, self._asked) for item in items]
        tail = {"filenames": names, "stats": _measure(run)}
        files = list(map(_as_file, items))
        return JsonBody(lambda place: {**head, **self.echo, "images": place, **tail}, files, data=None)

    def brief(self, run: Run, items: Sequence[Item]) -> Mapping[str, Any]:
        size = sum(item.size for item in items)
        return self._fail(f"the job succeeded, but its outputs ({size} bytes) found no room to be sent")

    def failure(self, run: Run, fault: Fault) -> Mapping[str, Any]:
        _, document = comfyui_api.explain(fault)
        return {**self._fail(fault.detail), **document, "request_id": run.order.request}

    def _fail(self, error: str) -> Mapping[str, Any]:
        """Without the workflow, which may be of any size: the receiver knows it by the job's id."""
        return {**_open("prompt.failed"), "id": self.echo["id"], "prompt": {}, "error": error}


def _open(kind: str) -> dict[str, Any]:
    return {"type": kind, "timestamp": format_time(time.time())}


def _measure(run: Run) -> dict[str, Any]:
    """The statistics of a job that has ended."""
    now, wall = asyncio.get_running_loop().time(), time.time()
    nodes = {node_id: wall - (now - moment) for node_id, moment in run.chronicle.entered.items()}
    total = run.document()["timings"]["total"]
    return comfyui_api.summarize(run.times, total, wall - (now - (run.ended_at or now)), nodes)


def _fill(template: Template, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return fill(template, inputs, work.draw_seed)[0]
    except InvalidRequest as fault:  # inputs are called `input` here
        problems = [{**each, "pointer": each["pointer"].replace("/inputs", "/input", 1)} for each in fault.problems]
        raise InvalidRequest(problems) from None


def _select(conversion: Conversion | None, nodes: tuple[str, ...] | None) -> Selection:
    if conversion is None:
        return Selection(nodes)
    return Selection(nodes, "jpeg" if conversion.format == "jpg" else conversion.format, conversion.options.quality)


def _as_file(item: Item) -> Item:
    """Texts are files, too: comfyui-api's form has nothing else for them."""
    return item if item.content is not None else replace(item, content=(item.output.text or "").encode())


def _probe(word: str, *, ok: bool, otherwise: int) -> web.Response:
    body = {"version": __version__, "status": word if ok else f"not {word}"}
    return web.json_response(body, status=200 if ok else otherwise, headers={"Cache-Control": "no-store"})
