"""Jobs as event streams: how things stand at first, then what happens, up to the status that is the last.

Leaves what happens to the chronicle of a run. Invariant: snapshots of one kind come at most twice a second, a status at
once; events carry no ids, since nothing is replayed; the last event is a status that stays.
"""

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from converter.api.answers import REQUEST_ID, write
from converter.api.comfyapi.cases import Case, Cases
from converter.core import sse
from converter.core.comfyapi import call_state, show_progress
from converter.core.journal import Entry
from converter.media.pictures import convert
from converter.runner import Run

INTERVAL = 0.5
"""Seconds between two snapshots of one kind."""

SNAPSHOTS = ("progress", "preview")
"""What comes again in whole, so that one may be left out."""


class Stream:
    """One reader's. `silence`: seconds after which a comment is sent; `origin` begins addresses."""

    def __init__(self, request: web.Request, cases: Cases, origin: str, silence: float) -> None:
        self._request = request
        self._cases = cases
        self._origin = origin
        self._silence = silence
        self._now = asyncio.get_running_loop().time
        self._held: dict[str, Entry] = {}
        self._due = dict.fromkeys(SNAPSHOTS, 0.0)
        self._said: tuple[str, int | None] | None = None
        self._response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-cache",
                "X-Accel-Buffering": "no",
                "X-Comfy-Request-Id": request[REQUEST_ID],
            }
        )

    async def send(self, case: Case) -> web.StreamResponse:
        """The whole stream of a job."""
        await self._response.prepare(self._request)
        if case.run is not None and not case.record.ended:
            await self._follow(case.run)
            case = await self._cases.find(case.record.scope, case.record.id)
        shown = self._cases.show(case, self._origin)
        for output in shown["outputs"]:
            await self._write("output", output)
        await self._write("status", {"status": shown["status"], "queue_position": None})
        await self._response.write_eof()
        return self._response

    async def _follow(self, run: Run) -> None:
        """What happens before the job has ended."""
        sequence = 0
        with run.watched():
            await self._say(run.status())
            if not any(entry.event == "progress" for entry in run.chronicle.since(0)):
                await self._write("progress", show_progress(run.chronicle.snapshot()))
                self._due["progress"] = self._now() + INTERVAL
            while not run.outcome.done():
                for entry in run.chronicle.since(sequence):
                    sequence = entry.sequence
                    if entry.event == "status":
                        await self._say(entry.data)
                    elif entry.event in SNAPSHOTS:
                        self._held[entry.event] = entry
                await self._show()
                due = min((self._due[kind] for kind in self._held), default=None)
                wait = self._silence if due is None else max(0.0, due - self._now())
                await run.chronicle.growth(wait)
                if due is None and not run.chronicle.since(sequence):
                    await write(self._request, self._response, sse.comment())

    async def _say(self, status: Mapping[str, Any]) -> None:
        """A status, where it is another than the last."""
        state = call_state(status["state"])
        said = state, status["position"] if state == "queued" else None
        if said != self._said:
            self._said = said
            await self._write("status", {"status": said[0], "queue_position": said[1]})

    async def _show(self) -> None:
        """The snapshots whose time has come."""
        for kind in [kind for kind in self._held if self._due[kind] <= self._now()]:
            entry = self._held.pop(kind)
            self._due[kind] = self._now() + INTERVAL
            data = show_progress(entry.data) if kind == "progress" else await _show_preview(entry.data)
            await self._write(kind, data)

    async def _write(self, event: str, data: Mapping[str, Any]) -> None:
        await write(self._request, self._response, sse.encode(event, json.dumps(data, separators=(",", ":"))))


async def _show_preview(preview: Mapping[str, Any]) -> dict[str, Any]:
    """A preview as JPEG, whatever the engine has sent; one that can't be converted stays as it is."""
    content_type, data = preview["content_type"], preview["data"]
    if content_type != "image/jpeg":
        converted = await convert(base64.b64decode(data), "jpeg", None)
        if converted.format is not None:
            content_type, data = "image/jpeg", base64.b64encode(converted.data).decode()
    return {"node_id": preview["node_id"] or "", "content_type": content_type, "data_base64": data}
