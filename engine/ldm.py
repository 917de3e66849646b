"""Names of a UNet's modules as its first authors gave them, where diffusers has others.

For: files of weights that were trained under those names. Leaves the files to their readers.
Invariant: pure; each module of a UNet has one such name.
"""

import re
from collections.abc import Iterable, Mapping

_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_LAYER = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def list_original_names(modules: Iterable[str], layers_per_block: int) -> Mapping[str, str]:
    """Original name -> diffusers' name, for the modules of a UNet2DConditionModel that hold weights."""
    known = list(modules)
    attentive = {match[2] for name in known if (match := _LAYER.fullmatch(name)) and match[3] == "attentions"}
    names = {}
    for name in known:
        if layer := _LAYER.fullmatch(name):
            names[_name_layer(layer, layers_per_block + 1, attentive)] = name
        elif middle := _MIDDLE.fullmatch(name):
            kind, index, inner = middle[1], int(middle[2]), middle[3]
            place = 2 * index + (kind == "attentions")
            names[f"middle_block.{place}.{_RESNET.get(inner, inner)}"] = name
        elif name in _OUTSIDE:
            names[_OUTSIDE[name]] = name
    return names


def _name_layer(layer: "re.Match[str]", stride: int, attentive: set[str]) -> str:
    way, block, kind, inner = layer[1], int(layer[2]), layer[3], layer[5]
    start = block * stride
    match kind:
        case "downsamplers":
            return f"input_blocks.{start + stride}.0.op"
        case "upsamplers":
            return f"output_blocks.{start + stride - 1}.{1 + (layer[2] in attentive)}.conv"
    side = "input_blocks" if way == "down_blocks" else "output_blocks"
    place = start + int(layer[4]) + (way == "down_blocks")
    return f"{side}.{place}.{int(kind == 'attentions')}.{_RESNET.get(inner, inner) if kind == 'resnets' else inner}"
