"""Loaders: nodes that bring models into a workflow.

For: ComfyUI's CheckpointLoaderSimple. Leaves reading and keeping models to `models`.
Invariant: what these nodes give are handles, so that a cached output holds no weights.
"""

from collections.abc import Sequence

from engine.models import Models, list_checkpoints
from engine.nodes.spec import Context, Folders, Input, Node, Output


def _list_choices(folders: Folders) -> Sequence[str]:
    return list_checkpoints(folders.models / "checkpoints")


def load_checkpoint(context: Context, ckpt_name: str) -> tuple[object, ...]:
    """MODEL, CLIP and VAE of the checkpoint, in memory. Raises ModelError, OutOfMemoryError."""
    return context.service(Models).load(ckpt_name)


NODES = (
    Node(
        class_type="CheckpointLoaderSimple",
        function=load_checkpoint,
        category="loaders",
        required={"ckpt_name": Input(choices=_list_choices, options={"tooltip": "The model to draw with."})},
        outputs=(
            Output("MODEL", tooltip="Predicts noise in latents."),
            Output("CLIP", tooltip="Encodes texts."),
            Output("VAE", tooltip="Turns pictures into latents and back."),
        ),
        display_name="Load Checkpoint",
        description="Loads a diffusion model with its text encoder and its autoencoder.",
    ),
)
