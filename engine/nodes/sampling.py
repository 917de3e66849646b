"""Sampling: the nodes that draw.

For: ComfyUI's KSampler and KSamplerAdvanced. Leaves how a run goes to `sampling` and the network to the device; here
the two are brought together, with progress, previews and the chance to stop after each step.
Invariant: an interrupted run asks the device for nothing more than the evaluation under way.
"""

from contextlib import suppress
from dataclasses import replace
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, TypeVar

from engine.conditioning import Conditioning
from engine.device import Device
from engine.latents import Latent
from engine.models import Handle, Models
from engine.nodes.asking import bring
from engine.nodes.spec import Context, Input, Node, Output, Preview
from engine.samplers import SAMPLERS, find_sampler
from engine.schedules import SCHEDULERS, Levels, cut_sigmas, space_sigmas

if TYPE_CHECKING:
    from torch import Tensor

    from engine.pipelines import Denoiser, Prediction
    from engine.sampling import Guidance, Sampling

_AHEAD = 16  # steps that the device may be ahead of what is told of them
_BEHIND = 4  # steps that wait to be told, beyond which one is told without a preview: a later one has it

Step = TypeVar("Step")


def draw(
    context: Context,
    model: Handle,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    denoise: float,
) -> tuple[object, ...]:
    """The denoised latents. Raises InterruptError within a step, ModelError, OutOfMemoryError, FloatingPointError."""
    from engine.sampling import Guidance

    sigmas = _space(context, model, sampler_name, scheduler, steps, denoise)
    guidance = Guidance(positive, negative, cfg)
    return (draw_along(context, model, sampler_name, sigmas, guidance, latent_image, seed),)


def draw_part(
    context: Context,
    model: Handle,
    add_noise: str,
    noise_seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    start_at_step: int,
    end_at_step: int,
    return_with_leftover_noise: str,
) -> tuple[object, ...]:
    """The latents after some of a run's steps. Raises what `draw` raises."""
    from engine.sampling import Guidance

    whole = _space(context, model, sampler_name, scheduler, steps)
    sigmas = cut_sigmas(whole, start_at_step, end_at_step, finish=return_with_leftover_noise != "enable")
    guidance = Guidance(positive, negative, cfg)
    adds_noise = add_noise != "disable"
    return (
        draw_along(context, model, sampler_name, sigmas, guidance, latent_image, noise_seed, adds_noise=adds_noise),
    )


def _space(context: Context, model: Handle, sampler: str, scheduler: str, steps: int, denoise: float = 1.0) -> Levels:
    denoiser = context.service(Models).denoiser(model)
    skip_last = find_sampler(sampler, flow=denoiser.prediction_type == "flow").skips_last_level
    return space_sigmas(denoiser.schedule, scheduler, steps, denoise, skip_last=skip_last)


def draw_along(
    context: Context,
    model: Handle,
    sampler: str,
    sigmas: Levels,
    guidance: "Guidance",
    latent: Latent,
    seed: int,
    *,
    adds_noise: bool = True,
) -> Latent:
    """The latent at the end of these noise levels. Raises what `draw` raises."""
    from engine.noise import seed_items
    from engine.sampling import Sampling

    denoiser = context.service(Models).denoiser(model)
    context.claim(latent.size * denoiser.channels // latent.samples.shape[1])
    run = Sampling(
        latent=_fit(latent, denoiser),
        generators=seed_items(seed, latent.indices),
        sampler=sampler,
        sigmas=sigmas,
        schedule=denoiser.schedule,
        prediction_type=denoiser.prediction_type,
        guidance=guidance,
        mask=latent.fit_mask(),
        adds_noise=adds_noise,
    )
    return replace(latent, samples=denoiser.scale.leave(_carry_out(context, model, denoiser, run)))


def _fit(latent: Latent, denoiser: "Denoiser") -> "Tensor":
    """The latents in the model's scale. Empty ones are empty there too, and fit any model, as in ComfyUI."""
    samples, channels = latent.samples, denoiser.channels
    if not bool(samples.any()):
        return samples[:, :1].expand(-1, channels, -1, -1)
    if samples.shape[1] != channels:
        raise ValueError(f"the latent has {samples.shape[1]} channels and the model needs {channels}")
    return denoiser.scale.enter(samples)


def _carry_out(context: Context, model: Handle, denoiser: "Denoiser", run: "Sampling") -> "Tensor":
    """Have the device follow the run; its steps are told here, so that it does not wait for a preview."""
    from engine.pipelines import predict_all
    from engine.previews import offer_preview
    from engine.sampling import is_finite

    projection = context.service(Models).projection(model) if context.previews else None
    steps: Queue[tuple[Prediction, Tensor] | None] = Queue(_AHEAD)

    def hear(asked: "Prediction", answer: "Tensor") -> None:
        if asked.evaluation.completes:
            _offer(steps, (asked, answer))

    future = context.service(Device).follow(predict_all(denoiser, run), hear)
    future.add_done_callback(lambda _: _offer(steps, None))
    with context.interruptible(future):
        while (step := steps.get()) is not None:
            evaluation, prediction = step[0].evaluation, step[1]
            preview = None
            if projection is not None and steps.qsize() <= _BEHIND:
                # The first of a batch, as in ComfyUI.
                latent, predicted = bring(context, [evaluation.latent[:1], prediction[:1]])
                expected = denoiser.scale.leave(replace(evaluation, latent=latent).estimate(predicted))[0]
                drawn = offer_preview(expected, projection)
                preview = None if drawn is None else Preview("jpeg", drawn)
            context.progress(evaluation.step, evaluation.steps, preview)
        [finished] = bring(context, [future.result()])
    if not is_finite(finished):
        raise FloatingPointError("what the model has predicted is not finite")
    return finished


def _offer(steps: "Queue[Step]", step: Step) -> None:
    """Put a step without waiting; where nobody keeps up, the oldest goes, since a later one tells more."""
    while True:
        try:
            return steps.put_nowait(step)
        except Full:
            with suppress(Empty):
                steps.get_nowait()


SEED = Input(
    "INT",
    {
        "default": 0,
        "min": 0,
        "max": 0xFFFFFFFFFFFFFFFF,
        "control_after_generate": True,
        "tooltip": "Where the noise comes from: the same seed gives the same picture.",
    },
)
STEPS = Input("INT", {"default": 20, "min": 1, "max": 10000, "tooltip": "How many steps to take."})
CFG = Input(
    "FLOAT",
    {
        "default": 8.0,
        "min": 0.0,
        "max": 100.0,
        "step": 0.1,
        "round": 0.01,
        "tooltip": "How closely to follow the prompt.",
    },
)
SAMPLER = Input(choices=tuple(SAMPLERS), options={"tooltip": "How to get from a step to the next."})
SCHEDULER = Input(choices=tuple(SCHEDULERS), options={"tooltip": "How much noise each step removes."})
DENOISE = Input(
    "FLOAT",
    {
        "default": 1.0,
        "min": 0.0,
        "max": 1.0,
        "step": 0.01,
        "tooltip": "How much noise to start with: below 1, the picture keeps what the latent shows.",
    },
)
_RUN = {
    "steps": STEPS,
    "cfg": CFG,
    "sampler_name": SAMPLER,
    "scheduler": SCHEDULER,
    "positive": Input("CONDITIONING", {"tooltip": "What to draw."}),
    "negative": Input("CONDITIONING", {"tooltip": "What to avoid."}),
    "latent_image": Input("LATENT", {"tooltip": "What to start from."}),
}
_MODEL = Input("MODEL", {"tooltip": "The model that predicts the noise."})

NODES = (
    Node(
        class_type="KSampler",
        function=draw,
        category="sampling",
        required={
            "model": _MODEL,
            "seed": SEED,
            **_RUN,
            "denoise": DENOISE,
        },
        outputs=(Output("LATENT", tooltip="The denoised latents."),),
        display_name="KSampler",
        description="Draws by removing noise from latents, guided by the conditionings.",
    ),
    Node(
        class_type="KSamplerAdvanced",
        function=draw_part,
        category="sampling",
        required={
            "model": _MODEL,
            "add_noise": Input(choices=("enable", "disable")),
            "noise_seed": SEED,
            **_RUN,
            "start_at_step": Input("INT", {"default": 0, "min": 0, "max": 10000}),
            "end_at_step": Input("INT", {"default": 10000, "min": 0, "max": 10000}),
            "return_with_leftover_noise": Input(choices=("disable", "enable")),
        },
        outputs=(Output("LATENT"),),
        display_name="KSampler (Advanced)",
        description="Takes some of the steps of a run, so that another node can take the others.",
    ),
)
