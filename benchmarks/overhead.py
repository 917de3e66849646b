"""`python -m benchmarks.overhead`: what the converter costs, beside the best possible direct client of the engine.

Starts what is measured, each in a process of its own, runs the parts, and prints what was found beside what was
wanted. This process is the load. Leaves the measuring to `speed`, `memory` and `media`. Invariant: a part that the
engine can't take (it lacks a node, its folder is not known) is named as left out.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

try:
    from benchmarks import media, memory, speed
except ModuleNotFoundError as missing:
    sys.exit(f'There is no {missing.name}: install the extra "dev", of which the fakes of the tests need parts.')
from benchmarks.plan import Plan
from benchmarks.processes import Engine, run_engine
from benchmarks.report import Finding, describe_machine, publish

PARTS: Mapping[str, Callable[[Plan], Awaitable[list[Finding]]]] = {
    "start": speed.start,
    "latency": speed.latency,
    "progress": speed.progress,
    "picture": speed.picture,
    "probes": speed.probes,
    "rss": memory.rss,
    "stream": memory.stream,
    "sse": memory.sse,
    "inputs": media.inputs,
    "outputs": media.outputs,
}


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead", description="Measure what the converter costs beside a direct client."
    )
    add = parser.add_argument
    add("--part", action="append", choices=PARTS, help="only this part; may be given again (default: all)")
    add("--quick", action="store_true", help="about a minute: fewer and shorter rounds")
    add("--engine-url", metavar="URL", help="an engine that runs, and does nothing else (default: the embedded)")
    add("--output-dir", type=Path, metavar="FOLDER", help="the output folder of the engine at --engine-url, if shared")
    add("--json", type=Path, metavar="FILE", help="write the findings there, with the ratios of every round")
    add("flags", nargs="*", metavar="-- FLAG", help="flags of `converter serve` for every converter that is measured")
    return parser.parse_args(words)


async def _measure(options: argparse.Namespace) -> list[Finding]:
    findings: list[Finding] = []
    async with _open_engine(options.engine_url, options.output_dir) as engine:
        plan = Plan(engine, options.quick, tuple(options.flags))
        for name in options.part or PARTS:
            begun = perf_counter()
            found = await PARTS[name](plan)
            seconds = perf_counter() - begun
            sys.stderr.write(f"{name}: {seconds:.0f} s\n" if found else f"{name}: left out, the engine can't take it\n")
            findings += found
    return findings


@asynccontextmanager
async def _open_engine(url: str | None, output: Path | None) -> AsyncIterator[Engine]:
    if url is not None:
        yield Engine(url.rstrip("/"), output)
    else:
        async with run_engine() as engine:
            yield engine


def main(words: Sequence[str]) -> int:
    """Measure and print. Returns the exit status, which does not depend on what was found."""
    options = _parse(words)
    machine = describe_machine()
    findings = asyncio.run(_measure(options))
    publish(options.json, machine, findings)
    missed = [finding.name for finding in findings if finding.verdict == "missed"]
    print(f"\n{len(missed)} goals missed{': ' if missed else ''}{'; '.join(missed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
