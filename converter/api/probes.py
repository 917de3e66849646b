"""The probes: whether this replica lives, is ready, has started, and what it is doing.

Invariant: every answer comes from memory.
"""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from converter import __version__
from converter.gate import Gate
from converter.telemetry import CONTENT_TYPE, Metrics


class Probes:
    """The handlers; `engine` describes the engine as it is known."""

    def __init__(self, gate: Gate, metrics: Metrics, engine: Callable[[], dict[str, Any]]) -> None:
        self._gate = gate
        self._metrics = metrics
        self._engine = engine

    def routes(self) -> list[web.RouteDef]:
        """What is served, under our names and under those of KServe's V2 protocol."""
        return [
            web.get("/livez", self.live),
            web.get("/readyz", self.ready),
            web.get("/startupz", self.started),
            web.get("/status", self.status),
            web.get("/metrics", self.show_metrics),
            web.get("/v2/health/live", self.live),
            web.get("/v2/health/ready", self.ready),
        ]

    async def live(self, request: web.Request) -> web.Response:
        """`GET /livez`: 503 when only a new container helps."""
        return self._answer(ok=self._gate.view().live)

    async def ready(self, request: web.Request) -> web.Response:
        """`GET /readyz`."""
        return self._answer(ok=self._gate.view().ready)

    async def started(self, request: web.Request) -> web.Response:
        """`GET /startupz`: 200 once the first warm-up has succeeded."""
        return self._answer(ok=self._gate.view().started)

    async def status(self, request: web.Request) -> web.Response:
        """`GET /status`: always 200, for people."""
        view = self._gate.view()
        more = {
            "ready": view.ready,
            "live": view.live,
            "started": view.started,
            "service_seconds": self._gate.service,
            "engine_depth": self._gate.engine_depth,
            "version": __version__,
        }
        return web.json_response(self._body() | more)

    async def show_metrics(self, request: web.Request) -> web.Response:
        """`GET /metrics`; the state is that of this moment, since time alone can change it."""
        self._metrics.show_state(self._gate.view().state.value)
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    def _answer(self, *, ok: bool) -> web.Response:
        return web.json_response(self._body(), status=200 if ok else 503, headers={"Cache-Control": "no-store"})

    def _body(self) -> dict[str, Any]:
        view = self._gate.view()
        body = {"state": view.state.value, "reason": view.reason}
        return body | {"queue": self._gate.queue(), "engine": self._engine()}
