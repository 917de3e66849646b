"""`python -m benchmarks.fleet`: which load balancing, which readiness and which capacity a fleet does best with.

Simulates three replicas over many scenes (`fleet_simulation`), prints the tables of docs/fleet.md, draws its picture.
`--real` puts real processes behind HAProxy, as deploy/ has it, beside two of the scenes. Leaves deciding to the reader.
Invariant: every figure of a scene comes from the same seed, so that scenes differ by what they say and by no luck.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

from benchmarks.fleet_plot import Curve, Panel, draw
from benchmarks.fleet_simulation import Balance, Result, Scene, Steering, simulate
from benchmarks.load import percentile

SPEEDS = {"equal": (1.0, 1.0, 1.0), "one slow": (1.0, 1.0, 3.0)}
LOADS = (0.5, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5)
BALANCES: tuple[Balance, ...] = get_args(Balance)
STEERINGS: tuple[Steering, ...] = get_args(Steering)

HEADS = (
    *("Replicas", "Load", "Capacity", "Balance", "Full replicas"),
    *("Median", "95 %", "99 %", "Refused: full", "late", "Used"),
)

Row = tuple[Scene, Result]


def choices() -> list[Scene]:
    """How orders are spread: at one capacity and one load."""
    return [
        Scene(balance, steering, 8, 0.9, slowness)
        for slowness in SPEEDS.values()
        for balance in BALANCES
        for steering in STEERINGS
    ]


def capacities() -> list[Scene]:
    """How many orders a replica holds: with the better way to spread them."""
    return [
        Scene("least connections", "readiness", capacity, load, slowness)
        for slowness in SPEEDS.values()
        for load in (0.7, 0.9, 1.2)
        for capacity in (4, 8, 16)
    ]


def curves() -> list[Scene]:
    """From half the load to half as much again as the fleet can do."""
    return [
        Scene(balance, steering, 8, load, slowness)
        for slowness in SPEEDS.values()
        for balance in BALANCES
        for steering in STEERINGS
        for load in LOADS
    ]


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Markdown, a row a scene."""
    yield f"| {' | '.join(HEADS)} |"
    yield f"|{' --- |' * len(HEADS)}"
    for scene, result in rows:
        orders = len(result.latencies) + result.refused.total()
        speeds = next(name for name, slowness in SPEEDS.items() if slowness == scene.slowness)
        steering = {"none": "not known", "readiness": "not ready", "retries": "refuse, another is asked"}[
            scene.steering
        ]
        times = (f"{percentile(result.latencies, share):.1f} s" for share in (0.5, 0.95, 0.99))
        full = result.refused["queue_full"] / orders
        late = result.refusals - full
        yield (
            f"| {speeds} | {scene.load:g} | {scene.capacity} | {scene.balance} | {steering} | {' | '.join(times)} "
            f"| {full:.1%} | {late:.1%} | {result.used:.0%} |"
        )


def panels(rows: Sequence[Row]) -> Iterator[Panel]:
    """The picture's parts: refusals and the slowest answers over the load, for each set of replicas."""
    for name, slowness in SPEEDS.items():
        ours = [(scene, result) for scene, result in rows if scene.slowness == slowness]
        yield Panel(f"{name}: refused, %", [*_lines(ours, lambda result: 100 * result.refusals)])
        yield Panel(f"{name}: 99 % within, s", [*_lines(ours, lambda result: percentile(result.latencies, 0.99))])


def _lines(rows: Sequence[Row], value: Callable[[Result], float]) -> Iterator[Curve]:
    for balance in BALANCES:
        for steering in STEERINGS:
            points = [(s.load, value(r)) for s, r in rows if (s.balance, s.steering) == (balance, steering)]
            yield Curve(f"{balance}, {steering}", points)


def simulate_all(scenes: Sequence[Scene]) -> list[Row]:
    """Every scene, on all processors."""
    with ProcessPoolExecutor() as pool:
        return list(zip(scenes, pool.map(simulate, scenes), strict=True))


def main(words: Sequence[str]) -> int:
    """Simulate, print and draw. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description="Compare ways to run a fleet.")
    parser.add_argument("--orders", type=int, default=20_000, help="orders of each scene (%(default)s)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="where the picture goes, such as docs/fleet.svg")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every scene with its figures there")
    parser.add_argument("--real", type=float, metavar="SECONDS", help="real processes instead, for so long each")
    options = parser.parse_args(words)
    if options.real:
        from benchmarks import fleet_processes  # needs a load balancer, which the simulation does without

        scenes = fleet_processes.scenes(options.real)
        rows = [*simulate_all(scenes), *asyncio.run(fleet_processes.run_all(scenes))]
        print("\n".join(table(rows)))
        return 0
    parts = [choices(), capacities(), curves()]
    done = simulate_all([replace(scene, orders=options.orders) for part in parts for scene in part])
    first, second = len(parts[0]), len(parts[0]) + len(parts[1])
    print("\n".join([*table(done[:first]), "", *table(done[first:second])]))
    if options.plot is not None:
        options.plot.write_text(draw([*panels(done[second:])]), encoding="utf-8")
    if options.json is not None:
        options.json.write_text(json.dumps([_document(*row) for row in done], indent=1) + "\n", encoding="utf-8")
    return 0


def _document(scene: Scene, result: Result) -> dict[str, object]:
    figures = {f"p{share}": percentile(result.latencies, share / 100) for share in (50, 95, 99)}
    return (
        asdict(scene)
        | figures
        | {"refused": dict(result.refused), "served": len(result.latencies), "used": result.used}
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
