"""Sampling: the node that draws.

For: ComfyUI's KSampler. Leaves how a run goes to `sampling` and the network to the device; here the two are brought
together, with progress, previews and the chance to stop after each step.
Invariant: an interrupted run asks the device for nothing more than the evaluation under way.
"""

from contextlib import suppress
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, TypeVar

from engine.device import Device
from engine.latents import Latent
from engine.models import Handle, Models
from engine.nodes.spec import Context, Input, Node, Output, Preview
from engine.samplers import SAMPLERS
from engine.schedules import SCHEDULERS, space_sigmas

if TYPE_CHECKING:
    from torch import Tensor

    from engine.pipelines import Denoiser, Prediction
    from engine.sampling import Sampling

_AHEAD = 16  # steps that the device may be ahead of what is told of them

Step = TypeVar("Step")


def draw(
    context: Context,
    model: Handle,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: "Tensor",
    negative: "Tensor",
    latent_image: Latent,
    denoise: float,
) -> tuple[object, ...]:
    """The denoised latents. Raises InterruptError within a step, ModelError, OutOfMemoryError, FloatingPointError."""
    from engine.noise import seed_items
    from engine.sampling import Guidance, Sampling

    denoiser = context.service(Models).denoiser(model)
    channels = latent_image.samples.shape[1]
    if channels != denoiser.channels:
        raise ValueError(f"the latent has {channels} channels and the model needs {denoiser.channels}")
    run = Sampling(
        latent=latent_image.samples * denoiser.scale,
        generators=seed_items(seed, latent_image.indices),
        sampler=sampler_name,
        sigmas=space_sigmas(denoiser.schedule, scheduler, steps, denoise),
        schedule=denoiser.schedule,
        prediction_type=denoiser.prediction_type,
        guidance=Guidance(positive, negative, cfg),
    )
    return (Latent(_carry_out(context, model, denoiser, run) / denoiser.scale, latent_image.indices),)


def _carry_out(context: Context, model: Handle, denoiser: "Denoiser", run: "Sampling") -> "Tensor":
    """Have the device follow the run; its steps are told here, so that it does not wait for a preview."""
    from engine.pipelines import predict_all
    from engine.previews import render_preview

    projection = context.service(Models).projection(model) if context.previews else None
    steps: Queue[tuple[Prediction, Tensor] | None] = Queue(_AHEAD)
    future = context.service(Device).follow(predict_all(denoiser, run), lambda *step: _offer(steps, step))
    future.add_done_callback(lambda _: _offer(steps, None))
    with context.interruptible(future):
        while (step := steps.get()) is not None:
            evaluation, prediction = step[0].evaluation, step[1]
            if not evaluation.completes:
                continue
            preview = None
            if projection is not None:
                expected = evaluation.estimate(prediction)[0] / denoiser.scale  # the first of a batch, as in ComfyUI
                preview = Preview("jpeg", render_preview(expected, projection))
            context.progress(evaluation.step, evaluation.steps, preview)
        return future.result()


def _offer(steps: "Queue[Step]", step: Step) -> None:
    """Put a step without waiting; where nobody keeps up, the oldest goes, since a later one tells more."""
    while True:
        try:
            return steps.put_nowait(step)
        except Full:
            with suppress(Empty):
                steps.get_nowait()


NODES = (
    Node(
        class_type="KSampler",
        function=draw,
        category="sampling",
        required={
            "model": Input("MODEL", {"tooltip": "The model that predicts the noise."}),
            "seed": Input(
                "INT",
                {
                    "default": 0,
                    "min": 0,
                    "max": 0xFFFFFFFFFFFFFFFF,
                    "control_after_generate": True,
                    "tooltip": "Where the noise comes from: the same seed gives the same picture.",
                },
            ),
            "steps": Input("INT", {"default": 20, "min": 1, "max": 10000, "tooltip": "How many steps to take."}),
            "cfg": Input(
                "FLOAT",
                {
                    "default": 8.0,
                    "min": 0.0,
                    "max": 100.0,
                    "step": 0.1,
                    "round": 0.01,
                    "tooltip": "How closely to follow the prompt.",
                },
            ),
            "sampler_name": Input(choices=tuple(SAMPLERS), options={"tooltip": "How to get from a step to the next."}),
            "scheduler": Input(choices=tuple(SCHEDULERS), options={"tooltip": "How much noise each step removes."}),
            "positive": Input("CONDITIONING", {"tooltip": "What to draw."}),
            "negative": Input("CONDITIONING", {"tooltip": "What to avoid."}),
            "latent_image": Input("LATENT", {"tooltip": "What to start from."}),
            "denoise": Input(
                "FLOAT",
                {
                    "default": 1.0,
                    "min": 0.0,
                    "max": 1.0,
                    "step": 0.01,
                    "tooltip": "How much noise to start with: below 1, the picture keeps what the latent shows.",
                },
            ),
        },
        outputs=(Output("LATENT", tooltip="The denoised latents."),),
        display_name="KSampler",
        description="Draws by removing noise from latents, guided by the conditionings.",
    ),
)
