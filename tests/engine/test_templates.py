"""The workflows that ComfyUI offers first, run by the real executor as they are exported.

Changed are the model's name, and the sizes of pictures: the tiny checkpoint takes minutes for those of the templates.
That with a LoRA is laid out as ComfyUI's, with texts and a seed of its own.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from engine.device import Device
from engine.models import Models
from engine.nodes.spec import Folders
from tests.engine.contexts import read_workflow
from tests.engine.graphs import make_folders
from tests.engine.running import run_graph
from tests.engine.test_loras import LAYER, make_halves, write_kohya

SMALLER = 8


@pytest.fixture
def folders(tmp_path: Path, checkpoints: Path) -> Folders:
    return shelve(tmp_path, checkpoints)


def shelve(path: Path, checkpoints: Path) -> Folders:
    folders = make_folders(path)
    (folders.models / "checkpoints").symlink_to(checkpoints)
    return folders


def read_template(name: str, model: str = "tiny") -> dict[str, Any]:
    workflow = read_workflow(name)
    for node in workflow.values():
        inputs = node["inputs"]
        if node["class_type"] == "CheckpointLoaderSimple":
            inputs["ckpt_name"] = model
        if node["class_type"] in ("EmptyLatentImage", "LatentUpscale") and name != "txt2img_tiny":
            inputs.update(width=inputs["width"] // SMALLER, height=inputs["height"] // SMALLER)
    return workflow


def run(
    workflow: dict[str, Any], folders: Folders, device: Device, models: Models
) -> dict[str, list[NDArray[np.uint8]]]:
    """The pictures that each node saved."""
    record = run_graph(workflow, folders, services={Device: device, Models: models})
    assert record["status"]["status_str"] == "success", record["status"]["messages"][-1]
    saved = {node: output["images"] for node, output in record["outputs"].items()}
    return {
        node: [np.asarray(Image.open(folders.output / entry["subfolder"] / entry["filename"])) for entry in entries]
        for node, entries in saved.items()
    }


def write_picture(folders: Folders, name: str, mode: str) -> None:
    """Noise of 64 x 64; with an alpha channel, its middle is transparent."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, len(mode)), np.uint8)
    if mode == "RGBA":
        pixels[..., 3] = 255
        pixels[16:48, 16:48, 3] = 0
    Image.fromarray(pixels).save(folders.input / name)


def test_text_to_image_in_a_batch(folders: Folders, device: Device, models: Models) -> None:
    workflow = read_template("txt2img_tiny")
    workflow["5"]["inputs"].update(batch_size=4, width=64, height=64)
    pictures = run(workflow, folders, device, models)["9"]
    assert [picture.shape for picture in pictures] == [(64, 64, 3)] * 4
    assert len({picture.tobytes() for picture in pictures}) == 4
    assert all(picture.std() > 10 for picture in pictures), "neither black nor grey"


def test_image_to_image(folders: Folders, device: Device, models: Models) -> None:
    write_picture(folders, "example.png", "RGB")
    (picture,) = run(read_template("img2img"), folders, device, models)["9"]
    assert picture.shape == (64, 64, 3)
    assert picture.std() > 10


def test_inpainting(folders: Folders, device: Device, models: Models) -> None:
    inpaint("tiny", folders, device, models)


def test_inpainting_by_a_model_that_was_made_for_it(
    tmp_path: Path, device: Device, inpainting_checkpoints: Path, inpainting_models: Models
) -> None:
    inpaint("inpainting", shelve(tmp_path, inpainting_checkpoints), device, inpainting_models)


def inpaint(model: str, folders: Folders, device: Device, models: Models) -> None:
    write_picture(folders, "yosemite_inpaint_example.png", "RGBA")
    workflow = read_template("inpaint", model)
    (picture,) = run(workflow, folders, device, models)["9"]
    assert picture.shape == (64, 64, 3)
    workflow["3"]["inputs"]["seed"] += 1
    (other,) = run(workflow, folders, device, models)["9"]
    changes = np.abs(picture.astype(float) - other)
    # About 10 times as much; 4 times if the sampler knew of no mask.
    assert changes[24:40, 24:40].mean() > 6 * changes[:4, :4].mean(), "what is drawn differs, what is kept less"


def test_two_passes(folders: Folders, device: Device, models: Models) -> None:
    pictures = run(read_template("two_passes"), folders, device, models)
    assert [picture.shape for picture in pictures["9"]] == [(96, 96, 3)]
    assert [picture.shape for picture in pictures["12"]] == [(144, 144, 3)]
    assert pictures["12"][0].std() > 10


@pytest.mark.parametrize(
    ("network", "name", "shape"),
    [
        ("unet", "lora_unet_conv_in", (32, 4, 3, 3)),
        ("text_encoder", f"lora_te_text_model_{LAYER.replace('.', '_')}_v_proj", (32, 32)),
    ],
)
def test_a_lora(folders: Folders, device: Device, network: str, name: str, shape: tuple[int, ...]) -> None:
    """Of one network at a time, so that neither hides that the other is left as it is."""
    (folders.models / "loras").mkdir()
    write_kohya(folders.models / "loras" / "style.safetensors", {name: make_halves(torch.Size(shape), 0)}, alpha=2.0)
    models = Models(device, folders.models)
    workflow = read_template("lora")
    (changed,) = run(workflow, folders, device, models)["9"]
    assert changed.shape == (64, 64, 3)
    assert changed.std() > 10
    workflow["3"]["inputs"]["model"] = ["4", 0]
    for encoder in ("6", "7"):
        workflow[encoder]["inputs"]["clip"] = ["4", 1]
    (plain,) = run(workflow, folders, device, models)["9"]
    assert np.abs(changed.astype(float) - plain).mean() > 5, f"the LoRA changes its {network}"
