"""LoRAs: from every layout of files, what is merged is the product that the file says, into nothing else."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.checkpoints import read_part
from engine.device import Device
from engine.errors import ModelError
from engine.ldm import list_original_names
from engine.loras import read_lora
from engine.models import Handle, Models
from engine.nodes import loaders
from engine.pipelines import Denoiser
from engine.shelves import Source
from engine.texts import TextEncoder
from tests.engine.contexts import RecordingContext
from tests.engine.families import build_xl

NODES = {node.class_type: node for node in loaders.NODES}
RANK = 2
STRENGTH = 0.5
ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
MODULES = (
    f"{ATTENTION}.to_q",
    f"{ATTENTION}.to_out.0",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "down_blocks.0.resnets.0.conv1",
    "up_blocks.1.attentions.1.proj_in",
)
LAYER = "encoder.layers.1.self_attn"


def make_halves(shape: torch.Size, seed: int) -> tuple[Tensor, Tensor]:
    """Up and down for a weight of a linear layer or a convolution."""
    generator = torch.Generator().manual_seed(seed)
    up = torch.randn(shape[0], RANK, *(1,) * (len(shape) - 2), generator=generator)
    return up, torch.randn(RANK, *shape[1:], generator=generator)


def multiply(up: Tensor, down: Tensor) -> Tensor:
    """The change of a weight: a convolution of rank kernels, then of one pixel."""
    if down.ndim == 2:
        return up @ down
    return torch.einsum("or,rihw->oihw", up[:, :, 0, 0], down)


def read_networks(folder: Path, *loras: tuple[Path, float]) -> dict[str, Any]:
    """The networks of a checkpoint by component."""
    source = Source(folder.name, folder)
    merged = [(read_lora(path, path.name), strength) for path, strength in loras]
    denoiser, encoder = read_part(source, "model", merged), read_part(source, "clip", merged)
    assert isinstance(denoiser, Denoiser)
    assert isinstance(encoder, TextEncoder)
    models = {f"text_encoder{suffix}": tower.model for suffix, tower in zip(("", "_2"), encoder.towers, strict=False)}
    return {"unet": denoiser.network.module, **models}


def write_kohya(path: Path, names: Mapping[str, tuple[Tensor, Tensor]], alpha: float) -> None:
    """As kohya's trainer writes: flat names, halves and their alpha."""
    tensors: dict[str, Tensor] = {}
    for name, (up, down) in names.items():
        tensors |= {
            f"{name}.lora_up.weight": up,
            f"{name}.lora_down.weight": down,
            f"{name}.alpha": torch.tensor(alpha),
        }
    save_file(tensors, path)


def check(changed: Mapping[str, Any], plain: Mapping[str, Any], expected: Mapping[tuple[str, str], Tensor]) -> None:
    """Every weight is as it was, but for the expected changes."""
    for component, network in plain.items():
        after = changed[component].state_dict()
        for name, before in network.state_dict().items():
            change = expected.get((component, name.removesuffix(".weight")), torch.zeros(()))
            assert torch.allclose(after[name], before + change, atol=1e-5), name


def test_kohyas_files_are_merged(checkpoints: Path, tmp_path: Path) -> None:
    plain = read_networks(checkpoints / "tiny")
    halves = {
        name: make_halves(plain["unet"].get_submodule(name).weight.shape, seed) for seed, name in enumerate(MODULES)
    }
    text = make_halves(plain["text_encoder"].get_submodule(f"{LAYER}.q_proj").weight.shape, 9)
    names = {f"lora_unet_{name.replace('.', '_')}": pair for name, pair in halves.items()}
    flat = f"lora_te_text_model_{LAYER.replace('.', '_')}_q_proj"
    write_kohya(tmp_path / "a.safetensors", {**names, flat: text}, alpha=1.0)
    expected = {("unet", name): STRENGTH * multiply(*pair) / RANK for name, pair in halves.items()}
    expected["text_encoder", f"{LAYER}.q_proj"] = STRENGTH * multiply(*text) / RANK
    check(read_networks(checkpoints / "tiny", (tmp_path / "a.safetensors", STRENGTH)), plain, expected)


def test_kohyas_files_for_xl_are_merged(checkpoints: Path, tmp_path: Path) -> None:
    build_xl(checkpoints / "tiny", tmp_path / "xl")
    plain = read_networks(tmp_path / "xl")
    modules = [name for name, part in plain["unet"].named_modules() if getattr(part, "weight", None) is not None]
    original = {name: key for key, name in list_original_names(modules, 1).items()}
    chosen = [name for name in modules if plain["unet"].get_submodule(name).weight.ndim > 1]
    halves = {name: make_halves(plain["unet"].get_submodule(name).weight.shape, 1) for name in chosen}
    names = {f"lora_unet_{original[name].replace('.', '_')}": pair for name, pair in halves.items()}
    assert "lora_unet_input_blocks_3_1_transformer_blocks_1_attn2_to_k" in names
    first = make_halves(plain["text_encoder"].get_submodule(f"{LAYER}.v_proj").weight.shape, 2)
    second = make_halves(plain["text_encoder_2"].text_model.get_submodule(f"{LAYER}.v_proj").weight.shape, 3)
    names[f"lora_te1_text_model_{LAYER.replace('.', '_')}_v_proj"] = first
    names[f"lora_te2_text_model_{LAYER.replace('.', '_')}_v_proj"] = second
    write_kohya(tmp_path / "a.safetensors", names, alpha=float(RANK))
    expected = {("unet", name): multiply(*pair) for name, pair in halves.items()}
    expected["text_encoder", f"{LAYER}.v_proj"] = multiply(*first)
    expected["text_encoder_2", f"text_model.{LAYER}.v_proj"] = multiply(*second)
    check(read_networks(tmp_path / "xl", (tmp_path / "a.safetensors", 1.0)), plain, expected)


@pytest.mark.parametrize(
    ("unet", "text", "up", "down", "metadata", "scale"),
    [
        ("attn1.to_q", "q_proj", ".lora_B", ".lora_A", None, 1.0),
        ("attn1.to_q", "q_proj", ".lora_B", ".lora_A", {"unet.lora_alpha": 6, "text_encoder.lora_alpha": 6}, 3.0),
        ("attn1.to_q", "q_proj", ".lora.up", ".lora.down", None, 1.0),
        ("attn1.processor.to_q_lora", "to_q_lora", ".up", ".down", None, 1.0),
        ("attn1.to_q", "q_proj", ".lora_linear_layer.up", ".lora_linear_layer.down", None, 1.0),
    ],
)
def test_diffusers_files_are_merged(
    checkpoints: Path,
    tmp_path: Path,
    unet: str,
    text: str,
    up: str,
    down: str,
    metadata: dict[str, object] | None,
    scale: float,
) -> None:
    plain = read_networks(checkpoints / "tiny")
    first = make_halves(plain["unet"].get_submodule(f"{ATTENTION}.to_q").weight.shape, 0)
    second = make_halves(plain["text_encoder"].get_submodule(f"{LAYER}.q_proj").weight.shape, 1)
    tensors: dict[str, Tensor] = {}
    for name, pair in ((f"unet.{ATTENTION.replace('attn1', unet)}", first), (f"{LAYER}.{text}", second)):
        full = name if name.startswith("unet") else f"text_encoder.text_model.{name}"
        tensors |= {f"{full}{up}.weight": pair[0], f"{full}{down}.weight": pair[1]}
    header = None if metadata is None else {"lora_adapter_metadata": json.dumps(metadata)}
    save_file(tensors, tmp_path / "a.safetensors", header)
    expected = {
        ("unet", f"{ATTENTION}.to_q"): scale * multiply(*first),
        ("text_encoder", f"{LAYER}.q_proj"): scale * multiply(*second),
    }
    check(read_networks(checkpoints / "tiny", (tmp_path / "a.safetensors", 1.0)), plain, expected)


def _lack_up(tensors: dict[str, Tensor]) -> None:
    del tensors["lora_unet_conv_in.lora_up.weight"]


def _name_other_module(tensors: dict[str, Tensor]) -> None:
    for key in list(tensors):
        tensors[key.replace("conv_in", "conv_on")] = tensors.pop(key)


def _change_width(tensors: dict[str, Tensor]) -> None:
    tensors["lora_unet_conv_in.lora_down.weight"] = torch.zeros(RANK, 5, 3, 3)


def _add_magnitudes(tensors: dict[str, Tensor]) -> None:
    tensors["lora_unet_conv_in.dora_scale"] = torch.zeros(4)


def _name_other_network(tensors: dict[str, Tensor]) -> None:
    for key in list(tensors):
        tensors[key.replace("lora_unet", "lora_transformer")] = tensors.pop(key)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_lack_up, "has one half only of 'lora_unet_conv_in"),
        (_name_other_module, "is for another model: there is no 'lora_unet_conv_on'"),
        (_change_width, "is for another model: 'lora_unet_conv_in' has another shape"),
        (_add_magnitudes, "of a kind that this engine does not know: there is 'lora_unet_conv_in.dora_scale'"),
        (_name_other_network, "of a kind that this engine does not know: there is 'lora_transformer_conv_in'"),
        (dict.clear, "of a kind that this engine does not know: there is nothing"),
    ],
)
def test_a_lora_that_does_not_fit_is_refused(
    checkpoints: Path, tmp_path: Path, damage: Callable[[dict[str, Tensor]], None], reason: str
) -> None:
    tensors = {"lora_unet_conv_in.lora_up.weight": torch.zeros(32, RANK, 1, 1)}
    tensors["lora_unet_conv_in.lora_down.weight"] = torch.zeros(RANK, 4, 3, 3)
    damage(tensors)
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match=reason):
        read_part(
            Source("tiny", checkpoints / "tiny"), "model", [(read_lora(tmp_path / "a.safetensors", "a.safetensors"), 1)]
        )


def test_what_is_no_file_of_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"junk" * 100)
    with pytest.raises(ModelError, match=r"LoRA 'a' cannot be read"):
        read_lora(tmp_path / "a.safetensors", "a")


@pytest.fixture
def shelf(checkpoints: Path, tmp_path: Path) -> Path:
    """Models with the tiny checkpoint and two LoRAs."""
    (tmp_path / "checkpoints").symlink_to(checkpoints)
    (tmp_path / "loras").mkdir()
    for seed, name in enumerate(("one", "two")):
        pair = make_halves(torch.Size((32, 4, 3, 3)), seed)
        write_kohya(tmp_path / "loras" / f"{name}.safetensors", {"lora_unet_conv_in": pair}, alpha=1.0)
    return tmp_path


def test_a_model_with_loras_is_one_of_its_own(device: Device, shelf: Path) -> None:
    models = Models(device, shelf)
    model, _, _ = models.load("tiny")
    before = models.denoiser(model).network.module.conv_in.weight.clone()
    size = models.size
    one = models.add_lora(model, "one.safetensors", 1.0)
    both = models.add_lora(one, "two.safetensors", -1.0)
    assert models.size == size, "nothing is read before it is needed"
    weight_of_one, weight_of_both = (models.denoiser(handle).network.module.conv_in.weight for handle in (one, both))
    assert models.size > size + 2_000_000
    assert torch.equal(models.denoiser(model).network.module.conv_in.weight, before)
    changes = [multiply(*make_halves(before.shape, seed)) / RANK for seed in (0, 1)]
    assert torch.allclose(weight_of_one, before + changes[0], atol=1e-5)
    assert torch.allclose(weight_of_both, before + changes[0] - changes[1], atol=1e-5)
    assert models.denoiser(models.add_lora(model, "one.safetensors", 1.0)) is models.denoiser(one)
    assert models.add_lora(model, "one.safetensors", 0.0) == model
    assert models.projection(one) is models.projection(model)


def test_models_with_loras_are_evicted_like_others(device: Device, shelf: Path) -> None:
    models = Models(device, shelf, max_bytes=4_000_000)
    model = Handle("tiny", "model")
    for strength in (0.1, 0.2, 0.3):
        models.denoiser(models.add_lora(model, "one.safetensors", strength))
        assert models.size < 4_000_000


@pytest.mark.parametrize("name", ["three.safetensors", "one", "../loras/one.safetensors", ""])
def test_a_name_that_is_no_lora_is_refused(device: Device, shelf: Path, name: str) -> None:
    with pytest.raises(ModelError, match="there is no LoRA"):
        Models(device, shelf).add_lora(Handle("tiny", "model"), name, 1.0)


def test_the_loader_changes_model_and_clip_each_by_its_own_strength(device: Device, shelf: Path) -> None:
    models = Models(device, shelf)
    context: Any = RecordingContext(device, models)
    model, clip, _ = models.load("tiny")

    def read(model: Handle, clip: Handle) -> tuple[Tensor, Tensor]:
        (tower,) = models.text_encoder(clip).towers
        convolution = models.denoiser(model).network.module.conv_in
        return convolution.weight, tower.model.get_submodule(f"{LAYER}.q_proj").weight

    before = read(model, clip)
    halves = [make_halves(weight.shape, seed) for seed, weight in enumerate(before)]
    names = "lora_unet_conv_in", f"lora_te_text_model_{LAYER.replace('.', '_')}_q_proj"
    write_kohya(shelf / "loras" / "both.safetensors", dict(zip(names, halves, strict=True)), alpha=float(RANK))

    def load(class_type: str, **inputs: object) -> Any:
        return NODES[class_type].function(context, model=model, lora_name="both.safetensors", **inputs)

    changed = read(*load("LoraLoader", clip=clip, strength_model=0.5, strength_clip=-2.0))
    for after, weight, pair, strength in zip(changed, before, halves, (0.5, -2.0), strict=True):
        assert torch.allclose(after, weight + strength * multiply(*pair), atol=1e-5)
    (alone,) = load("LoraLoaderModelOnly", strength_model=0.25)
    assert torch.allclose(read(alone, clip)[0], before[0] + 0.25 * multiply(*halves[0]), atol=1e-5)
