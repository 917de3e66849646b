"""The HTTP face: routes, bodies and answers of ComfyUI 0.3.64, and of later versions where they have more.

For: turning requests into calls of the executor and its answers into responses. Leaves validation to `submission` and
`graph`, files to `files`, websockets to `sockets`.
Invariant: every route exists twice, as `/x` and `/api/x`; no handler waits for a prompt.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from engine.catalog import describe_node, describe_system, list_folders, list_models, read_metadata
from engine.errors import ForbiddenPathError, QueueFullError, RefusedError
from engine.executor import Executor
from engine.files import upload_image, upload_mask, view
from engine.graph import validate
from engine.nodes.spec import Folders, Node
from engine.paths import resolve
from engine.shelves import SHIPPED
from engine.sockets import Hub
from engine.submission import read_submission, refuse
from engine.wire import describe_error, dump, parse

MAX_BODY = 100 << 20  # bytes
_TROUBLE = "500 Internal Server Error\n\nServer got itself in trouble"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _BodyError(Exception):
    """A body that ComfyUI 0.3.64 answers with its plain 500."""


def describe_features(concurrency: int) -> dict[str, Any]:
    """The answer of /features: `max_concurrent_prompts` is this engine's own."""
    return {
        "supports_preview_metadata": True,
        "max_upload_size": MAX_BODY,
        "max_concurrent_prompts": concurrency,
    }


@dataclass(frozen=True, slots=True)
class Server:
    """All handlers. `describe_devices` gives the entries of /system_stats."""

    executor: Executor
    hub: Hub
    registry: Mapping[str, Node]
    folders: Folders
    describe_devices: Callable[[], Sequence[Mapping[str, Any]]]
    arguments: Sequence[str] = ()

    def make_app(self) -> web.Application:
        """The application with all routes."""
        app = web.Application(middlewares=[_guard], client_max_size=MAX_BODY)
        for prefix in ("", "/api"):
            app.add_routes(self._routes(prefix))
        app.on_shutdown.append(self._say_goodbye)
        return app

    def _routes(self, prefix: str) -> list[web.RouteDef]:
        get: dict[str, Handler] = {
            "/ws": self.serve_socket,
            "/prompt": self.tell_remaining,
            "/queue": self.tell_queue,
            "/history": self.tell_histories,
            "/history/{prompt_id}": self.tell_history,
            "/object_info": self.tell_nodes,
            "/object_info/{class_type}": self.tell_node,
            "/view": self.give_file,
            "/view_metadata/{folder}": self.tell_metadata,
            "/system_stats": self.tell_system,
            "/features": self.tell_features,
            "/models": self.tell_model_folders,
            "/models/{folder}": self.tell_models,
            "/embeddings": self.tell_embeddings,
            "/extensions": self.tell_extensions,
        }
        post: dict[str, Handler] = {
            "/prompt": self.take_prompt,
            "/queue": self.change_queue,
            "/history": self.change_history,
            "/interrupt": self.interrupt,
            "/free": self.free,
            "/upload/image": self.take_image,
            "/upload/mask": self.take_mask,
        }
        if prefix:
            post |= {"/jobs/{prompt_id}/cancel": self.cancel, "/jobs/cancel": self.cancel_several}
        routes = [web.get(prefix + path, handler) for path, handler in get.items()]
        return routes + [web.post(prefix + path, handler) for path, handler in post.items()]

    async def _say_goodbye(self, app: web.Application) -> None:
        await self.hub.close()

    async def serve_socket(self, request: web.Request) -> web.WebSocketResponse:
        """GET /ws."""
        return await self.hub.serve(request, lambda: self.executor.remaining, self.executor.find_node)

    async def tell_remaining(self, request: web.Request) -> web.Response:
        """GET /prompt: how many prompts are pending or running."""
        return _answer(dump({"exec_info": {"queue_remaining": self.executor.remaining}}))

    async def take_prompt(self, request: web.Request) -> web.Response:
        """POST /prompt."""
        try:
            body = await _read_json(request)
        except _BodyError as error:
            refusal = refuse("invalid_prompt", f"The body can't be read as JSON: {error.__cause__}.")
            return _answer(dump(refusal.body), status=400)
        try:
            submission = read_submission(body)
            number = self.executor.take_number(submission)
            valid = validate(submission.graph, self.registry, self.folders, submission.targets)
            prompt = self.executor.submit(submission, valid, number)
        except RefusedError as error:
            return _answer(dump(error.body), status=400)
        except QueueFullError as error:
            body = {"error": describe_error("queue_full", str(error)), "node_errors": {}}
            return _answer(dump(body), status=429)
        return _answer(dump({"prompt_id": prompt.id, "number": number, "node_errors": valid.node_errors}))

    async def give_file(self, request: web.Request) -> web.StreamResponse:
        """GET /view."""
        return await view(request, self.folders)

    async def take_image(self, request: web.Request) -> web.Response:
        """POST /upload/image."""
        return await upload_image(request, self.folders)

    async def take_mask(self, request: web.Request) -> web.Response:
        """POST /upload/mask."""
        return await upload_mask(request, self.folders)

    async def tell_queue(self, request: web.Request) -> web.Response:
        """GET /queue."""
        return _answer(self.executor.write_queue())

    async def change_queue(self, request: web.Request) -> web.Response:
        """POST /queue: {"clear": true} and/or {"delete": [ids]}."""
        body = await _read_object(request)
        if body.get("clear"):
            self.executor.clear()
        if "delete" in body:
            self.executor.delete(_read_ids(body["delete"]))
        return web.Response()

    async def tell_histories(self, request: web.Request) -> web.Response:
        """GET /history, with max_items and offset."""
        query = request.query
        try:
            max_items = int(query["max_items"]) if "max_items" in query else None
            offset = int(query.get("offset", -1))
        except ValueError as error:
            raise _BodyError from error
        return _answer(self.executor.write_histories(max_items, offset))

    async def tell_history(self, request: web.Request) -> web.Response:
        """GET /history/{prompt_id}."""
        return _answer(self.executor.write_history(request.match_info["prompt_id"]))

    async def change_history(self, request: web.Request) -> web.Response:
        """POST /history: {"clear": true} and/or {"delete": [ids]}."""
        body = await _read_object(request)
        if body.get("clear"):
            self.executor.forget_all()
        if "delete" in body:
            self.executor.forget(_read_ids(body["delete"]))
        return web.Response()

    async def interrupt(self, request: web.Request) -> web.Response:
        """POST /interrupt: the named prompt if it runs, or all that run. A body that is no JSON names none."""
        try:
            body = parse(await request.read())
        except ValueError:
            body = {}
        if not isinstance(body, dict):
            raise _BodyError
        prompt_id = body.get("prompt_id")
        if not prompt_id:
            self.executor.interrupt(None)
        elif isinstance(prompt_id, str):
            self.executor.interrupt(prompt_id)
        return web.Response()

    async def cancel(self, request: web.Request) -> web.Response:
        """POST /api/jobs/{prompt_id}/cancel: the prompt, wherever it is."""
        return _answer(dump({"cancelled": self.executor.cancel(request.match_info["prompt_id"])}))

    async def cancel_several(self, request: web.Request) -> web.Response:
        """POST /api/jobs/cancel: {"job_ids": [ids]}; says whether any of them was there to be cancelled."""
        body = await _read_object(request)
        cancelled = [self.executor.cancel(prompt_id) for prompt_id in _read_ids(body.get("job_ids"))]
        return _answer(dump({"cancelled": any(cancelled)}))

    async def free(self, request: web.Request) -> web.Response:
        """POST /free: {"unload_models": bool, "free_memory": bool}; the latter empties the cache too."""
        body = await _read_object(request)
        memory = bool(body.get("free_memory"))
        self.executor.free(models=memory or bool(body.get("unload_models")), cache=memory)
        return web.Response()

    async def tell_nodes(self, request: web.Request) -> web.Response:
        """GET /object_info."""
        described = {name: describe_node(node, self.folders) for name, node in self.registry.items()}
        return _answer(dump(described))

    async def tell_node(self, request: web.Request) -> web.Response:
        """GET /object_info/{class}; {} for an unknown one."""
        node = self.registry.get(request.match_info["class_type"])
        return _answer(dump({} if node is None else {node.class_type: describe_node(node, self.folders)}))

    async def tell_features(self, request: web.Request) -> web.Response:
        """GET /features."""
        return _answer(dump(describe_features(self.executor.concurrency)))

    async def tell_system(self, request: web.Request) -> web.Response:
        """GET /system_stats."""
        system = describe_system(self.arguments)
        return _answer(dump({"system": system, "devices": list(self.describe_devices())}))

    async def tell_model_folders(self, request: web.Request) -> web.Response:
        """GET /models: the kinds of models."""
        return _answer(dump(await asyncio.to_thread(list_folders, self.folders.models)))

    async def tell_models(self, request: web.Request) -> web.Response:
        """GET /models/{folder}: folders in diffusers' format by name, and files by relative path."""
        kind = request.match_info["folder"]
        ships = [SHIPPED.name] if kind == "checkpoints" else []
        if not ships and kind not in list_folders(self.folders.models):
            return web.Response(status=404)
        names = await asyncio.to_thread(list_models, self.folders.models / kind)
        return _answer(dump(sorted({*names, *ships})))

    async def tell_embeddings(self, request: web.Request) -> web.Response:
        """GET /embeddings: names without extension."""
        names = await asyncio.to_thread(list_models, self.folders.models / "embeddings")
        return _answer(dump([name.rpartition(".")[0] or name for name in names]))

    async def tell_extensions(self, request: web.Request) -> web.Response:
        """GET /extensions: this engine has no frontend."""
        return _answer("[]")

    async def tell_metadata(self, request: web.Request) -> web.Response:
        """GET /view_metadata/{folder}: what a safetensors file says of itself."""
        kind, name = request.match_info["folder"], request.query.get("filename", "")
        if kind not in list_folders(self.folders.models) or not name.endswith(".safetensors"):
            return web.Response(status=404)
        try:
            found = await asyncio.to_thread(read_metadata, resolve(self.folders.models / kind, name))
        except (ForbiddenPathError, OSError, ValueError):
            found = None
        return web.Response(status=404) if found is None else _answer(json.dumps(found))


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The origin check of ComfyUI, and its answers where nobody handles a request."""
    if _is_cross_site(request):
        return web.Response(status=403)
    if request.method == "OPTIONS":
        return web.Response()
    try:
        return await handler(request)
    except _BodyError:
        return web.Response(status=500, text=_TROUBLE)
    except web.HTTPNotFound:
        return web.Response(status=404)
    except web.HTTPMethodNotAllowed:
        # There, a route for static files catches every GET.
        if request.method in ("GET", "HEAD"):
            return web.Response(status=404)
        raise


def _is_cross_site(request: web.Request) -> bool:
    """Whether a page of another site asks, by way of a browser on this machine."""
    origin = request.headers.get("Origin")
    if origin is None or not _is_loopback(urlsplit(f"//{request.host}").hostname):
        return False
    try:
        asking, asked = urlsplit(origin), urlsplit(f"//{request.host}")
        return bool(asking.netloc) and (asking.hostname, asking.port) != (asked.hostname, asked.port)
    except ValueError:
        return True


def _is_loopback(host: str | None) -> bool:
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _answer(text: str, *, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, content_type="application/json")


async def _read_json(request: web.Request) -> object:
    """The body, whatever its Content-Type says."""
    try:
        return parse(await request.read())
    except ValueError as error:
        raise _BodyError from error


async def _read_object(request: web.Request) -> dict[str, Any]:
    body = await _read_json(request)
    if not isinstance(body, dict):
        raise _BodyError
    return body


def _read_ids(value: object) -> list[str]:
    if not isinstance(value, list):
        raise _BodyError
    return [prompt_id for prompt_id in value if isinstance(prompt_id, str)]


@asynccontextmanager
async def listen(app: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Serve `app` while the context is open; gives the real port. Raises OSError when the address is taken."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
