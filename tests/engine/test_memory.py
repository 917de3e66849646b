"""What an engine holds does not grow with what it has done: its models and results are bounded, and the rest is let go.

Linux only: resident memory is read by psutil from /proc.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil

from tests.engine.contexts import read_default_workflow
from tests.engine.graphs import picture, through
from tests.engine.test_process import Running, start
from tests.engine.waiting import until_blocking

WARM, ALL = 100, 300  # prompts
KINDS = 6
SHARE = 1.1


def mix(number: int) -> Any:
    """A prompt of one of several kinds, none of which was there before but the cached one."""
    match number % KINDS:
        case 0:
            return picture(number, width=1024, height=1024)
        case 1:
            return picture(0)
        case 2:
            return through("TestRaise", kind="ValueError", color=number)
        case 3:
            return through("TestReturnJunk", kind="NaN picture", color=number)
        case 4:
            return through("TestPreview", steps=3, size=64, color=number)
    workflow = read_default_workflow()
    workflow["3"]["inputs"] |= {"seed": number, "steps": 1 + number % 3}
    workflow["5"]["inputs"] |= {"width": 64, "height": 64}
    workflow["6"]["inputs"]["text"] = f"picture {number}"
    return workflow


def run(engine: Running, numbers: range) -> None:
    """Carry out a stretch of prompts, a dozen at a time."""
    for begin in range(numbers.start, numbers.stop, 12):
        prompts = [engine.submit(mix(number)) for number in range(begin, min(begin + 12, numbers.stop))]
        until_blocking(lambda: engine.ask("/prompt")["exec_info"]["queue_remaining"] == 0)
        assert all(engine.ask(f"/history/{prompt_id}") for prompt_id in prompts)


def test_memory_stays_flat_over_mixed_prompts(checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "checkpoints").symlink_to(checkpoints)
    # A small cache and a short history are full within the first prompts, so that what grows afterwards is a leak. Each
    # of the large pictures has 12 MB: without a bound, those of the second stretch alone would add 400 MB.
    bounds = ("--cache-mb", "32", "--cache-entries", "64", "--history-size", "50")
    with start(tmp_path, *bounds) as engine:
        process = psutil.Process(engine.process.pid)
        run(engine, range(WARM))
        before = process.memory_info().rss
        run(engine, range(WARM, ALL))
        assert process.memory_info().rss <= SHARE * before
        assert engine.finish(picture(ALL))["status"]["completed"]
