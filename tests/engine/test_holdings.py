"""What a prompt may hold: much that is made of little ends with an error, and nothing is made that does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.cache import weigh
from engine.device import Device
from engine.errors import TooLargeError
from engine.holdings import Holdings
from engine.models import Models
from engine.nodes.spec import MAX_RESOLUTION
from engine.plan import Values
from tests.engine.graphs import Graph, make_folders, node
from tests.engine.test_executor import Bench

MB = 1 << 20
LARGE = {"width": MAX_RESOLUTION, "height": MAX_RESOLUTION}


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=10))
def test_what_is_held_and_claimed_stays_below_the_bound(steps: list[tuple[int, int]]) -> None:
    holdings = Holdings(2000)
    held = 0
    for number, (claimed, made) in enumerate(steps):
        values: Values = [["x" * made]]
        refused = held + max(claimed, weigh(values)) > 2000
        try:
            holdings.claim(claimed)
            holdings.keep(str(number), values)
        except TooLargeError:
            assert refused
            return
        assert not refused
        held += weigh(values)


def test_values_are_held_until_the_last_who_needs_them_has_run() -> None:
    holdings = Holdings(1000)
    holdings.expect(["1", "1"])
    holdings.keep("1", [["x" * 600]])
    holdings.use(["1"])
    with pytest.raises(TooLargeError, match="would take 0 MB, and a prompt may hold 0 MB"):
        holdings.claim(600)
    holdings.use(["1"])
    assert "1" not in holdings
    holdings = Holdings(1000)
    holdings.recall("1", [["x" * 2000]])
    assert holdings["1"] == [["x" * 2000]]
    holdings.claim(600)
    with pytest.raises(TooLargeError):
        holdings.claim(600)


@pytest.fixture
def bench(device: Device, models: Models, checkpoints: Path, tmp_path: Path) -> Iterator[Bench]:
    folders = make_folders(tmp_path)
    (folders.models / "checkpoints").symlink_to(checkpoints)
    bench = Bench(folders, {Device: device, Models: models}, max_held=64 * MB)
    with bench.executor:
        yield bench


def chain(first: Graph, last: str, *links: dict[str, Any]) -> Graph:
    """What is needed, then each link after the one before, then an output."""
    graph = {**first, **{str(10 + number): link for number, link in enumerate(links)}}
    return graph | {"99": node(last, images=[str(9 + len(links)), 0])}


def test_a_batch_that_is_joined_with_itself_again_and_again_ends_with_an_error(bench: Bench) -> None:
    links = [node("ImageBatch", image1=[str(9 + n), 0], image2=[str(9 + n), 0]) for n in range(1, 20)]
    graph = chain({}, "PreviewImage", node("EmptyImage", width=128, height=128, batch_size=1, color=0), *links)
    error = fail(bench, graph)
    # A picture has 192 kB: eight doublings make 48 MB, which node 18 holds when 19 would add twice as much.
    assert (error["node_id"], error["node_type"]) == ("18", "ImageBatch")
    assert "would take 72 MB, and a prompt may hold 64 MB" in error["exception_message"]


LATENT = node("EmptyLatentImage", **LARGE, batch_size=4096)
PICTURE = node("EmptyImage", width=64, height=64, batch_size=1, color=0)
LOAD = {"1": node("CheckpointLoaderSimple", ckpt_name="tiny"), "2": node("CLIPTextEncode", text="", clip=["1", 1])}
RUN = {"seed": 0, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
SIDES = {"model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0]}
REPEATED = [node("RepeatLatentBatch", samples=[str(10 + number), 0], amount=64) for number in range(6)]


@pytest.mark.parametrize(
    ("large", "before"),
    [
        (node("EmptyImage", **LARGE, batch_size=4096, color=0), []),
        (node("ImageScale", image=["10", 0], upscale_method="area", **LARGE, crop="disabled"), [PICTURE]),
        (
            node("ImageScaleBy", image=["10", 0], upscale_method="area", scale_by=8),
            [PICTURE | {"inputs": PICTURE["inputs"] | {"width": 512, "height": 512}}],
        ),
        (node("MaskToImage", mask=["10", 0]), [node("SolidMask", value=0, width=2048, height=4096)]),
        (node("VAEDecode", samples=["10", 0], vae=["1", 2]), [LATENT]),
        (
            node(
                "VAEDecodeTiled",
                samples=["10", 0],
                vae=["1", 2],
                tile_size=512,
                overlap=64,
                temporal_size=64,
                temporal_overlap=8,
            ),
            [LATENT],
        ),
        (
            node("VAEDecode", samples=["11", 0], vae=["1", 2]),
            [LATENT, node("KSampler", **RUN, **SIDES, latent_image=["10", 0])],
        ),
        (
            node("VAEDecode", samples=["11", 0], vae=["1", 2]),
            [
                node("EmptyLatentImage", width=64, height=64, batch_size=2),
                node("LatentUpscale", samples=["10", 0], upscale_method="area", **LARGE, crop="disabled"),
            ],
        ),
        (
            node("VAEDecode", samples=["16", 0], vae=["1", 2]),
            [node("EmptyLatentImage", width=64, height=64, batch_size=1), *REPEATED],
        ),
    ],
)
def test_nothing_is_made_that_is_too_large(bench: Bench, large: dict[str, Any], before: list[dict[str, Any]]) -> None:
    error = fail(bench, chain(LOAD, "PreviewImage", *before, large))
    assert "MB, and a prompt may hold 64 MB (--prompt-mb)" in error["exception_message"]


def test_a_mask_and_a_file_count_too(bench: Bench) -> None:
    mask = node("SolidMask", value=0, **LARGE)
    graph = {"1": mask, "2": node("MaskToImage", mask=["1", 0]), "3": node("PreviewImage", images=["2", 0])}
    assert fail(bench, graph)["node_id"] == "1"
    frames = [Image.new("L", (1024, 1024), 30 * shade) for shade in range(8)]
    frames[0].save(bench.folders.input / "film.webp", save_all=True, append_images=frames[1:])
    graph = {"1": node("LoadImage", image="film.webp"), "2": node("PreviewImage", images=["1", 0])}
    assert "may hold 64 MB" in fail(bench, graph)["exception_message"]


def fail(bench: Bench, graph: Graph) -> dict[str, Any]:
    """How a graph fails that is too large."""
    _, record = bench.run(graph)
    kind, data = record["status"]["messages"][-1]
    assert (kind, data["exception_type"]) == ("execution_error", "engine.errors.TooLargeError"), data
    return dict(data)
