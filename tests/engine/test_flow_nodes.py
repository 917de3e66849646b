"""Nodes for Stable Diffusion 3 and Flux, and both drawn by whole workflows."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.conditioning import Conditioning, Cue
from engine.device import Device
from engine.errors import ModelError
from engine.latents import Latent
from engine.models import Handle, Models
from engine.nodes.registry import list_nodes
from engine.nodes.spec import Context
from engine.schedules import FlowSchedule
from tests.engine.contexts import RecordingContext
from tests.engine.flow_families import T5_WIDTH
from tests.engine.graphs import make_folders
from tests.engine.running import run_graph

NODES = list_nodes()
SHIPPED = Path(__file__).parent.parent.parent / "workflows"
SD3, FLUX = Handle("sd3", "model"), Handle("flux", "model")
SD3_CLIP, FLUX_CLIP = Handle("sd3", "clip"), Handle("flux", "clip")


@pytest.fixture
def context(device: Device, flow_models: Models) -> RecordingContext:
    return RecordingContext(device, flow_models)


def call(context: RecordingContext, class_type: str, **inputs: object) -> Any:
    given: Context = context
    result = NODES[class_type].function(given, **inputs)
    assert isinstance(result, tuple)
    return result[0]


def encode_sd3(context: RecordingContext, small: str, large: str, t5: str, padding: str = "none") -> Conditioning:
    found: Conditioning = call(
        context, "CLIPTextEncodeSD3", clip=SD3_CLIP, clip_l=small, clip_g=large, t5xxl=t5, empty_padding=padding
    )
    return found


def test_empty_latents_have_16_channels(context: RecordingContext) -> None:
    latent: Latent = call(context, "EmptySD3LatentImage", width=64, height=48, batch_size=3)
    assert latent.samples.shape == (3, 16, 6, 8)
    assert not latent.samples.any()


def check(found: Cue, expected: Cue) -> None:
    assert torch.equal(found.embedding, expected.embedding)
    assert found.pooled is not None
    assert expected.pooled is not None
    assert torch.equal(found.pooled, expected.pooled)


def test_one_text_for_all_encoders_is_that_text(context: RecordingContext) -> None:
    (expected,) = call(context, "CLIPTextEncode", text="a cat", clip=SD3_CLIP).cues
    (found,) = encode_sd3(context, "a cat", "a cat", "a cat").cues
    check(found, expected)
    (expected,) = call(context, "CLIPTextEncode", text="a cat", clip=FLUX_CLIP).cues
    (found,) = call(context, "CLIPTextEncodeFlux", clip=FLUX_CLIP, clip_l="a cat", t5xxl="a cat", guidance=2.5).cues
    check(found, expected)
    assert (expected.guidance, found.guidance) == (None, 2.5)


def test_texts_of_other_lengths_become_equally_many_chunks(context: RecordingContext) -> None:
    (found,) = encode_sd3(context, "a cat", "long " * 40, "a cat").cues
    assert found.shapes == ((4 * 77, T5_WIDTH), 64)
    (alone,) = encode_sd3(context, "a cat", "a cat", "a cat").cues
    assert torch.allclose(found.embedding[:, :77, :32], alone.embedding[:, :77, :32], atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "padding", "tokens", "says"),
    [
        (("a", "", ""), "none", 77 + 1, True),
        (("a", "", ""), "empty_prompt", 77 + 77, True),
        (("", "", "a"), "none", 77, False),
        (("", "", "a"), "empty_prompt", 77 + 77, True),
        (("", "", ""), "none", 1, False),
    ],
)
def test_encoders_that_are_told_nothing_add_nothing_unless_asked_to(
    context: RecordingContext, texts: tuple[str, str, str], padding: str, tokens: int, says: bool
) -> None:
    (found,) = encode_sd3(context, *texts, padding).cues
    assert found.embedding.shape[1] == tokens
    assert found.pooled is not None
    assert bool(found.pooled.any()) is says


def test_texts_for_another_kind_of_encoder_are_refused(context: RecordingContext) -> None:
    with pytest.raises(ValueError, match="another kind of model: it needs a text for 'g'"):
        call(context, "CLIPTextEncodeFlux", clip=SD3_CLIP, clip_l="a", t5xxl="a", guidance=3.5)


def test_guidance_is_for_every_cue(context: RecordingContext) -> None:
    both = encode_sd3(context, "a", "a", "a").combine(encode_sd3(context, "b", "b", "b"))
    guided = call(context, "FluxGuidance", conditioning=both, guidance=2.0)
    assert [cue.guidance for cue in guided.cues] == [2.0, 2.0]
    assert [cue.guidance for cue in both.cues] == [None, None]


@pytest.mark.parametrize(
    ("side", "expected"), [(256, math.exp(0.5)), (1024, math.exp(1.15)), (512, math.exp(0.5 + 0.65 * 768 / 3840))]
)
def test_fluxs_shift_grows_with_the_picture(
    context: RecordingContext, flow_models: Models, side: int, expected: float
) -> None:
    sizes = {"width": side, "height": side}
    shifted = call(context, "ModelSamplingFlux", model=FLUX, max_shift=1.15, base_shift=0.5, **sizes)
    schedule = flow_models.denoiser(shifted).schedule
    assert isinstance(schedule, FlowSchedule)
    assert schedule.shift == pytest.approx(expected)


def test_models_are_shifted_without_being_read_again(context: RecordingContext, flow_models: Models) -> None:
    size = flow_models.size
    shifted = flow_models.denoiser(call(context, "ModelSamplingSD3", model=SD3, shift=6.0))
    plain = flow_models.denoiser(SD3)
    assert shifted.network is plain.network
    assert [getattr(each.schedule, "shift", None) for each in (plain, shifted)] == [3.0, 6.0]
    assert flow_models.size == max(size, flow_models.size)


def test_variants_that_are_used_make_no_room(device: Device, flow_checkpoints: Path) -> None:
    models = Models(device, flow_checkpoints.parent)
    shifted = models.denoiser(Handle("sd3", "model", shift=6.0))
    stopped = models.text_encoder(Handle("sd3", "clip", layer=-3))
    size = models.size
    models.autoencoder(Handle("sd3", "vae"))
    assert models.make_room(), "the autoencoder goes"
    assert not models.make_room()
    assert models.size == size
    assert (shifted.origin, stopped.origin) == (models.denoiser(SD3), models.text_encoder(SD3_CLIP))
    del shifted, stopped
    assert models.make_room()


def test_shifts_that_mean_nothing_are_refused(context: RecordingContext, device: Device, models: Models) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        call(context, "ModelSamplingSD3", model=SD3, shift=0.0)
    sizes = {"width": 16384, "height": 16384}
    with pytest.raises(ValueError, match="is too much"):
        call(context, "ModelSamplingFlux", model=FLUX, max_shift=100.0, base_shift=0.0, **sizes)
    with pytest.raises(ValueError, match="cannot be shifted"):
        call(RecordingContext(device, models), "ModelSamplingSD3", model=Handle("tiny", "model"), shift=3.0)


LOADER = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd3"}}
END = {
    "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["draw", 0], "vae": ["load", 2]}},
    "save": {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "flow"}},
}


def make_sampler(steps: int, cfg: float, **inputs: object) -> dict[str, Any]:
    run = {"seed": 1, "steps": steps, "cfg": cfg, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    return {"class_type": "KSampler", "inputs": {**run, **inputs}}


SD3_GRAPH: dict[str, Any] = {
    "load": LOADER,
    "shift": {"class_type": "ModelSamplingSD3", "inputs": {"model": ["load", 0], "shift": 3.0}},
    "positive": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["load", 1]}},
    "negative": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["load", 1]}},
    "empty": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 2}},
    "draw": make_sampler(
        2, 4.5, model=["shift", 0], positive=["positive", 0], negative=["negative", 0], latent_image=["empty", 0]
    ),
    **END,
}
FLUX_GRAPH: dict[str, Any] = {
    "load": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "flux"}},
    "positive": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["load", 1]}},
    "guide": {"class_type": "FluxGuidance", "inputs": {"conditioning": ["positive", 0], "guidance": 3.5}},
    "negative": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["positive", 0]}},
    # Of four channels, as templates for other models have it: what is empty fits any model.
    "empty": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 2}},
    "draw": make_sampler(
        2, 1.0, model=["load", 0], positive=["guide", 0], negative=["negative", 0], latent_image=["empty", 0]
    ),
    **END,
}


def read_template() -> dict[str, Any]:
    """The template for Stable Diffusion 3.5 that ships, for the tiny checkpoint and in its size."""
    graph: dict[str, Any] = json.loads((SHIPPED / "sd35.json").read_text(encoding="utf-8"))
    changes = {"ckpt_name": "sd3", "width": 64, "height": 64, "batch_size": 2, "steps": 2}
    for node in graph.values():
        node["inputs"] |= {name: value for name, value in changes.items() if name in node["inputs"]}
    return graph


@pytest.mark.parametrize("graph", [SD3_GRAPH, FLUX_GRAPH, read_template()], ids=["sd3", "flux", "template"])
def test_workflows_draw_pictures(
    graph: dict[str, Any], device: Device, flow_models: Models, flow_checkpoints: Path, tmp_path: Path
) -> None:
    folders = make_folders(tmp_path)
    (folders.models / "checkpoints").symlink_to(flow_checkpoints)
    record = run_graph(graph, folders, services={Device: device, Models: flow_models})
    assert record["status"]["status_str"] == "success", record["status"]["messages"][-1]
    (saved,) = record["outputs"].values()
    pictures = [np.asarray(Image.open(folders.output / entry["filename"])) for entry in saved["images"]]
    assert [picture.shape for picture in pictures] == [(64, 64, 3)] * 2
    assert not np.array_equal(pictures[0], pictures[1])


def test_a_picture_keeps_what_img2img_leaves(context: RecordingContext) -> None:
    pixels = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    latent = call(context, "VAEEncode", pixels=pixels, vae=Handle("sd3", "vae"))
    cue = encode_sd3(context, "a", "a", "a")
    run: dict[str, Any] = {"seed": 1, "steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
    slight, whole = (
        call(context, "KSampler", model=SD3, positive=cue, negative=cue, latent_image=latent, denoise=denoise, **run)
        for denoise in (0.05, 1.0)
    )
    assert [report[2] is not None for report in context.reports[-4:]] == [True] * 4, "each step is shown"
    differences = [float((each.samples - latent.samples).abs().mean()) for each in (slight, whole)]
    assert differences[0] < differences[1] / 2


def test_a_lora_in_diffusers_words_is_merged_and_others_are_refused(
    context: RecordingContext, flow_models: Models, flow_checkpoints: Path
) -> None:
    from safetensors.torch import save_file

    folder = flow_checkpoints.parent / "loras"
    folder.mkdir(exist_ok=True)
    name = "transformer_blocks.0.attn.to_q"
    before = flow_models.denoiser(SD3).network.module.get_submodule(name).weight
    up, down = torch.ones(before.shape[0], 2), torch.full((2, before.shape[1]), 0.5)
    for file, module in (("diffusers", f"transformer.{name}"), ("kohya", "lora_unet_joint_blocks_0_x_block_attn_qkv")):
        words = ("lora_A", "lora_B") if file == "diffusers" else ("lora_down", "lora_up")
        tensors = {f"{module}.{word}.weight": half for word, half in zip(words, (down, up), strict=True)}
        save_file(tensors, folder / f"{file}.safetensors")
    changed = call(context, "LoraLoaderModelOnly", model=SD3, lora_name="diffusers.safetensors", strength_model=0.5)
    after = flow_models.denoiser(changed).network.module.get_submodule(name).weight
    assert torch.allclose(after, before + 0.5, atol=1e-5)
    strange = call(context, "LoraLoaderModelOnly", model=SD3, lora_name="kohya.safetensors", strength_model=1.0)
    with pytest.raises(ModelError, match="is for another model: 'lora_unet_joint_blocks"):
        flow_models.denoiser(strange)
