"""`python -m tests.e2e.chaos`: the long form. Prints tables in Markdown; exits 1 where anything was violated or missed.

For each way of putting the processes together: the capacity is measured, the load is played in peace, then with
everything going wrong. What the processes wrote is kept where something was violated.
"""

import argparse
import asyncio
import shutil
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import get_args

from tests.e2e.chaos import orders, strikes
from tests.e2e.chaos.figures import Figure, describe, score
from tests.e2e.chaos.obedience import burst
from tests.e2e.chaos.rounds import OVERLOAD, measure, play
from tests.e2e.chaos.scene import Way, open_scene
from tests.e2e.chaos.verdict import judge

ORDERS_A_KILL = 2500
"""More than a minute apart: one that dies again sooner is not started again at once."""

MEASURED, BURSTS = 240, 10


async def chaos(way: Way, count: int, seed: int, density: float, folder: Path) -> tuple[list[Figure], list[str]]:
    """The figures and the violations of one way."""
    load = orders.draw(seed, count)
    (folder / "calm").mkdir()
    async with open_scene(folder / "calm", way) as scene:
        rate = OVERLOAD * await measure(scene, MEASURED)
        say(f"{way}: {count} orders in peace, {rate:.0f} a second")
        obedient = await burst(scene, BURSTS)
        calm = await play(scene, load, rate)
    (folder / "chaos").mkdir()
    async with open_scene(folder / "chaos", way) as scene:
        await measure(scene, MEASURED)
        say(f"{way}: the same in chaos")
        kills = max(2, count // ORDERS_A_KILL)
        log = await play(scene, load, rate, strikes.draw(seed, count, kills, density))
    violations = [*(f"in peace: {each}" for each in judge(calm)), *judge(log)]
    return [*describe(log, calm, rate), *score(obedient)], violations


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def write(title: str, figures: list[Figure]) -> str:
    """The table."""
    rows = [f"| {figure.name} | {figure.value} | {figure.goal} |" for figure in figures]
    return "\n".join([f"| {title} | measured | goal |", "| --- | --- | --- |", *rows]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.chaos", description=__doc__)
    parser.add_argument("--orders", type=int, default=10_000, help="orders for each way (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the load and of what goes wrong (%(default)s)")
    parser.add_argument("--density", type=float, default=0.5, help="of strikes beside kills (%(default)s)")
    parser.add_argument("--way", choices=get_args(Way), action="append", help="one way only; may be repeated")
    options = parser.parse_args()
    failed = False
    for way in options.way or get_args(Way):
        folder = Path(mkdtemp(prefix=f"chaos-{way}-"))
        figures, violations = asyncio.run(chaos(way, options.orders, options.seed, options.density, folder))
        print(write(f"{way}, seed {options.seed}, density {options.density:g}", figures))
        missed = [figure for figure in figures if figure.met is False]
        for violation in violations:
            say(f"violated: {violation}")
        for figure in missed:
            say(f"missed: {figure.name}: {figure.value}, not {figure.goal}")
        if violations:
            say(f"what the processes wrote is in {folder}")
        else:
            shutil.rmtree(folder)
        failed = failed or bool(violations or missed)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
