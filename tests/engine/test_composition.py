"""The options of `python -m engine` reach the parts that they bound, and the parts reach each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from engine import __main__
from engine.__main__ import Parts, compose, read_options
from engine.device import Place
from engine.errors import QueueFullError
from engine.models import Models
from engine.nodes.spec import Context, Input, Node
from tests.engine.graphs import Graph, make_folders, node, picture
from tests.engine.test_device import Company, LookAround, hold_back
from tests.engine.test_executor import Bench
from tests.engine.waiting import PATIENCE, until_blocking


@contextmanager
def begin(folder: Path, *arguments: str, checkpoints: Path | None = None) -> Iterator[tuple[Parts, Bench]]:
    """The parts at work as a command line has them, and a bench around their executor."""
    bench = Bench(make_folders(folder))
    if checkpoints is not None:
        (bench.folders.models / "checkpoints").symlink_to(checkpoints)
    parts = compose(read_options(arguments), bench.registry, bench.folders, bench.sent.put)
    bench.executor = parts.executor
    with parts.device, parts.executor:
        yield parts, bench
        bench.gate.opened.release(100)


def square(side: int) -> Graph:
    """A picture of 12 bytes a pixel."""
    return picture(width=side, height=side)


def see_cached(bench: Bench, graph: Graph) -> list[str]:
    """The nodes that come out of the cache when a graph is run again."""
    bench.run(graph)
    nodes: list[str] = bench.run(graph)[1]["status"]["messages"][1][1]["nodes"]
    return nodes


def test_max_rows_bounds_a_pass(tmp_path: Path) -> None:
    log: list[list[int]] = []
    with begin(tmp_path, "--max-rows", "2") as (parts, _):
        hold = hold_back(parts.device)
        answers = [parts.device.submit(Company(log, number)) for number in range(3)]
        hold.release.set()
        assert [answer.result(PATIENCE) for answer in answers] == [0, 1, 2]
    assert log == [[0, 1], [2]]


def test_dtype_is_what_networks_work_in(tmp_path: Path) -> None:
    with begin(tmp_path, "--dtype", "bfloat16") as (parts, _):
        assert parts.device.submit(LookAround()).result(PATIENCE)[0].dtype is torch.bfloat16


def test_models_mb_bounds_the_models(tmp_path: Path, checkpoints: Path) -> None:
    """Of `tiny`, the network takes 3 MB, and the other parts less than one together."""
    with begin(tmp_path / "1", "--models-mb", "1", checkpoints=checkpoints) as (parts, _):
        _, clip, vae = parts.models.load("tiny")
        assert list(parts.models._held) == [clip, vae]
    with begin(tmp_path / "4", "--models-mb", "4", checkpoints=checkpoints) as (parts, _):
        handles = parts.models.load("tiny")
        assert list(parts.models._held) == list(handles)


@dataclass
class Greedy:
    """Finds no memory while there are models."""

    models: Models

    def perform(self, place: Place) -> str:
        if self.models.size:
            raise MemoryError
        return "done"


def test_models_that_nobody_uses_make_room_on_the_device(tmp_path: Path, checkpoints: Path) -> None:
    with begin(tmp_path, checkpoints=checkpoints) as (parts, _):
        parts.models.load("tiny")
        assert parts.device.submit(Greedy(parts.models)).result(PATIENCE) == "done"


def test_models_are_unloaded_when_they_are_to_be_freed(tmp_path: Path, checkpoints: Path) -> None:
    with begin(tmp_path, checkpoints=checkpoints) as (parts, _):
        parts.models.load("tiny")
        parts.executor.free(models=True, cache=False)
        until_blocking(lambda: parts.models.size == 0)


def test_cache_entries_bounds_how_many_results_are_kept(tmp_path: Path) -> None:
    with begin(tmp_path / "2", "--cache-entries", "2") as (_, bench):
        assert see_cached(bench, picture(1)) == ["1", "2"]
    with begin(tmp_path / "1", "--cache-entries", "1") as (_, bench):
        assert see_cached(bench, picture(1)) == ["2"]


def test_cache_mb_bounds_the_results_that_are_kept(tmp_path: Path) -> None:
    with begin(tmp_path, "--cache-mb", "1") as (_, bench):
        assert see_cached(bench, square(256)) == ["1", "2"]
        assert see_cached(bench, square(512)) == ["2"], "a result of 3 MB is too large"


def test_prompt_mb_bounds_what_a_prompt_holds(tmp_path: Path) -> None:
    with begin(tmp_path, "--prompt-mb", "1") as (_, bench):
        assert bench.run(square(256))[1]["status"]["completed"]
        error = bench.run(square(512))[1]["status"]["messages"][-1][1]
        assert error["exception_type"] == "engine.errors.TooLargeError"


def test_history_size_and_queue_size_bound_what_is_remembered_and_what_waits(tmp_path: Path) -> None:
    with begin(tmp_path, "--history-size", "1", "--queue-size", "1", "--concurrency", "1") as (_, bench):
        first = bench.submit(picture(1))
        bench.follow(first)
        held = bench.hold()
        waiting = bench.submit(picture(2))
        with pytest.raises(QueueFullError):
            bench.submit(picture(3))
        assert bench.record(first) is not None
        bench.gate.opened.release()
        bench.follow(waiting)
        assert [bench.record(prompt_id) is not None for prompt_id in (first, held, waiting)] == [False, False, True]


@pytest.mark.parametrize(("method", "wanted"), [("none", False), ("auto", True), ("latent2rgb", True)])
def test_the_preview_method_says_whether_previews_are_wanted(tmp_path: Path, method: str, wanted: bool) -> None:
    seen: list[bool] = []

    def look(context: Context, value: object) -> tuple[()]:
        seen.append(context.previews)
        return ()

    with begin(tmp_path, "--preview-method", method) as (_, bench):
        bench.registry["Look"] = Node("Look", look, "test", {"value": Input("*")}, output_node=True)
        bench.run({"7": node("Look", value=1)})
    assert seen == [wanted]


@pytest.mark.parametrize(
    ("arguments", "most"),
    [
        ([], 8),
        (["--max-rows", "2"], 8),
        (["--device", "cuda"], 16),
        (["--device", "cuda:1", "--max-rows", "10"], 5),
        (["--device", "mps", "--max-rows", "1"], 1),
        (["--device", "cuda", "--concurrency", "3"], 3),
    ],
)
def test_as_many_prompts_run_at_once_as_are_likely_to_fill_a_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], most: int
) -> None:
    monkeypatch.setattr(__main__, "_has", lambda name: True)
    folders = make_folders(tmp_path)
    assert compose(read_options(arguments), {}, folders, lambda message: None).executor.concurrency == most


def test_nodes_find_the_device_and_the_models(tmp_path: Path, checkpoints: Path) -> None:
    graph = {
        "4": node("CheckpointLoaderSimple", ckpt_name="tiny"),
        "5": node("EmptyLatentImage", width=16, height=16, batch_size=1),
        "6": node("VAEDecode", samples=["5", 0], vae=["4", 2]),
        "7": node("SaveImage", images=["6", 0], filename_prefix="decoded"),
    }
    with begin(tmp_path, checkpoints=checkpoints) as (_, bench):
        assert bench.run(graph)[1]["status"]["completed"]
    assert (bench.folders.output / "decoded_00001_.png").is_file()
