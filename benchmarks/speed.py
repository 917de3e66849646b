"""What the converter costs in time: latency, throughput and its own processor time, against the direct client.

Everything is compared within one run, in short slots that take turns, since what else the machine does changes from
one minute to the next. A ratio is the median over the quieter half of the rounds. Leaves memory to `memory`.
"""

import asyncio
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from statistics import median
from time import perf_counter

from benchmarks.clients import Caller, Client, open_bare, open_session
from benchmarks.load import Slot, load, percentile
from benchmarks.plan import PICTURE, Plan, plant_picture
from benchmarks.processes import Converter, run_converter, spend, start_converter
from benchmarks.report import AtLeast, AtMost, Finding
from benchmarks.workflows import Graph, paint, repeat, sleep

SLOTS: Mapping[int, float] = {1: 0.3, 16: 0.5, 64: 1.0}
"""Seconds of a slot by concurrency: enough for some dozens of answers to each caller."""

MEDIANS: Mapping[int, AtMost] = {1: AtMost(1.15), 16: AtMost(1.10), 64: AtMost(1.10)}
THROUGHPUT: Mapping[int, AtLeast] = {16: AtLeast(0.95), 64: AtLeast(0.95)}
SHARED_MEDIAN, SHARED_THROUGHPUT = AtMost(0.9), AtLeast(1.15)
CPU = AtMost(2.0)


@dataclass(frozen=True, slots=True)
class Round:
    """A slot of each mode; the converter's milliseconds of processor time a request in it; what others took of all."""

    slots: Mapping[str, Slot]
    spent: Mapping[str, float]
    others: float


async def latency(plan: Plan) -> list[Finding]:
    """Zero-work pictures at three concurrencies, then the same with the engine's output folder shared."""
    findings = await _compare_with_bare(plan, {"raw": "image/png", "json": "application/json"})
    if plan.engine.output is not None:
        shared = replace(plan, flags=("--output-dir", str(plan.engine.output), *plan.flags))
        findings += await _compare_with_bare(shared, {"shared": "image/png"})
    return findings


async def _compare_with_bare(plan: Plan, callers: Mapping[str, str]) -> list[Finding]:
    """Median, throughput, processor time a request, and looks, of callers by what they accept.

    One converter at a time is there: the engine tells every open websocket of every prompt.
    """
    findings: list[Finding] = []
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session())
        bare = await stack.enter_async_context(open_bare(plan.engine.url))
        converter = await stack.enter_async_context(run_converter(plan.engine, *plan.flags))
        modes: dict[str, Client] = {"bare": bare}
        modes |= {name: Caller(converter.url, session, accept) for name, accept in callers.items()}
        for client in modes.values():
            await load(client, partial(paint, "warm"), 4, 0.5)
        looks = await _looks(converter)
        for concurrency, seconds in SLOTS.items():
            make = partial(paint, f"c{concurrency}")
            rounds = await _take_turns(modes, converter, make, concurrency, seconds, plan.rounds)
            findings += _compare(rounds, concurrency)
        names = ", ".join(callers)
        findings.append(Finding("latency", f"{names}: looks, all told", await _looks(converter) - looks, ""))
        findings.append(Finding("latency", f"{names}: RSS afterwards", converter.rss(), "MB"))
    return findings


async def _take_turns(
    modes: Mapping[str, Client],
    converter: Converter,
    make: Callable[[], Graph],
    concurrency: int,
    seconds: float,
    rounds: int,
) -> list[Round]:
    """A slot of each mode in each round; who begins changes. The half of the rounds in which others did least."""
    taken: list[Round] = []
    names = list(modes)
    for number in range(rounds):
        shift = number % len(names)
        slots, spent = {}, {}
        begun, (_, before_all) = perf_counter(), spend()
        for name in names[shift:] + names[:shift]:
            before = converter.cpu()
            slots[name] = await load(modes[name], make, concurrency, seconds)
            spent[name] = 1000 * (converter.cpu() - before) / len(slots[name].latencies)
        share = (spend()[1] - before_all) / (perf_counter() - begun) / (os.cpu_count() or 1)
        taken.append(Round(slots, spent, share))
    return sorted(taken, key=lambda each: each.others)[: ceil(rounds / 2)]


def _compare(rounds: list[Round], concurrency: int) -> list[Finding]:
    find = partial(Finding, "latency")
    at = f"concurrency {concurrency:>2}"
    bare = [each.slots["bare"] for each in rounds]
    findings = [
        find(f"{at}: bare, median", 1000 * median(slot.median for slot in bare), "ms"),
        find(f"{at}: bare, throughput", median(slot.throughput for slot in bare), "/s"),
        find(f"{at}: processors taken by others", 100 * median(each.others for each in rounds), "%"),
    ]
    for name in sorted(rounds[0].slots.keys() - {"bare"}, reverse=True):
        shared = name == "shared"
        slower = [each.slots[name].median / each.slots["bare"].median for each in rounds]
        faster = [each.slots[name].throughput / each.slots["bare"].throughput for each in rounds]
        spent = [each.spent[name] for each in rounds]
        goal = SHARED_MEDIAN if shared else MEDIANS[concurrency]
        findings.append(find(f"{at}: {name}, median", median(slower), "x bare", goal, slower))
        if concurrency in THROUGHPUT:
            least = SHARED_THROUGHPUT if shared else THROUGHPUT[concurrency]
            findings.append(find(f"{at}: {name}, throughput", median(faster), "x bare", least, faster))
        findings.append(find(f"{at}: {name}, CPU a request", median(spent), "ms", CPU, spent))
    return findings


async def _looks(converter: Converter) -> float:
    async with open_session() as session, session.get(f"{converter.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("converter_looks_total "))


async def start(plan: Plan) -> list[Finding]:
    """From `converter serve` to the moment when it listens."""
    starts = [await start_converter(plan.engine, *plan.flags) for _ in range(plan.rounds)]
    walls, spent = ([1000 * one[column] for one in starts] for column in (0, 1))
    find = partial(Finding, "start")
    return [
        find("until it listens", median(walls), "ms", AtMost(1000.0), samples=tuple(walls)),
        find("CPU until it listens", median(spent), "ms", samples=tuple(spent)),
    ]


async def progress(plan: Plan) -> list[Finding]:
    """A job of 200 progress messages: the converter's processor time, unwatched and as an event stream."""
    find = partial(Finding, "progress")
    jobs = 2 if plan.quick else 10
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session())
        bare = await stack.enter_async_context(open_bare(plan.engine.url))
        converter = await stack.enter_async_context(run_converter(plan.engine, *plan.flags))
        if not await bare.knows("TestSleep"):
            return []
        heard = bare.messages
        await bare.run(sleep("progress", 1.0))
        findings = [find("messages of a job", bare.messages - heard, "")]
        for name, accept, goal in (("JSON", "application/json", AtMost(20.0)), ("SSE", "text/event-stream", None)):
            caller = Caller(converter.url, session, accept)
            before = converter.cpu()
            for _ in range(jobs):
                await caller.ask(sleep("progress", 1.0))
            spent = 1000 * (converter.cpu() - before) / (jobs)
            findings.append(find(f"{name}: CPU a job", spent, "ms", goal))
        before = converter.cpu()
        await asyncio.sleep(2.0)
        findings.append(find("idle: CPU a second", 500 * (converter.cpu() - before), "ms"))
        return findings


async def picture(plan: Plan) -> list[Finding]:
    """A picture of 3 MB from the engine's cache: milliseconds more than the direct client."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session())
        bare = await stack.enter_async_context(open_bare(plan.engine.url))
        converter = await stack.enter_async_context(run_converter(plan.engine, *plan.flags))
        await plant_picture(bare, "picture")
        raw = Caller(converter.url, session, "image/png")
        whole = Caller(converter.url, session, "application/json")
        modes: Mapping[str, Client] = {"bare": bare, "raw": raw, "json": whole}
        medians: dict[str, list[float]] = defaultdict(list)
        for _ in range(2 * plan.rounds):
            for name, client in modes.items():
                slot = await load(client, partial(repeat, "picture"), 1, 0.3, size=PICTURE)
                medians[name].append(1000 * slot.median)
    find = partial(Finding, "picture")
    findings = [find("3 MB: bare", median(medians["bare"]), "ms")]
    for name, goal in (("raw", AtMost(3.0)), ("json", AtMost(25.0))):
        extra = [mine - its for mine, its in zip(medians[name], medians["bare"], strict=True)]
        findings.append(find(f"3 MB: {name}, more than bare", median(extra), "ms", goal, extra))
    return findings


async def probes(plan: Plan) -> list[Finding]:
    """`/readyz` while 64 requests are in flight, asked by a process of its own."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session())
        converter = await stack.enter_async_context(run_converter(plan.engine, *plan.flags))
        caller = Caller(converter.url, session, "image/png")
        seconds = 3.0 if plan.quick else 10.0
        async with asyncio.TaskGroup() as group:
            group.create_task(load(caller, partial(paint, "probes"), 64, seconds + 1))
            await asyncio.sleep(0.5)
            delays = await _probe(f"{converter.url}/readyz", seconds)
    find = partial(Finding, "probes")
    return [
        find("/readyz, median", 1000 * median(delays), "ms"),
        find("/readyz, 99th percentile", 1000 * percentile(delays, 0.99), "ms", AtMost(50.0)),
    ]


async def _probe(url: str, seconds: float) -> list[float]:
    command = (sys.executable, "-m", "benchmarks.prober", url, str(seconds))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=os.environ)
    output, _ = await process.communicate()
    delays: list[float] = json.loads(output)
    return delays
