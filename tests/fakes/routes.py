"""The fake engine's HTTP surface: status codes, bodies and twins under `/api` as ComfyUI 0.3.64 has them.

Handlers translate between requests and `FakeEngine`; they decide nothing about prompts. What ComfyUI answers with a
plain 500 raises here as it does there and is turned into the same 55 bytes.
"""

import asyncio
import json
import mimetypes
import time
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from aiohttp import BodyPartReader, web
from PIL import Image

from tests.fakes.catalog import CLASSES, describe
from tests.fakes.folders import TYPES, untag
from tests.fakes.pictures import encode
from tests.fakes.sockets import FEATURES
from tests.fakes.validation import Refused, judge

if TYPE_CHECKING:
    from tests.fakes.engine import FakeEngine

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
TROUBLE = "500 Internal Server Error\n\nServer got itself in trouble"


MODELS = {"checkpoints": ["fake.safetensors"], "loras": [], "vae": ["vae-ft.safetensors"]}
"""Names of models, by kind."""


class Routes:
    """One engine's handlers; `application` binds them to paths."""

    def __init__(self, engine: "FakeEngine") -> None:
        self._engine = engine

    def application(self) -> web.Application:
        app = web.Application(client_max_size=self._engine.max_upload_size, middlewares=[self._answer])
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/ws", self._ws),
            ("GET", "/prompt", self._remaining),
            ("POST", "/prompt", self._post_prompt),
            ("GET", "/queue", self._queue),
            ("POST", "/queue", self._change_queue),
            ("POST", "/interrupt", self._interrupt),
            ("POST", "/free", self._free),
            ("GET", "/history", self._history),
            ("GET", "/history/{prompt_id}", self._record),
            ("POST", "/history", self._change_history),
            ("GET", "/view", self._view),
            ("POST", "/upload/image", self._upload),
            ("GET", "/system_stats", self._system_stats),
            ("GET", "/features", self._features),
            ("GET", "/object_info", self._object_info),
            ("GET", "/object_info/{name}", self._object_info),
            ("GET", "/models", self._models),
            ("GET", "/models/{kind}", self._models_of),
        ]
        for method, path, handler in table:
            app.router.add_route(method, path, handler)
            app.router.add_route(method, f"/api{path}", handler)
            if method == "GET":
                app.router.add_route("HEAD", path, handler)
                app.router.add_route("HEAD", f"/api{path}", handler)
        if self._engine.recent:
            app.router.add_post("/api/jobs/{prompt_id}/cancel", self._cancel_job)
            app.router.add_get("/api/jobs/{prompt_id}", self._job)
        app.router.add_get("/{path:.*}", self._static)
        return app

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Records the request, and answers as ComfyUI where a handler raises."""
        body: Any = None
        if request.method == "POST" and request.content_type != "multipart/form-data":
            raw = await request.read()
            try:
                body = json.loads(raw)
            except ValueError:
                body = raw
        self._engine.note_request(request, body)
        await self._engine.until(lambda: not self._engine.holds_request(request))
        if self._engine.breaks_request(request):
            return web.Response(status=500, text=TROUBLE)
        try:
            return await handler(request)
        except (TypeError, KeyError, AttributeError, ValueError):
            return web.Response(status=500, text=TROUBLE)

    # ---- prompts

    async def _ws(self, request: web.Request) -> web.StreamResponse:
        return await self._engine.serve_socket(request)

    async def _remaining(self, request: web.Request) -> web.Response:
        return web.json_response({"exec_info": {"queue_remaining": self._engine.prompts.remaining}})

    async def _post_prompt(self, request: web.Request) -> web.StreamResponse:
        engine = self._engine
        if engine.faults.take("post_500"):
            return web.Response(status=500, text=TROUBLE)
        body = json.loads(await request.read())
        number = float(body["number"]) if "number" in body else engine.prompts.next_number()
        if "number" not in body and "front" in body and body["front"]:
            number = -number
        try:
            answer = self._accept(body, number)
        except Refused as refusal:
            return web.json_response(refusal.body, status=400)
        if engine.faults.take("success_before_answer"):
            await engine.until(lambda: answer["prompt_id"] in engine.finished_prompts)
            await engine.sockets.flush()
        if engine.faults.take("exit_on_post"):
            engine.world.exit.set()
            await engine.until(lambda: not engine.alive)
        if engine.faults.take("answer_lost"):
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(answer)

    def _accept(self, body: Any, number: float) -> dict[str, Any]:
        """Judges and queues; raises Refused, or what ComfyUI answers with 500."""
        engine = self._engine
        if "prompt" not in body:
            raise Refused("no_prompt", "No prompt provided", "No prompt provided")
        prompt_id = str(body.get("prompt_id", uuid4()))
        if engine.recent:
            prompt_id = str(uuid4()) if body.get("prompt_id") is None else canonical(body["prompt_id"])
        prompt = body["prompt"]
        if not isinstance(prompt, dict):
            raise TypeError("prompt")
        targets = body.get("partial_execution_targets")
        outputs, node_errors = judge(prompt, targets, engine.folders, recent=engine.recent)
        extra_data = body.get("extra_data", {})
        if engine.recent:
            extra_data["create_time"] = int(time.time() * 1000)
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        engine.put((number, prompt_id, prompt, extra_data, outputs))
        return {"prompt_id": prompt_id, "number": number, "node_errors": node_errors}

    async def _queue(self, request: web.Request) -> web.Response:
        return web.json_response(self._engine.prompts.listing(recent=self._engine.recent))

    async def _change_queue(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("clear"):
            self._engine.clear_queue()
        if body.get("delete"):
            self._engine.deletes.append(body["delete"])
            self._engine.delete(*body["delete"])
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except ValueError:
            body = {}
        prompt_id = body.get("prompt_id")
        self._engine.interrupts.append(prompt_id)
        self._engine.interrupt(None if self._engine.faults.ignore_prompt_id_on_interrupt else prompt_id)
        return web.Response()

    async def _free(self, request: web.Request) -> web.Response:
        body = await request.json()
        self._engine.free(empty_cache=bool(body.get("free_memory")))
        self._engine.frees.append(body)
        return web.Response()

    async def _cancel_job(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["prompt_id"]
        running = self._engine.prompts.running
        self._engine.cancels.append(prompt_id)
        if running is not None and running[1] == prompt_id:
            self._engine.interrupt(prompt_id)
            return web.json_response({"cancelled": True})
        return web.json_response({"cancelled": self._engine.delete(prompt_id) > 0})

    async def _job(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["prompt_id"]
        status = self._engine.job_status(prompt_id)
        if status is None:
            return web.json_response({"error": "Job not found"}, status=404)
        return web.json_response({"id": prompt_id, "status": status})

    async def _history(self, request: web.Request) -> web.Response:
        max_items = int(request.query["max_items"]) if "max_items" in request.query else None
        return web.json_response(self._engine.prompts.page(max_items, int(request.query.get("offset", -1))))

    async def _record(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["prompt_id"]
        entry = self._engine.prompts.history.get(prompt_id)
        return web.json_response({} if entry is None else {prompt_id: entry})

    async def _change_history(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("clear"):
            self._engine.clear_history()
        for prompt_id in body.get("delete", []):
            self._engine.prompts.history.pop(prompt_id, None)
        return web.Response()

    # ---- files

    async def _view(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        if not query.get("filename"):
            return web.Response(status=404)
        name, kind = untag(query["filename"], query.get("type", "output"))
        if name.startswith("/") or ".." in name or kind not in TYPES:
            return web.Response(status=400)
        try:
            path = self._engine.folders.locate(name, kind=kind, subfolder=query.get("subfolder", ""))
        except PermissionError:
            return web.Response(status=403)
        faults = self._engine.faults
        if faults.take("view_missing") or not path.is_file():
            return web.Response(status=404)
        disposition = {"Content-Disposition": f'filename="{path.name}"'}
        if "preview" in query or "channel" in query:
            body, content_type = recode(path.read_bytes(), query.get("preview"), query.get("channel", "rgba"))
            return web.Response(body=body, content_type=content_type, headers=disposition)
        content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if not faults.view_slow and not faults.view_wrong_length and not faults.view_truncated:
            if "Range" in request.headers:
                return web.FileResponse(path, headers=disposition)
            # A FileResponse leaves its file open when the connection is lost just as it is opened.
            return web.Response(body=path.read_bytes(), content_type=content_type, headers=disposition)
        response = web.StreamResponse(headers=disposition)
        response.content_type = content_type
        return await self._send_badly(request, response, path.read_bytes())

    async def _send_badly(self, request: web.Request, response: web.StreamResponse, data: bytes) -> web.StreamResponse:
        """A file with a pause in its middle, a wrong length, or no second half."""
        faults = self._engine.faults
        wrong, truncated = faults.take("view_wrong_length"), faults.take("view_truncated")
        response.content_length = len(data) + 10 * wrong
        await response.prepare(request)
        half = len(data) // 2
        await response.write(data[:half])
        await asyncio.sleep(faults.view_slow)
        if not truncated:
            await response.write(data[half:])
        if request.transport is not None and (wrong or truncated):
            request.transport.close()
        return response

    async def _upload(self, request: web.Request) -> web.Response:
        if request.content_type != "multipart/form-data":
            return web.Response(status=400)
        fields: dict[str, str] = {}
        name, data = None, b""
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)
            if part.name == "image" and part.filename is not None:
                name, data = part.filename, bytes(await part.read())
            elif part.name:
                fields[part.name] = bytes(await part.read()).decode(errors="replace")
        if name is None:
            return web.Response(status=400)
        kind, subfolder = fields.get("type", "input"), fields.get("subfolder", "")
        if not name or kind not in TYPES:
            raise ValueError("ComfyUI fails on these")
        overwrite = fields.get("overwrite") in ("true", "1")
        try:
            stored = self._engine.folders.store_upload(name, data, kind=kind, subfolder=subfolder, overwrite=overwrite)
        except PermissionError:
            return web.Response(status=400)
        answer = {"name": stored, "subfolder": subfolder, "type": kind}
        self._engine.uploads.append(answer)
        return web.json_response(answer)

    # ---- about the engine

    async def _system_stats(self, request: web.Request) -> web.Response:
        memory = 8 << 30
        version = {"comfyui_version": self._engine.version, "python_version": "3.12.3", "pytorch_version": "2.9.0+cpu"}
        kind = "linux" if self._engine.recent else "posix"
        system = {
            "os": kind,
            "ram_total": memory,
            "ram_free": memory,
            **version,
            "embedded_python": False,
            "argv": ["main.py"],
        }
        sizes = dict.fromkeys(("vram_total", "vram_free", "torch_vram_total", "torch_vram_free"), memory)
        return web.json_response(
            {"system": system, "devices": [{"name": "cpu", "type": "cpu", "index": None, **sizes}]}
        )

    async def _features(self, request: web.Request) -> web.Response:
        return web.json_response({**FEATURES, "max_upload_size": self._engine.max_upload_size})

    async def _object_info(self, request: web.Request) -> web.Response:
        wanted = request.match_info.get("name")
        return web.json_response({name: describe(name) for name in CLASSES if wanted in (None, name)})

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response(list(MODELS))

    async def _models_of(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        return web.json_response(MODELS[kind]) if kind in MODELS else web.Response(status=404)

    async def _static(self, request: web.Request) -> web.Response:
        """ComfyUI's static handler takes every GET that nothing else takes."""
        status = 200 if request.path == "/" else 404
        return web.Response(status=status, content_type="application/octet-stream")


def canonical(prompt_id: Any) -> str:
    """Versions of 2026 take nothing but a UUID in its canonical form."""
    try:
        if str(UUID(prompt_id)) == prompt_id:
            return str(prompt_id)
    except (ValueError, AttributeError, TypeError):
        pass
    raise Refused("invalid_prompt_id", "prompt_id must be a valid UUID", "")


def recode(data: bytes, preview: str | None, channel: str) -> tuple[bytes, str]:
    """What `preview=webp;80` and `channel=rgb` make of a picture, and its content type."""
    with Image.open(BytesIO(data)) as picture:
        if preview is None:
            rgba = picture.convert("RGBA")
            if channel == "rgb":
                return encode(rgba.convert("RGB")), "image/png"
            alone = Image.new("RGBA", picture.size)
            alone.putalpha(rgba.getchannel("A"))
            return encode(alone if channel == "a" else rgba), "image/png"
        form, _, quality = preview.partition(";")
        form = form if form in ("webp", "jpeg") else "webp"
        chosen = int(quality) if quality.isdigit() else 90
        return encode(picture.convert("RGB"), form, quality=chosen), f"image/{form}"
