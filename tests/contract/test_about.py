"""What an engine tells about itself, and the twins under /api."""

import pytest

from tests.contract.graphs import fresh_graph
from tests.fakes.talker import Talker, labels


async def test_system_stats(talker: Talker) -> None:
    stats = await talker.get("/system_stats")
    assert stats["system"].keys() >= {
        "os",
        "ram_total",
        "ram_free",
        "comfyui_version",
        "python_version",
        "pytorch_version",
    }
    assert all(device.keys() >= {"name", "type", "index", "vram_total", "vram_free"} for device in stats["devices"])


async def test_features(talker: Talker) -> None:
    features = await talker.get("/features")
    assert features["supports_preview_metadata"] is True
    assert features["max_upload_size"] >= 1 << 20


async def test_object_info_of_one_class_and_of_all(talker: Talker) -> None:
    info = await talker.get("/object_info/EmptyImage")
    assert info.keys() == {"EmptyImage"}
    assert info["EmptyImage"].keys() >= {
        "input",
        "input_order",
        "output",
        "output_is_list",
        "output_name",
        "name",
        "display_name",
        "description",
        "category",
        "output_node",
    }
    kind, options = info["EmptyImage"]["input"]["required"]["width"]
    assert (kind, options["min"]) == ("INT", 1)
    assert info["EmptyImage"]["input_order"]["required"] == ["width", "height", "batch_size", "color"]
    everything = await talker.get("/object_info")
    assert everything.keys() >= {
        "EmptyImage",
        "LoadImage",
        "SaveImage",
        "PreviewImage",
        "PreviewAny",
        "SaveImageWebsocket",
    }
    assert everything["SaveImage"]["output_node"] is True
    assert await talker.get("/object_info/NoSuchNode") == {}


@pytest.mark.parametrize(
    "path", ["/queue", "/prompt", "/history", "/features", "/system_stats", "/object_info/EmptyImage"]
)
async def test_every_path_has_a_twin(talker: Talker, path: str) -> None:
    assert (await talker.get(f"/api{path}")).keys() == (await talker.get(path)).keys()


async def test_unknown_prompts_and_paths(talker: Talker) -> None:
    assert await talker.get("/history/no-such-prompt") == {}
    async with talker.session.get(f"{talker.url}/no-such-path") as answer:
        assert answer.status == 404
    async with talker.session.put(f"{talker.url}/prompt") as answer:
        assert answer.status == 405


async def test_memory_can_be_freed_and_the_next_run_is_not_cached(talker: Talker) -> None:
    graph = fresh_graph()
    await talker.run(graph)
    assert await talker.tell("/free", {"unload_models": True, "free_memory": True}) == 200
    runs = [labels((await talker.run(graph))[1]) for _ in range(3)]  # the worker may take a prompt before it frees
    assert any("executing" in run for run in runs)


async def test_the_history_is_paged_from_the_newest(talker: Talker) -> None:
    await talker.run(fresh_graph())
    last, _ = await talker.run(fresh_graph())
    assert await talker.get("/history?max_items=0") == {}
    assert list(await talker.get("/history?max_items=1")) == [last]
