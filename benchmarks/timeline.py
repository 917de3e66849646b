"""`python -m benchmarks.timeline FILE.svg`: a picture of prompts that share forward passes, drawn from a real run.

Sends prompts of different lengths to an engine at different moments, notes when each of their steps is told over the
websocket, and draws a row a prompt: a bar from its submission to its end, a tick for each step. Ticks of several rows
that stand above each other are one pass. Invariant: nothing is drawn that was not heard.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import uuid4

from aiohttp import ClientSession, ClientWebSocketResponse

from benchmarks.batching import DEMO, draw
from benchmarks.clients import PATIENCE, open_bare, open_session
from benchmarks.processes import run_engine

_WIDTH, _LEFT, _ROW, _BAR = 900, 240, 34, 16  # pixels
_MARGIN = 24


@dataclass(frozen=True, slots=True)
class Part:
    """A prompt of the run: it comes when the first one has told of `after` steps."""

    title: str
    after: int
    changes: Mapping[str, object]


PARTS = (
    Part("30 steps, euler", 0, {"steps": 30}),
    Part("20 steps, dpmpp_2m, karras", 4, {"steps": 20, "sampler_name": "dpmpp_2m", "scheduler": "karras"}),
    Part("4 steps, lcm, cfg 1.5", 9, {"steps": 4, "sampler_name": "lcm", "cfg": 1.5}),
    Part("10 steps, heun (asks twice a step)", 12, {"steps": 10, "sampler_name": "heun"}),
    Part("8 steps, euler_ancestral", 16, {"steps": 8, "sampler_name": "euler_ancestral"}),
)


@dataclass(slots=True)
class Row:
    """What was heard of one prompt; seconds since the run began."""

    title: str
    begin: float
    steps: list[float] = field(default_factory=list)
    end: float = 0.0


async def run_parts(url: str) -> list[Row]:
    """Send the parts and listen until all have ended."""
    client_id = uuid4().hex
    async with (
        open_session() as session,
        session.ws_connect(f"{url}/ws?clientId={client_id}", max_msg_size=0) as socket,
    ):
        async with asyncio.timeout(PATIENCE):
            return await _follow(url, session, socket, client_id)


async def _follow(url: str, session: ClientSession, socket: ClientWebSocketResponse, client_id: str) -> list[Row]:
    start = perf_counter()
    rows: dict[str, Row] = {}
    waiting = list(PARTS)
    while waiting or any(not row.end for row in rows.values()):
        told = len(next(iter(rows.values())).steps) if rows else 0
        while waiting and waiting[0].after <= told:
            part = waiting.pop(0)
            graph: dict[str, Any] = dict(draw(DEMO))
            graph["3"]["inputs"].update(part.changes)
            prompt_id = str(uuid4())
            rows[prompt_id] = Row(part.title, perf_counter() - start)
            body = {"prompt": graph, "prompt_id": prompt_id, "client_id": client_id}
            async with session.post(f"{url}/prompt", json=body) as answer:
                answer.raise_for_status()
        message = await socket.receive()
        if not isinstance(message.data, str):
            continue
        event = json.loads(message.data)
        row = rows.get(event["data"].get("prompt_id"))
        if row is None:
            continue
        if event["type"] == "progress":
            row.steps.append(perf_counter() - start)
        elif event["type"] == "executing" and event["data"]["node"] is None:
            row.end = perf_counter() - start
    return list(rows.values())


def lay_out(rows: Sequence[Row]) -> Iterator[str]:
    """The picture as lines of SVG, readable on light and dark pages."""
    last = max(row.end for row in rows)
    height = 2 * _MARGIN + _ROW * len(rows) + 20

    def place(moment: float) -> float:
        return round(_LEFT + (_WIDTH - _LEFT - _MARGIN) * moment / last, 1)

    yield f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif">'
    yield f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>'
    for number, row in enumerate(rows):
        top = _MARGIN + number * _ROW
        middle = top + _BAR - 4
        yield f'<text x="{_LEFT - 12}" y="{middle}" text-anchor="end" font-size="12">{escape(row.title)}</text>'
        begin, end = place(row.begin), place(row.end)
        yield f'<rect x="{begin}" y="{top}" width="{end - begin:.1f}" height="{_BAR}" rx="3" fill="#dbe7f6"/>'
        for moment in row.steps:
            yield f'<rect x="{place(moment) - 1}" y="{top}" width="2" height="{_BAR}" fill="#2255aa"/>'
    bottom = _MARGIN + _ROW * len(rows)
    yield f'<line x1="{_LEFT}" y1="{bottom}" x2="{place(last)}" y2="{bottom}" stroke="#888888"/>'
    for tenth in range(5):
        moment = last * tenth / 4
        yield (
            f'<text x="{place(moment)}" y="{bottom + 18}" text-anchor="middle" font-size="11" fill="#555555">'
            f"{moment:.2f} s</text>"
        )
    yield "</svg>"


async def _run(flags: Sequence[str]) -> list[Row]:
    async with run_engine(*flags) as engine:
        async with open_bare(engine.url) as bare:
            await bare.run(draw(DEMO))  # loads the model
        return await run_parts(engine.url)


def main(words: Sequence[str]) -> int:
    """Run and draw. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.timeline", description="Draw prompts that share passes."
    )
    parser.add_argument("file", type=Path, help="where the picture goes, such as docs/batching.svg")
    parser.add_argument("flags", nargs="*", metavar="-- FLAG", help="flags of the engine, such as --device cuda")
    options = parser.parse_args(words)
    rows = asyncio.run(_run(options.flags))
    options.file.write_text("\n".join(lay_out(rows)) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
