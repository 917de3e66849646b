"""`python -m benchmarks.demo_model`: how many captions that it never saw the demo model draws right, and how fast.

Starts the embedded engine and asks it for a picture of each caption, one after the other, as the template txt2img does
where nothing but the text is given. Leaves what a picture shows to `judge`, and captions to the training's
`measurement`. Invariant: the same captions and seeds in every run.
"""

import argparse
import asyncio
import io
import json
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.clients import Bare, open_bare
from benchmarks.processes import run_engine
from benchmarks.report import AtLeast, AtMost, Finding, describe_machine, publish
from benchmarks.workflows import Graph
from training.judge import Pixels
from training.measurement import list_held_out, score_pictures, write_captions
from training.scenes import Scene

TEMPLATE = Path(__file__).parent.parent / "workflows" / "txt2img"
RIGHT = {1: AtLeast(90.0), 2: AtLeast(70.0)}
"""Percent of captions by number of shapes."""

PICTURE, FIRST = AtMost(1.0), AtMost(5.0)
"""Seconds for a picture, and for the first one."""

_SHEET = (8, 6)  # pictures in a row, rows
_CAPTION = 34  # pixels under a picture


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo_model", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--captions", type=int, default=100, help="of one shape, and as many of two (default: 100)")
    add("--seed", type=int, default=0, help="another one draws other captions (default: 0)")
    add("--model", default="demo", help="the checkpoint (default: demo)")
    add("--models-dir", type=Path, metavar="FOLDER", help="where the engine looks for it (default: what is shipped)")
    add("--cfg", type=float, help="guidance (default: the template's)")
    add("--sheet", type=Path, metavar="FILE", help="write a sheet of the first pictures there")
    add("--json", type=Path, metavar="FILE", help="write the findings there")
    return parser.parse_args(words)


def read_template(settings: dict[str, Any]) -> dict[str, Any]:
    """The graph of the template with its defaults, and with `settings` by the names of its inputs."""
    graph: dict[str, Any] = json.loads(TEMPLATE.with_suffix(".json").read_text())
    inputs = tomllib.loads(TEMPLATE.with_suffix(".toml").read_text())["inputs"]
    for name, told in inputs.items():
        if (value := settings.get(name, told.get("default"))) is not None:
            node, _, member = told["node"].partition(".")
            graph[node]["inputs"][member] = value
    return graph


async def _draw(bare: Bare, graph: Graph) -> tuple[Pixels, float]:
    """A picture and the seconds that it took."""
    begun = perf_counter()
    data = await bare.run(graph)
    seconds = perf_counter() - begun
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), seconds


async def _measure(options: argparse.Namespace) -> tuple[list[Finding], list[tuple[str, Pixels, bool]]]:
    settings: dict[str, Any] = {"model": options.model}
    if options.cfg is not None:
        settings["cfg"] = options.cfg
    flags = () if options.models_dir is None else ("--models-dir", str(options.models_dir.resolve()))
    findings: list[Finding] = []
    samples: list[tuple[str, Pixels, bool]] = []
    times: list[float] = []
    async with run_engine(*flags) as engine, open_bare(engine.url) as bare:
        for figures, goal in RIGHT.items():
            scenes = list_held_out(options.captions, figures, options.seed)
            captions = write_captions(scenes)
            pictures = []
            for seed, caption in enumerate(captions):
                picture, seconds = await _draw(bare, read_template({**settings, "prompt": caption, "seed": seed}))
                pictures.append(picture)
                times.append(seconds)
            findings += _judge(scenes, pictures, figures, goal)
            _, right = score_pictures(scenes, pictures)
            samples += zip(captions, pictures, right, strict=True)
    findings.append(Finding("time", "the first picture, once the engine answers", times[0], "s", FIRST))
    findings.append(Finding("time", "a picture, median", median(times[1:]), "s", PICTURE, times))
    return findings, samples


def _judge(scenes: Sequence[Scene], pictures: Sequence[Pixels], figures: int, goal: AtLeast) -> list[Finding]:
    score, _ = score_pictures(scenes, pictures)
    part = f"{len(scenes)} captions of {'one shape' if figures == 1 else 'two shapes'}"
    return [
        Finding(part, "all right: background, and colour and shape of each", 100 * score.right, "%", goal),
        Finding(part, "background", 100 * score.background, "%"),
        Finding(part, "colours of all shapes", 100 * score.colours, "%"),
        Finding(part, "all shapes", 100 * score.shapes, "%"),
        Finding(part, "all right, and in their places", 100 * score.places, "%"),
    ]


def save_sheet(path: Path, samples: Sequence[tuple[str, Pixels, bool]]) -> None:
    """The first pictures of one shape and of two, each over its caption; a cross is before one that is wrong."""
    columns, rows = _SHEET
    half = columns * rows // 2
    middle = len(samples) // 2
    shown = [*samples[:middle][:half], *samples[middle:][:half]]
    side = 128
    width, height = side + 8, side + _CAPTION + 8
    sheet = Image.new("RGB", (columns * width, -(-len(shown) // columns) * height), "white")
    brush = ImageDraw.Draw(sheet)
    for number, (caption, picture, right) in enumerate(shown):
        left, top = number % columns * width + 4, number // columns * height + 4
        sheet.paste(Image.fromarray(picture).resize((side, side)), (left, top))
        brush.rectangle((left - 1, top - 1, left + side, top + side), outline=(200, 200, 200))
        text = _wrap(brush, caption if right else f"x {caption}", side)
        brush.multiline_text(
            (left, top + side + 2), text, fill="black" if right else (170, 0, 0), font_size=9, spacing=1
        )
    sheet.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def _wrap(brush: ImageDraw.ImageDraw, text: str, width: int) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if brush.textlength(longer, font_size=9) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def main(words: Sequence[str]) -> int:
    """Measure and print. Returns the exit status, which does not depend on what was found."""
    options = _parse(words)
    machine = describe_machine()
    findings, samples = asyncio.run(_measure(options))
    publish(options.json, machine, findings)
    if options.sheet is not None:
        save_sheet(options.sheet, samples)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
