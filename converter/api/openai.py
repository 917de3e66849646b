"""The dialect `openai`: templates as the models of OpenAI's Images API.

For: callers of `/v1/images/generations`, `/v1/images/edits` and `/v1/models`, such as OpenAI's own clients. Leaves what
parameters mean for a template, and OpenAI's words, to `core.openai`. Invariant: a request has all of its pictures, or
its fault; what can't be done is refused by the parameter's name.
"""

import base64
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from converter.api import work
from converter.api.answers import open_stream, render_as, send, write, write_all
from converter.api.bodies import read_document, read_form, validate
from converter.api.dialects import Hall
from converter.api.requests import WHOLE, lacking
from converter.core import openai, sse
from converter.core.order import Order, Part, Selection
from converter.core.template import Template, fill
from converter.errors import ExecutionFailed, Fault, InvalidRequest, NotFound
from converter.gate import Ticket
from converter.media.deliver import JsonBody, encode
from converter.media.outputs import Item
from converter.media.pictures import convert, show_transparency
from converter.media.pixels import count_pixels
from converter.media.spool import hold
from converter.runner import Run

FILES = ("image", "image[]", "mask", "markup")
"""Fields of a form that are files."""

NO_TOKENS = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
"""What clients expect in the last event of a stream; nothing is counted here."""


def _check_size(size: str) -> str:
    if not openai.is_size(size):
        raise ValueError(f"must be auto, or WIDTHxHEIGHT in multiples of {openai.MULTIPLE}, such as 1024x768")
    return size


class Drawing(BaseModel):
    """The body of `/v1/images/generations`, and what an edit has of it. Fields that need others come after them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: Annotated[str, Field(min_length=1, max_length=32_000)]
    model: str | None = None
    n: Annotated[int, Field(ge=1, le=10), WHOLE] = 1
    size: Annotated[str, AfterValidator(_check_size)] = "auto"
    quality: Literal["auto", "low", "medium", "high", "standard", "hd"] = "auto"
    background: Literal["auto", "opaque"] = "auto"
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: Annotated[int, Field(ge=0, le=100), WHOLE] | None = None
    stream: bool = False
    partial_images: Annotated[int, Field(ge=0, le=3), WHOLE] = 0
    moderation: Literal["auto", "low"] = "auto"
    user: Annotated[str, Field(max_length=512)] | None = None
    safety_identifier: Annotated[str, Field(max_length=512)] | None = None
    style: Annotated[None, lacking("the prompt is the place for it")] = None
    complexity: Annotated[None, lacking("there is quality")] = None
    frame_count: Annotated[None, lacking("pictures do not move")] = None
    frame_duration_ms: Annotated[None, lacking("pictures do not move")] = None
    svg: Annotated[None, lacking("pictures are png, jpeg or webp")] = None

    @field_validator("output_compression")
    @classmethod
    def _check_compression(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("output_format") == "png":
            raise ValueError("is for jpeg and webp, which output_format has to be then")
        return value

    @field_validator("stream")
    @classmethod
    def _check_stream(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("n", 1) > 1:
            raise ValueError("is for one picture, so n has to be 1 then")
        if value and info.data.get("response_format") == "url":
            raise ValueError("has no links in it, so response_format has to be b64_json then")
        return value

    @field_validator("partial_images")
    @classmethod
    def _check_partial_images(cls, value: int, info: ValidationInfo) -> int:
        if value and not info.data.get("stream", True):
            raise ValueError("needs stream")
        return value

    @property
    def compression(self) -> int:
        """The quality of a format that has one, from 1 to 100."""
        return 100 if self.output_compression is None else max(1, self.output_compression)


class Edit(Drawing):
    """The form of `/v1/images/edits`: fields come as text, and `image` and `mask` are lists of its files."""

    model_config = ConfigDict(strict=False)

    image: Annotated[list[Any], Field(max_length=1)]
    mask: Annotated[list[Any], Field(max_length=1)] = []
    markup: Annotated[None, lacking("there is mask")] = None
    input_fidelity: Annotated[None, lacking("the templates under /v1/workflows have more inputs")] = None


@dataclass(frozen=True, slots=True)
class Task:
    """What a request asks for. `event` is the first half of the names of its events."""

    event: Literal["image_generation", "image_edit"]
    body: Drawing
    template: Template
    files: Mapping[str, Part]


@asynccontextmanager
async def open_dialect(hall: Hall) -> AsyncIterator["OpenAI"]:
    """The dialect."""
    yield OpenAI(hall)


class OpenAI:
    """The handlers."""

    orders = frozenset({("POST", "/v1/images/generations"), ("POST", "/v1/images/edits")})

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._since = int(time.time())

    def routes(self) -> list[web.RouteDef]:
        """What this dialect serves."""
        return [
            web.post("/v1/images/generations", self.generate),
            web.post("/v1/images/edits", self.edit),
            web.post("/v1/images/variations", self.refuse),
            web.get("/v1/models", self.list_models, allow_head=False),
            web.get("/v1/models/{model}", self.show_model, allow_head=False),
        ]

    def owns(self, path: str) -> bool:
        """Whether callers of a path expect its words."""
        return path == "/v1/models" or path.startswith(("/v1/models/", "/v1/images/"))

    def render(self, fault: Fault, request_id: str) -> web.Response:
        """A fault in OpenAI's envelope; the id of the request is in the header `x-request-id`."""
        return render_as(fault, openai.envelope(fault))

    async def list_models(self, request: web.Request) -> web.Response:
        """`GET /v1/models`: what draws pictures from a text alone."""
        models = [self._describe_model(name) for name in self._find_models()]
        return web.json_response({"object": "list", "data": models})

    async def show_model(self, request: web.Request) -> web.Response:
        """`GET /v1/models/NAME`."""
        model = openai.choose(self._find_models(), request.match_info["model"])
        return web.json_response(self._describe_model(model.name))

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/images/generations`."""
        async with AsyncExitStack() as stack:
            with self._hall.gate.knock() as ticket:
                document, parts = await read_document(request, self._hall.bounds)
                if parts:
                    raise InvalidRequest([{"pointer": "", "detail": "pictures that go in are for /v1/images/edits"}])
                body = validate(Drawing, _strip(document))
                template = openai.choose(openai.find_drawers(self._find_templates()), body.model)
                task = Task("image_generation", body, template, {})
                await stack.enter_async_context(work.more_orders(request, body.n - 1))
                runs = self._begin(request, task, ticket)
            return await self._answer(request, task, runs)

    async def edit(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/images/edits`."""
        async with AsyncExitStack() as stack:
            with self._hall.gate.knock() as ticket:
                fields, files = await read_form(request, self._hall.bounds, FILES)
                body = validate(Edit, _gather(fields, files))
                pictures = {"image": body.image[0]}
                if body.mask:
                    pictures["mask"] = await _read_mask(body.mask[0], self._hall.max_pixels)
                models = openai.find_editors(self._find_templates())
                template = openai.choose(models, body.model, mask="mask" in pictures)
                task = Task("image_edit", body, template, pictures)
                await stack.enter_async_context(work.more_orders(request, body.n - 1))
                runs = self._begin(request, task, ticket)
            return await self._answer(request, task, runs)

    async def refuse(self, request: web.Request) -> web.Response:
        """What OpenAI's Images API has beside these."""
        raise NotFound("variations are not offered here: there is /v1/images/edits")

    def _find_models(self) -> Mapping[str, Template]:
        return openai.find_drawers(openai.find_runnable(self._hall.offers().values(), surely=True))

    def _find_templates(self) -> Sequence[Template]:
        return openai.find_runnable(self._hall.offers().values())

    def _describe_model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._since, "owned_by": "converter"}

    def _begin(self, request: web.Request, task: Task, ticket: Ticket) -> list[tuple[Run, Mapping[str, Any]]]:
        """The jobs of all pictures, each with the inputs of its template: either all are admitted, or none goes on."""
        gate, body = self._hall.gate, task.body
        capacity = gate.queue()["capacity"]
        if body.n > capacity:
            raise InvalidRequest(
                [{"pointer": "/n", "detail": f"must be at most {capacity}, the places that there are"}]
            )
        references = {name: {"part": name} for name in task.files}
        inputs = openai.compose(task.template, body.prompt, body.size, body.quality, references)
        runs: list[tuple[Run, Mapping[str, Any]]] = []
        with ExitStack() as stack:
            tickets = [ticket, *(stack.enter_context(gate.knock()) for _ in range(body.n - 1))]
            try:
                for each in tickets:
                    order, used = self._order(task, inputs)
                    run = work.begin(request, self._hall.jobs, order, each, alone=False)
                    run.kept = body.n > 1  # where its outputs wait for those of others
                    runs.append((run, used))
            except Fault:
                for begun, _ in runs:
                    self._hall.jobs.cancel(begun)
                raise
        return runs

    def _order(self, task: Task, inputs: Mapping[str, Any]) -> tuple[Order, Mapping[str, Any]]:
        try:
            workflow, used = fill(task.template, inputs, work.draw_seed)
        except InvalidRequest as fault:
            raise openai.name_parameters(fault) from None
        delivery: Literal["inline", "url"] = "url" if task.body.response_format == "url" else "inline"
        order = Order(
            self._hall.jobs.name(),
            workflow,
            self._hall.timeout,
            selection=Selection(
                task.template.select(None), task.body.output_format, task.body.compression, delivery=delivery
            ),
            media=task.template.media,
            parts=task.files,
            inputs=used,
        )
        return order, used

    async def _answer(
        self, request: web.Request, task: Task, runs: Sequence[tuple[Run, Mapping[str, Any]]]
    ) -> web.StreamResponse:
        body, used = task.body, runs[0][1]
        about = openai.describe(body.quality, body.output_format, used)
        if body.safety_identifier or body.user:
            about["safety_identifier"] = body.safety_identifier or body.user
        with ExitStack() as stack:
            for run, _ in runs:
                stack.enter_context(work.served(run))
            if body.stream:
                return await self._stream(request, task, runs[0][0], about)
            pictures = _pick(await self._collect(request, [run for run, _ in runs]))
            compose = partial(_enclose, {"created": int(time.time()), **about})
            host = "" if self._hall.public_url else f"{request.scheme}://{request.host}"
            answer = JsonBody(compose, pictures, partial(_describe_picture, host), "b64_json")
            return await send(request, answer, {"Content-Type": "application/json"})

    async def _collect(self, request: web.Request, runs: Sequence[Run]) -> Sequence[Item]:
        if len(runs) == 1:
            return await work.outputs(request, runs[0])
        return await work.all_outputs(request, self._hall.jobs, runs)

    async def _stream(self, request: web.Request, task: Task, run: Run, about: Mapping[str, Any]) -> web.StreamResponse:
        """The job as OpenAI's events: partial images, then the picture or an error."""
        response = await open_stream(request, run)
        sequence, shown, step, steps, ended = 0, 0, None, None, False
        with run.watched():
            while not ended:
                entries = run.chronicle.since(sequence)
                for entry in entries:
                    sequence = entry.sequence
                    if entry.event == "progress":
                        step, steps = entry.data["step"], entry.data["steps"]
                    elif entry.event == "preview":
                        if openai.is_due(shown, task.body.partial_images, step, steps):
                            event = await _show_partial(task, about, shown, entry.data["data"])
                            await write(request, response, event)
                            shown += 1
                    elif entry.event in ("result", "error"):
                        await _end(request, response, task, run, about)
                        ended = True
                if not entries:
                    await run.chronicle.growth(self._hall.silence)
                    if not run.chronicle.since(sequence):
                        await write(request, response, sse.comment())
        await response.write_eof()
        return response


async def _show_partial(task: Task, about: Mapping[str, Any], index: int, preview: str) -> bytes:
    """An event with a preview of the engine's, in the format that the picture will have."""
    made = await convert(base64.b64decode(preview), task.body.output_format, task.body.compression)
    data = {"created_at": int(time.time()), **about, "partial_image_index": index}
    data["b64_json"] = base64.b64encode(made.data).decode()
    return _write_event(f"{task.event}.partial_image", data)


async def _end(
    request: web.Request, response: web.StreamResponse, task: Task, run: Run, about: Mapping[str, Any]
) -> None:
    """The last events: every picture, or the fault."""
    try:
        pictures = _pick(await work.outputs(request, run))
    except Fault as fault:
        await write(request, response, _write_event("error", openai.envelope(fault)))
        return
    name = f"{task.event}.completed"
    data = {"type": name, "created_at": int(time.time()), **about, "usage": NO_TOKENS}
    for picture in pictures:  # whose base64 is not held as a whole
        await write(request, response, f'event: {name}\ndata: {json.dumps(data)[:-1]},"b64_json":"'.encode())
        await write_all(request, response, encode(picture))
        await write(request, response, b'"}\n\n')


def _write_event(name: str, data: Mapping[str, Any]) -> bytes:
    return sse.encode(name, json.dumps({"type": name, **data}))


def _pick(items: Sequence[Item]) -> list[Item]:
    pictures = [item for item in items if item.output.kind == "image"]
    if not pictures:
        raise ExecutionFailed("the model made no picture")
    return pictures


def _describe_picture(host: str, item: Item) -> Mapping[str, Any]:
    """All but its bytes, which are absent where there is a link. `host`: before links that are relative."""
    return {"url": f"{host}{item.link['url']}"} if item.link else {}


def _enclose(document: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    return {**document, "data": place}


def _gather(fields: Mapping[str, Sequence[str]], files: Sequence[tuple[str, Part]]) -> dict[str, Any]:
    """The form as a document; clients that send several files of one field have brackets behind its name."""
    twice = [name for name, values in fields.items() if len(values) > 1]
    if twice:
        raise InvalidRequest([{"pointer": f"/{name[:64]}", "detail": "comes more than once"} for name in twice])
    document: dict[str, Any] = {name: value for name, (value,) in fields.items()}
    for name, part in files:
        document.setdefault(name.removesuffix("[]"), []).append(part)
    return document


async def _read_mask(part: Part, most: int) -> Part:
    """A mask as templates have it: white where OpenAI's is transparent. `most`: pixels that it may have."""
    if (await count_pixels(part.content) or 0) > most:
        raise InvalidRequest([{"pointer": "/mask", "detail": f"must be a picture of at most {most} pixels"}])
    shown = await show_transparency(part.content)
    if shown is None:
        raise InvalidRequest([{"pointer": "/mask", "detail": "must be a picture with transparent parts"}])
    return Part("image/png", hold(shown))


def _strip(document: object) -> object:
    """Members that are null count as absent."""
    if not isinstance(document, dict):
        return document
    return {name: value for name, value in document.items() if value is not None}
