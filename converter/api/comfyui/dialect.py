"""The requests of ComfyUI's clients: prompts, their history, files, and what the engine tells of itself.

Leaves which prompts there are to `prompts`, files that are sent to `uploads`, and the words to `core.comfyui`.
Invariant: a client sees and stops prompts of its own API key alone, and reads no file but those that they made or that
it has sent; what is not offered is refused by its name.
"""

import asyncio
import re
import time
import uuid
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import quote

from aiohttp import WSCloseCode, WSMsgType, web
from pydantic import BaseModel, ConfigDict, Field

from converter.api import work
from converter.api.answers import JOB_ID, KEY_NAME, render_as
from converter.api.bodies import read_form, read_json, validate
from converter.api.comfyui.ears import Ears
from converter.api.comfyui.prompts import Prompt, Prompts, fault_of
from converter.api.comfyui.uploads import Uploads, join
from converter.api.dialects import Hall
from converter.api.files import Upload, send_file
from converter.api.requests import ExtraData, Id, lacking
from converter.api.turnstile import Turnstile
from converter.core import comfyui
from converter.core.order import Order, Selection
from converter.core.outputs import FileRef
from converter.core.signatures import sniff
from converter.core.workflow import check
from converter.errors import Fault, InvalidInput, InvalidRequest, InvalidWorkflow, NotFound
from converter.runner import Run

PREFIX = "/comfy"

SOON = 5.0
"""Seconds for which an answer waits to tell whether the engine takes the prompt, at most."""

GLANCE = 0.05
"""Seconds after which a prompt is looked at again: no event tells that the engine has taken it."""

UPLOADS = 8
"""Files that are read at once."""

DESCRIPTIONS = 16
"""Questions to the engine about itself at once: its answers may have megabytes, and take its time from prompts."""

SOCKETS = 256
"""Websockets that are open at once."""

TICK = 1.0
"""Seconds between two looks whether the replica is being closed."""

TOLD = ("object_info", "object_info/{name}", "system_stats", "features", "models", "models/{name}", "embeddings")
"""What the engine tells of itself."""

LACKING = (
    "free",
    "upload/mask",
    "view_metadata/{name}",
    "settings",
    "userdata",
    "users",
    "extensions",
    "internal/logs",
)


class PromptRequest(BaseModel):
    """The body of `POST /prompt`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: dict[str, Any]
    client_id: Annotated[str, Field(max_length=256)] = ""
    prompt_id: Id | None = None
    extra_data: ExtraData = Field(default_factory=dict)
    partial_execution_targets: Annotated[list[str], Field(min_length=1, max_length=1000)] | None = None
    front: bool = False
    number: Annotated[None, lacking("front goes before others")] = None


class Selected(BaseModel):
    """The body of `POST /queue` and `POST /history`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    clear: bool = False
    delete: list[str] = Field(default_factory=list)


class Interrupt(BaseModel):
    """The body of `POST /interrupt`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt_id: str | None = None


class Passthrough:
    """The handlers. `root`: the paths are there without a prefix, too."""

    def __init__(self, hall: Hall, prompts: Prompts, ears: Ears, *, root: bool) -> None:
        self._hall = hall
        self._prompts = prompts
        self._ears = ears
        self._uploads = Uploads()
        self._describing = Turnstile(hall.gate, DESCRIPTIONS, "the engine is asked about itself too often at once")
        self._uploading = Turnstile(hall.gate, UPLOADS, "too many files are uploaded at once")
        bases = [PREFIX, f"{PREFIX}/api", *(["", "/api"] if root else [])]
        self._routes = [route for base in bases for route in self._list_routes(base)]
        self._owned = [re.compile(re.sub(r"\{\w+\}", "[^/]*", route.path)) for route in self._routes]
        self.orders = frozenset(("POST", f"{base}/prompt") for base in bases)

    def _list_routes(self, base: str) -> list[web.RouteDef]:
        return [
            web.get(f"{base}/ws", self.listen, allow_head=False),
            web.post(f"{base}/prompt", self.prompt),
            web.get(f"{base}/prompt", self.remaining),
            web.get(f"{base}/queue", self.queue),
            web.post(f"{base}/queue", self.change_queue),
            web.get(f"{base}/history", self.history),
            web.get(f"{base}/history/{{id}}", self.record),
            web.post(f"{base}/history", self.change_history),
            web.post(f"{base}/interrupt", self.interrupt),
            web.get(f"{base}/view", self.view),
            web.post(f"{base}/upload/image", self.upload),
            *(web.get(f"{base}/{path}", self.describe) for path in TOLD),
            *(web.route("*", f"{base}/{path}", self.refuse) for path in LACKING),
        ]

    def routes(self) -> list[web.RouteDef]:
        """What this dialect serves."""
        return self._routes

    def owns(self, path: str) -> bool:
        """Whether callers of a path expect its words."""
        return path.startswith(f"{PREFIX}/") or any(known.fullmatch(path) for known in self._owned)

    def render(self, fault: Fault, request_id: str) -> web.Response:
        """A fault as `POST /prompt` refuses."""
        status, document = comfyui.explain(fault)
        response = render_as(fault, document | {"request_id": request_id})
        response.set_status(status)
        return response

    # Prompts ----------------------------------------------------------------------------------------------------------

    async def prompt(self, request: web.Request) -> web.Response:
        """`POST /prompt`: refused with 400 where the engine says so at once; later it is told over the websocket."""
        hall, scope = self._hall, request.get(KEY_NAME, "")
        with hall.gate.knock() as ticket:
            body = validate(PromptRequest, await read_json(request, hall.bounds))
            graph, parts = self._uploads.place(scope, check(body.prompt), hall.jobs.upload_inputs)
            client_id = body.client_id or str(body.extra_data.pop("client_id", ""))
            targets = body.partial_execution_targets
            order = Order(
                body.prompt_id or str(uuid.uuid4()),
                graph,
                min(work.LONG_TIMEOUT, hall.max_timeout),
                priority=int(body.front),
                selection=Selection(None if targets is None else tuple(targets)),
                extra_data=body.extra_data,
                parts=parts,
            )
            run = work.begin(request, hall.jobs, order, ticket, alone=True)
            prompt = self._prompts.add(run, client_id)
        await _settle(run)
        if run.outcome.done() and isinstance(fault := fault_of(run), InvalidWorkflow | InvalidInput):
            self._prompts.forget(prompt)
            raise fault
        return web.json_response({"prompt_id": run.id, "number": prompt.number, "node_errors": {}})

    async def remaining(self, request: web.Request) -> web.Response:
        """`GET /prompt`."""
        return web.json_response({"exec_info": {"queue_remaining": self._prompts.remaining(*_who(request))}})

    async def queue(self, request: web.Request) -> web.Response:
        """`GET /queue`: the prompts of the API key, or of the client whose `clientId` the query has."""
        items: dict[bool, list[Any]] = {True: [], False: []}
        for prompt, run in self._prompts.all_of(*_who(request)):
            if not run.outcome.done():
                items[_runs(run)].append(_item(prompt, run))
        return web.json_response({"queue_running": items[True], "queue_pending": items[False]})

    async def change_queue(self, request: web.Request) -> web.Response:
        """`POST /queue`: withdraws prompts that do not run yet."""
        body = validate(Selected, await read_json(request, self._hall.bounds))
        alive = [found for found in self._prompts.all_of(*_who(request)) if not found[1].outcome.done()]
        waiting = [(prompt, run) for prompt, run in alive if not _runs(run)]
        chosen = [run for prompt, run in waiting if prompt.id in body.delete]
        if body.clear:
            chosen = [run for _, run in _of_one_client(waiting)]
        for run in chosen:
            self._hall.jobs.cancel(run)
        return web.Response()

    async def interrupt(self, request: web.Request) -> web.Response:
        """`POST /interrupt`: ends the prompt of an id, or all that run of a client."""
        wanted = validate(Interrupt, await read_json(request, self._hall.bounds, empty={})).prompt_id
        running = [(p, run) for p, run in self._prompts.all_of(*_who(request)) if not run.outcome.done() and _runs(run)]
        chosen = _of_one_client(running) if wanted is None else [(p, run) for p, run in running if p.id == wanted]
        for prompt, run in chosen:
            request[JOB_ID] = prompt.id
            self._hall.jobs.cancel(run)
        return web.Response()

    async def history(self, request: web.Request) -> web.Response:
        """`GET /history`, with `max_items` and `offset`."""
        ended = [found for found in self._prompts.all_of(*_who(request)) if found[1].outcome.done()]
        most, offset = (_whole(request, name) for name in ("max_items", "offset"))
        if most is not None:
            begin = len(ended) - most if offset is None else offset
            ended = ended[max(begin, 0) :][:most]
        return web.json_response({prompt.id: _record(prompt, run) for prompt, run in ended})

    async def record(self, request: web.Request) -> web.Response:
        """`GET /history/ID`: nothing but an empty object before the prompt has ended."""
        prompt_id = request.match_info["id"]
        found = self._prompts.find(request.get(KEY_NAME, ""), prompt_id)
        if found is None or not found[1].outcome.done():
            return web.json_response({})
        found[1].told.set()
        return web.json_response({prompt_id: _record(*found)})

    async def change_history(self, request: web.Request) -> web.Response:
        """`POST /history`: forgets prompts that have ended."""
        body = validate(Selected, await read_json(request, self._hall.bounds))
        ended = [found for found in self._prompts.all_of(*_who(request)) if found[1].outcome.done()]
        for prompt, _ in _of_one_client(ended) if body.clear else ended:
            if body.clear or prompt.id in body.delete:
                self._prompts.forget(prompt)
        return web.Response()

    # Files ------------------------------------------------------------------------------------------------------------

    async def view(self, request: web.Request) -> web.StreamResponse:
        """`GET /view`: a file that a prompt of the API key has made, or that was uploaded with it."""
        scope, query = request.get(KEY_NAME, ""), request.query
        for name in ("preview", "channel"):
            if name in query:
                raise InvalidRequest([{"pointer": "", "detail": f"{name} is not offered here"}])
        folder, name = query.get("subfolder", ""), query.get("filename", "")
        if query.get("type") == "input":
            part = self._uploads.find(scope, join(folder, name))
            if part is not None:
                content, kind = part.content, part.content_type
                return await send_file(request, Upload(content), content.size, kind, part.filename or name, {})
        wanted = {"filename": name, "subfolder": folder, "type": query.get("type", "output")}
        for _, run in self._prompts.all_of(scope, None):
            if any(each.file is not None and comfyui.show_file(each.file) == wanted for each in run.outputs):
                async with AsyncExitStack() as stack:
                    items = await self._hall.jobs.reopen(run, stack)
                    item = next(each for each in items if _is(each.output.file, wanted))
                    return await send_file(request, item, item.size, item.output.content_type, item.output.name, {})
        raise NotFound("no prompt here has made a file of this name")

    async def upload(self, request: web.Request) -> web.Response:
        """`POST /upload/image`: kept for prompts to come."""
        with self._uploading.passed():
            fields, files = await read_form(request, self._hall.bounds, ("image",))
        if len(files) != 1:
            raise InvalidRequest([{"pointer": "", "detail": 'one file must be in a part named "image"'}])
        [(_, part)] = files
        name, folder = part.filename, (fields.get("subfolder") or [""])[0].strip("/")
        if not name or re.search(r"[/\\\x00-\x1f]", name) or ".." in (name, *folder.split("/")):
            raise InvalidRequest([{"pointer": "", "detail": "the file's name or subfolder can't be used"}])
        if (fields.get("type") or ["input"])[0] != "input":
            raise InvalidRequest([{"pointer": "", "detail": "type must be input"}])
        kind = sniff(part.content.head)
        part = replace(part, content_type="application/octet-stream" if kind is None else kind.content_type)
        overwrite = (fields.get("overwrite") or [""])[0].lower() in ("true", "1")
        given = self._uploads.add(request.get(KEY_NAME, ""), folder, name, part, overwrite=overwrite)
        return web.json_response({"name": given, "subfolder": folder, "type": "input"})

    # The engine -------------------------------------------------------------------------------------------------------

    async def describe(self, request: web.Request) -> web.Response:
        """What the engine tells of itself, as it tells it."""
        resource = request.match_info.route.resource
        path = "" if resource is None else resource.canonical
        found = max((each for each in TOLD if path.endswith(f"/{each}")), key=len)
        name = quote(request.match_info.get("name", ""), safe="")
        with self._describing.passed():
            status, body = await self._hall.describe("/" + found.replace("{name}", name))
        return web.Response(status=status, body=body, content_type="application/json")

    async def refuse(self, request: web.Request) -> web.Response:
        """What ComfyUI has beside these."""
        raise NotFound(f"{request.path} is not offered here")

    async def listen(self, request: web.Request) -> web.StreamResponse:
        """`GET /ws`: what becomes of a client's prompts."""
        client_id = request.query.get("clientId") or uuid.uuid4().hex
        if self._ears.count >= SOCKETS:
            raise self._hall.gate.turn_away("too many websockets are open", seconds=5)
        scope = request.get(KEY_NAME, "")
        socket = web.WebSocketResponse(heartbeat=30.0, max_msg_size=2**22)
        await socket.prepare(request)
        with self._ears.open((scope, client_id), socket) as ear:
            ear.tell(comfyui.greet(client_id, self._prompts.remaining(scope, client_id)))
            speaking = asyncio.create_task(ear.speak())
            try:
                while not speaking.done():
                    with suppress(TimeoutError):
                        message = await socket.receive(timeout=TICK)
                        if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                            break
                        continue
                    if self._hall.gate.closed and not self._prompts.remaining(scope, client_id):
                        await socket.close(code=WSCloseCode.GOING_AWAY)
            finally:
                speaking.cancel()
                await asyncio.wait([speaking])
        return socket


async def _settle(run: Run) -> None:
    """Wait until the engine has taken or refused the prompt, unless others are before it."""
    for _ in range(3):  # the job's own task begins, and asks for its turn
        await asyncio.sleep(0)
    with suppress(TimeoutError), run.watched():
        async with asyncio.timeout(SOON):
            while not run.outcome.done() and not run.submitted and run.state != "waiting":
                await run.chronicle.growth(GLANCE)


def _who(request: web.Request) -> tuple[str, str | None]:
    return request.get(KEY_NAME, ""), request.query.get("clientId")


def _runs(run: Run) -> bool:
    return run.state not in ("waiting", "staging", "queued")


def _of_one_client(found: list[tuple[Prompt, Run]]) -> list[tuple[Prompt, Run]]:
    """The same, if they are of one client: without keys, who asks for all must say whose."""
    if len({(prompt.scope, prompt.client_id) for prompt, _ in found}) > 1:
        detail = "prompts of several clients are meant: name them by their ids, or say clientId in the query"
        raise InvalidRequest([{"pointer": "", "detail": detail}])
    return found


def _item(prompt: Prompt, run: Run) -> list[Any]:
    return comfyui.item(prompt.number, prompt.id, prompt.client_id, run.order.workflow, prompt.outputs)


def _record(prompt: Prompt, run: Run) -> dict[str, Any]:
    ago = asyncio.get_running_loop().time() - (run.ended_at or 0.0)
    return comfyui.record(_item(prompt, run), fault_of(run), run.outputs, round((time.time() - ago) * 1000))


def _is(file: FileRef | None, wanted: dict[str, str]) -> bool:
    return file is not None and comfyui.show_file(file) == wanted


def _whole(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None or text.startswith("-"):
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidRequest([{"pointer": "", "detail": f"{name} must be a whole number"}])
    return int(text)
