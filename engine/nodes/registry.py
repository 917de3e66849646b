"""The nodes that this engine has, written out by hand.

For: the one list of node classes. Leaves each family to its module.
Invariant: importing this imports neither torch nor aiohttp.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from engine.nodes import (
    animations,
    conditioning,
    custom_sampling,
    filters,
    flow,
    images,
    inpainting,
    latent_files,
    latent_scaling,
    latents,
    loaders,
    masks,
    primitives,
    sampling,
    testing,
    text,
)
from engine.nodes.spec import Node


def list_nodes(*, tests: bool = False) -> Mapping[str, Node]:
    """Class type -> declaration; `tests` adds the nodes for tests and operators."""
    families = (
        loaders.NODES,
        conditioning.NODES,
        latents.NODES,
        latent_scaling.NODES,
        latent_files.NODES,
        inpainting.NODES,
        sampling.NODES,
        custom_sampling.NODES,
        flow.NODES,
        images.NODES,
        filters.NODES,
        masks.NODES,
        animations.NODES,
        primitives.NODES,
        text.NODES,
        testing.NODES if tests else (),
    )
    return MappingProxyType({node.class_type: node for family in families for node in family})
