"""An interrupt ends a prompt at once, also while the device is in the middle of a long piece of its work."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine import pipelines
from engine.device import Device, Place
from engine.models import Models
from tests.engine.contexts import read_default_workflow
from tests.engine.graphs import make_folders, picture
from tests.engine.test_executor import Bench
from tests.engine.waiting import PATIENCE


@pytest.fixture
def bench(device: Device, models: Models, checkpoints: Path, tmp_path: Path) -> Iterator[Bench]:
    folders = make_folders(tmp_path)
    (folders.models / "checkpoints").symlink_to(checkpoints)
    bench = Bench(folders, {Device: device, Models: models})
    with bench.executor:
        yield bench
    assert not bench.ended.is_set()


@pytest.mark.parametrize(
    ("work", "node_type"),
    [
        (pipelines.TextEncoding, "CLIPTextEncode"),
        (pipelines.Prediction, "KSampler"),
        (pipelines.Decoding, "VAEDecode"),
    ],
)
def test_an_interrupt_does_not_wait_for_the_work_that_the_device_is_in(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, work: Any, node_type: str
) -> None:
    started, release = threading.Event(), threading.Event()
    perform = work.perform_all

    def perform_long(self: Any, place: Place, works: Sequence[Any], limit: int) -> Any:
        started.set()
        assert release.wait(PATIENCE)
        return perform(self, place, works, limit)

    monkeypatch.setattr(work, "perform_all", perform_long)
    prompt_id = bench.submit(read_default_workflow())
    try:
        assert started.wait(PATIENCE)
        bench.executor.interrupt(prompt_id)
        end = bench.follow(prompt_id)[-3]
        assert (end["type"], end["data"]["node_type"]) == ("execution_interrupted", node_type)
        assert bench.run(picture(1))[1]["status"]["completed"], "its thread carries on with others"
    finally:
        release.set()
