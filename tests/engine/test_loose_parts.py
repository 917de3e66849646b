"""Transformers and text encoders that are in no checkpoint: together they draw what the checkpoint draws."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.conditioning import Cue
from engine.device import Device
from engine.errors import ModelError
from engine.latents import Latent, Scale
from engine.models import Handle, Models
from engine.nodes.registry import list_nodes
from engine.nodes.spec import Context, Folders
from engine.schedules import FlowSchedule
from tests.engine.contexts import RecordingContext
from tests.engine.families import change
from tests.engine.flow_families import T5_WIDTH
from tests.engine.graphs import make_folders
from tests.engine.running import run_graph

NODES = list_nodes()
SHIPPED = Path(__file__).parent.parent.parent / "workflows"


@pytest.fixture(scope="module")
def shelves(checkpoints: Path, flow_checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models whose parts lie apart."""
    models = tmp_path_factory.mktemp("loose")
    for name in ("sd3", "flux"):
        shutil.copytree(flow_checkpoints / name / "transformer", models / "diffusion_models" / name)
        shutil.copytree(flow_checkpoints / name / "vae", models / "vae" / name)
    encoders = {"clip_l": ("flux", ""), "t5": ("flux", "_2"), "sd3_l": ("sd3", ""), "sd3_g": ("sd3", "_2")}
    for name, (family, suffix) in encoders.items():
        for part in ("text_encoder", "tokenizer"):
            folder = models / "text_encoders" / name
            shutil.copytree(flow_checkpoints / family / f"{part}{suffix}", folder, dirs_exist_ok=True)
    (models / "checkpoints").mkdir()
    (models / "checkpoints" / "flux").symlink_to(flow_checkpoints / "flux")
    (models / "checkpoints" / "tiny").symlink_to(checkpoints / "tiny")
    return models


@pytest.fixture(scope="module")
def context(device: Device, shelves: Path) -> RecordingContext:
    return RecordingContext(device, Models(device, shelves))


def call(context: RecordingContext, class_type: str, **inputs: object) -> Any:
    given: Context = context
    result = NODES[class_type].function(given, **inputs)
    assert isinstance(result, tuple)
    return result[0]


def encode(context: RecordingContext, clip: Handle) -> Cue:
    (cue,) = call(context, "CLIPTextEncode", text="a cat", clip=clip).cues
    assert isinstance(cue, Cue)
    return cue


@pytest.mark.parametrize("names", [("clip_l", "t5"), ("t5", "clip_l")])
def test_flux_is_put_together_in_any_order(context: RecordingContext, names: tuple[str, str]) -> None:
    clip = call(context, "DualCLIPLoader", clip_name1=names[0], clip_name2=names[1], type="flux")
    found, expected = encode(context, clip), encode(context, Handle("flux", "clip"))
    assert torch.equal(found.embedding, expected.embedding)
    assert found.pooled is not None
    assert expected.pooled is not None
    assert torch.equal(found.pooled, expected.pooled)


def test_stable_diffusion_3_is_put_together_of_two_or_three(
    context: RecordingContext, flow_models: Models, device: Device
) -> None:
    names = {"clip_name1": "t5", "clip_name2": "sd3_g", "clip_name3": "sd3_l"}
    three = encode(context, call(context, "TripleCLIPLoader", **names))
    whole = encode(RecordingContext(device, flow_models), Handle("sd3", "clip"))
    assert three.shapes == whole.shapes == ((154, T5_WIDTH), 64)
    assert torch.equal(three.embedding[:, :77], whole.embedding[:, :77]), "but for T5, which is Flux's here"
    two = encode(context, call(context, "DualCLIPLoader", clip_name1="sd3_g", clip_name2="sd3_l", type="sd3"))
    assert two.shapes == ((77, 4096), 64)


def test_one_text_encoder_is_that_of_stable_diffusion(context: RecordingContext, shelves: Path) -> None:
    for part in ("text_encoder", "tokenizer"):
        folder = shelves / "checkpoints" / "tiny" / part
        shutil.copytree(folder, shelves / "text_encoders" / "tiny", dirs_exist_ok=True)
    clip = call(context, "CLIPLoader", clip_name="tiny", type="stable_diffusion")
    found, expected = encode(context, clip), encode(context, Handle("tiny", "clip"))
    assert torch.equal(found.embedding, expected.embedding)
    assert found.pooled is None


@pytest.mark.parametrize(("name", "shift", "scale"), [("sd3", 3.0, (1.5305, 0.0609)), ("flux", None, (0.3611, 0.1159))])
def test_a_transformer_alone_has_the_numbers_of_its_family(
    context: RecordingContext, name: str, shift: float | None, scale: tuple[float, float]
) -> None:
    models = context.service(Models)
    model = call(context, "UNETLoader", unet_name=name, weight_dtype="default")
    denoiser = models.denoiser(model)
    assert denoiser.scale == Scale(*scale)
    assert isinstance(denoiser.schedule, FlowSchedule)
    assert denoiser.schedule.shift == pytest.approx(np.exp(1.15) if shift is None else shift)
    assert models.projection(model) is None


@pytest.mark.parametrize(
    ("names", "kind", "reason"),
    [
        (("t5", "t5"), "flux", "are CLIPTextModel and T5EncoderModel, but 't5' is T5EncoderModel and"),
        (("clip_l", "t5"), "sd3", "text encoders of sd3 are CLIPTextModelWithProjection and"),
        (("sd3_l",), "stable_diffusion", "'sd3_l' is CLIPTextModelWithProjection"),
        (("none",), "stable_diffusion", "there is no text encoder 'none'"),
    ],
)
def test_encoders_that_do_not_go_together_are_refused_by_name(
    context: RecordingContext, names: tuple[str, ...], kind: str, reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        context.service(Models).load_text_encoders(kind, names)


def test_other_networks_are_refused_by_name(context: RecordingContext, shelves: Path) -> None:
    shutil.copytree(shelves / "checkpoints" / "tiny" / "unet", shelves / "diffusion_models" / "unet")
    shutil.copytree(shelves / "text_encoders" / "t5", shelves / "text_encoders" / "umt5")
    change(shelves / "text_encoders" / "umt5" / "config.json", architectures=["UMT5EncoderModel"])
    models = context.service(Models)
    with pytest.raises(ModelError, match="'unet' is UNet2DConditionModel, which is not run without a checkpoint"):
        models.load_diffusion_model("unet")
    with pytest.raises(ModelError, match="'umt5' is UMT5EncoderModel, which this engine does not run"):
        models.load_text_encoders("flux", ["clip_l", "umt5"])


def test_choices_are_those_on_disk(shelves: Path) -> None:
    folders = Folders(shelves, shelves, shelves, shelves)
    assert {"flux", "sd3"} <= set(NODES["UNETLoader"].required["unet_name"].listed(folders) or ())
    assert {"clip_l", "t5"} <= set(NODES["DualCLIPLoader"].required["clip_name2"].listed(folders) or ())


SAMPLING: dict[str, Any] = {
    "model": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux", "weight_dtype": "default"}},
    "clip": {"class_type": "DualCLIPLoader", "inputs": {"clip_name1": "t5", "clip_name2": "clip_l", "type": "flux"}},
    "vae": {"class_type": "VAELoader", "inputs": {"vae_name": "flux"}},
    "text": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["clip", 0]}},
    "told": {"class_type": "FluxGuidance", "inputs": {"conditioning": ["text", 0], "guidance": 3.0}},
    "shift": {
        "class_type": "ModelSamplingFlux",
        "inputs": {"model": ["model", 0], "max_shift": 1.15, "base_shift": 0.5, "width": 64, "height": 64},
    },
    "guider": {"class_type": "BasicGuider", "inputs": {"model": ["shift", 0], "conditioning": ["told", 0]}},
    "noise": {"class_type": "RandomNoise", "inputs": {"noise_seed": 7}},
    "sampler": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
    "sigmas": {
        "class_type": "BasicScheduler",
        "inputs": {"model": ["shift", 0], "scheduler": "simple", "steps": 2, "denoise": 1.0},
    },
    "empty": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "draw": {
        "class_type": "SamplerCustomAdvanced",
        "inputs": {
            "noise": ["noise", 0],
            "guider": ["guider", 0],
            "sampler": ["sampler", 0],
            "sigmas": ["sigmas", 0],
            "latent_image": ["empty", 0],
        },
    },
    "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["draw", 1], "vae": ["vae", 0]}},
    "save": {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "loose"}},
}


def test_fluxs_own_template_draws_what_ksampler_draws(
    context: RecordingContext, device: Device, shelves: Path, tmp_path: Path
) -> None:
    folders = make_folders(tmp_path)
    folders = Folders(shelves, folders.input, folders.output, folders.temp)
    services = {Device: device, Models: context.service(Models)}
    record = run_graph(SAMPLING, folders, services=services)
    assert record["status"]["status_str"] == "success", record["status"]["messages"][-1]
    (entry,) = record["outputs"]["save"]["images"]
    found = np.asarray(Image.open(folders.output / entry["filename"])).astype(np.int64)
    model = call(
        context, "ModelSamplingFlux", model=Handle("flux", "model"), max_shift=1.15, base_shift=0.5, width=64, height=64
    )
    text = call(context, "CLIPTextEncode", text="a cat", clip=Handle("flux", "clip"))
    latent: Latent = call(
        context,
        "KSampler",
        model=model,
        seed=7,
        steps=2,
        cfg=1.0,
        sampler_name="euler",
        scheduler="simple",
        positive=text.guide(3.0),
        negative=text,
        latent_image=Latent.of(torch.zeros(1, 16, 8, 8)),
        denoise=1.0,
    )
    expected = call(context, "VAEDecode", samples=latent, vae=Handle("flux", "vae"))
    assert int(abs(found - (expected[0] * 255).astype(np.int64)).max()) <= 1


def test_the_flux_template_that_ships_runs_once_its_models_are_named(
    context: RecordingContext, device: Device, shelves: Path, tmp_path: Path
) -> None:
    graph = json.loads((SHIPPED / "flux.json").read_text(encoding="utf-8"))
    names = {"unet_name": "flux", "clip_name1": "clip_l", "clip_name2": "t5", "vae_name": "flux"}
    for node in graph.values():
        node["inputs"] |= {name: value for name, value in names.items() if name in node["inputs"]}
        node["inputs"] |= {side: 64 for side in ("width", "height") if side in node["inputs"]}
        node["inputs"] |= {"steps": 2} if "steps" in node["inputs"] else {}
    folders = make_folders(tmp_path)
    folders = Folders(shelves, folders.input, folders.output, folders.temp)
    record = run_graph(graph, folders, services={Device: device, Models: context.service(Models)})
    assert record["status"]["status_str"] == "success", record["status"]["messages"][-1]
    assert len(list(folders.output.rglob("*.png"))) == 1


def test_guidance_and_noise_are_taken_apart_as_ksampler_has_them(context: RecordingContext) -> None:
    model = Handle("flux", "model")
    positive, negative = (
        call(context, "CLIPTextEncode", text=text, clip=Handle("flux", "clip")) for text in ("a cat", "a dog")
    )
    latent = Latent.of(torch.ones(1, 16, 4, 4))
    run: dict[str, Any] = {"steps": 2, "cfg": 3.0, "positive": positive, "negative": negative, "latent_image": latent}
    names = {"sampler_name": "heun", "scheduler": "normal"}
    guider = call(context, "CFGGuider", model=model, positive=positive, negative=negative, cfg=3.0)
    for noise, adds in (
        (call(context, "RandomNoise", noise_seed=5), "enable"),
        (call(context, "DisableNoise"), "disable"),
    ):
        sigmas = call(context, "BasicScheduler", model=model, scheduler="normal", steps=2, denoise=1.0)
        found = call(
            context,
            "SamplerCustomAdvanced",
            noise=noise,
            guider=guider,
            sampler=call(context, "KSamplerSelect", sampler_name="heun"),
            sigmas=sigmas,
            latent_image=latent,
        )
        expected = call(
            context,
            "KSamplerAdvanced",
            model=model,
            add_noise=adds,
            noise_seed=5,
            start_at_step=0,
            end_at_step=10000,
            return_with_leftover_noise="disable",
            **run,
            **names,
        )
        assert torch.allclose(found.samples, expected.samples, atol=1e-5)
