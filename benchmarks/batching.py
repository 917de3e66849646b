"""`python -m benchmarks.batching`: what shared forward passes bring, beside the same engine with one prompt at a time.

Two engines, one that runs prompts at once and one that does not, take turns in one run. This process is the load; it
asks for pictures of the model `demo` at the default settings of the template `txt2img`, or with `--large` of one as
large as Stable Diffusion 1.5, at 512 x 512. Leaves the clients to `clients`. Invariant: both engines are asked for the
same pictures in the same order of arrival.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from benchmarks.clients import Bare, open_bare
from benchmarks.large import SIDE
from benchmarks.load import Slot, load, percentile
from benchmarks.processes import run_engine
from benchmarks.report import AtLeast, AtMost, Finding, describe_machine, publish
from benchmarks.utilization import watch_gpu
from benchmarks.workflows import Graph

CALLERS = (1, 2, 4, 8, 16)
LONG, SHORT = 50, 4
"""Steps of the requests that are always there and of those that come in between."""

WAITING = 24
"""Callers of whom some always wait, since the engine runs 16 prompts at once on a GPU."""

MIXED = 10, 30
"""Fewest and most steps of requests that are not all alike."""

_SETTLING = 2.0
"""Seconds of each number of callers that are not measured."""

_WORKFLOW = Path(__file__).parent.parent / "workflows" / "txt2img.json"
_seeds = count(1)


@dataclass(frozen=True, slots=True)
class Model:
    """What is asked for, and what is wanted of it: how many times serial's pictures a second, eight at once."""

    name: str
    side: int
    """Pixels."""
    gain: float


DEMO = Model("demo", 128, gain=1.3)
LARGE = Model("large", SIDE, gain=3.0)


def draw(model: Model, steps: int | None = None) -> Graph:
    """The template's workflow with a seed that was not there before, and a text of its own."""
    graph: dict[str, Any] = json.loads(_WORKFLOW.read_text(encoding="utf-8"))
    seed = next(_seeds)
    graph["3"]["inputs"]["seed"] = seed
    graph["4"]["inputs"]["ckpt_name"] = model.name
    graph["5"]["inputs"] |= {"width": model.side, "height": model.side}
    graph["6"]["inputs"]["text"] = f"a red circle on a white background, {seed}"
    if steps is not None:
        graph["3"]["inputs"]["steps"] = steps
    return graph


async def measure_throughput(model: Model, batched: Bare, serial: Bare, rounds: int, seconds: float) -> list[Finding]:
    """Pictures a second and latencies at each number of callers, as ratios of neighbouring slots."""
    findings = []
    for callers in CALLERS:
        # On a GPU, the first passes of as many rows as there were not before find and load their kernels.
        await load(batched, lambda: draw(model), callers, _SETTLING)
        pairs: list[tuple[Slot, Slot]] = []
        for number in range(rounds):
            order = (batched, serial) if number % 2 == 0 else (serial, batched)
            slots = {client: await load(client, lambda: draw(model), callers, seconds) for client in order}
            pairs.append((slots[batched], slots[serial]))
        goal = AtLeast(model.gain) if callers == 8 else AtLeast(1.0)
        gains = [ours.throughput / theirs.throughput for ours, theirs in pairs]
        part = f"{callers} at once"
        findings.append(Finding(part, "pictures a second", median(gains), "x serial", goal, gains))
        for name, slots_of in (("batched", [pair[0] for pair in pairs]), ("serial", [pair[1] for pair in pairs])):
            latencies = [latency for slot in slots_of for latency in slot.latencies]
            findings.append(Finding(part, f"{name}: pictures", median(s.throughput for s in slots_of), "a second"))
            findings.append(Finding(part, f"{name}: p50", percentile(latencies, 0.5), "s"))
            findings.append(Finding(part, f"{name}: p95", percentile(latencies, 0.95), "s"))
    return findings


async def measure_fairness(model: Model, batched: Bare, serial: Bare, seconds: float) -> list[Finding]:
    """The latency of short requests while two callers never stop asking for long ones."""
    waits = {}
    for name, client in (("batched", batched), ("serial", serial)):
        latencies: list[float] = []
        end = perf_counter() + seconds

        async def keep_busy(client: Bare = client, end: float = end) -> None:
            while perf_counter() < end:
                await client.run(draw(model, LONG))

        async def ask_briefly(client: Bare = client, end: float = end, latencies: list[float] = latencies) -> None:
            while (asked := perf_counter()) < end:
                await client.run(draw(model, SHORT))
                latencies.append(perf_counter() - asked)

        async with asyncio.TaskGroup() as group:
            for task in (keep_busy, keep_busy, ask_briefly):
                group.create_task(task())
        waits[name] = percentile(latencies, 0.95)
    part = f"{SHORT} steps among {LONG}"
    return [
        Finding(part, "p95", waits["batched"] / waits["serial"], "x serial", AtMost(1 / 3)),
        *(Finding(part, f"{name}: p95", wait, "s") for name, wait in waits.items()),
    ]


async def measure_utilization(model: Model, batched: Bare, seconds: float) -> list[Finding]:
    """How busy the GPU is while more prompts wait than run, of as many steps as people ask for."""
    asked = Random(0)

    def make() -> Graph:
        return draw(model, asked.randint(*MIXED))

    await load(batched, make, WAITING, seconds)  # for the numbers of rows that are still to come
    asking = asyncio.create_task(load(batched, make, WAITING, seconds))
    async with watch_gpu() as busy:
        await asyncio.wait([asking], timeout=seconds)  # and no longer: when the last ones end, none wait
    slot = await asking
    part = f"{WAITING} at once, of {MIXED[0]} to {MIXED[1]} steps"
    return [
        Finding(part, "the GPU is busy", busy.mean, "%", AtLeast(90), busy.samples),
        Finding(part, "batched: pictures", slot.throughput, "a second"),
    ]


async def _measure(model: Model, flags: Sequence[str], rounds: int, seconds: float) -> list[Finding]:
    async with AsyncExitStack() as stack:
        clients = []
        for more in ((), ("--concurrency", "1")):
            engine = await stack.enter_async_context(run_engine(*flags, *more))
            client = await stack.enter_async_context(open_bare(engine.url))
            await client.run(draw(model))  # loads the model
            clients.append(client)
        batched, serial = clients
        findings = await measure_throughput(model, batched, serial, rounds, seconds)
        if "cuda" in flags:
            findings += await measure_utilization(model, batched, 2 * seconds)
        return findings + await measure_fairness(model, batched, serial, 4 * seconds)


@contextmanager
def _with_large(flags: Sequence[str]) -> Iterator[list[str]]:
    """The flags of engines that have the model `large`, which is made for them."""
    with TemporaryDirectory(prefix="benchmark-models-") as folder:
        path = Path(folder) / "checkpoints" / LARGE.name
        place = ("--device", "cuda") if "cuda" in flags else ()
        # In a process of its own, so that what it takes of a GPU is given back.
        subprocess.run((sys.executable, "-m", "benchmarks.large", str(path), *place), check=True)
        yield [*flags, "--models-dir", folder]


def main(words: Sequence[str]) -> int:
    """Measure and print. Returns the exit status, which does not depend on what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batching", description="Measure shared passes.")
    parser.add_argument("--rounds", type=int, default=3, help="in which the two engines take turns (%(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each slot (%(default)s)")
    parser.add_argument("--large", action="store_true", help="a model as large as Stable Diffusion 1.5, for GPUs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there")
    parser.add_argument("flags", nargs="*", metavar="-- FLAG", help="flags of both engines, such as --device cuda")
    options = parser.parse_args(words)
    machine = describe_machine()
    with _with_large(options.flags) if options.large else nullcontext(options.flags) as flags:
        model = LARGE if options.large else DEMO
        findings = asyncio.run(_measure(model, flags, options.rounds, options.seconds))
    publish(options.json, machine, findings)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
