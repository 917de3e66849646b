"""Custom sampling: what KSampler does, taken apart into nodes.

For: ComfyUI's RandomNoise, DisableNoise, BasicGuider, CFGGuider, KSamplerSelect, BasicScheduler and
SamplerCustomAdvanced. Leaves drawing to `sampling`.
Invariant: the parts that KSampler would take draw what it draws.
"""

from dataclasses import dataclass

from engine.conditioning import Conditioning
from engine.latents import Latent
from engine.models import Handle, Models
from engine.nodes.sampling import CFG, DENOISE, SAMPLER, SCHEDULER, SEED, STEPS, draw_along
from engine.nodes.spec import Context, Input, Node, Output
from engine.schedules import Levels, space_sigmas


@dataclass(frozen=True, slots=True)
class Noise:
    """What a NOISE stands for: that of a seed, or none where the latent has it already."""

    seed: int
    added: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Guider:
    """What a GUIDER stands for: a model, and where to go."""

    model: Handle
    positive: Conditioning
    negative: Conditioning
    cfg: float


def make_noise(context: Context, noise_seed: int) -> tuple[object, ...]:
    """The noise of a seed."""
    return (Noise(noise_seed),)


def make_no_noise(context: Context) -> tuple[object, ...]:
    """No noise."""
    return (Noise(0, added=False),)


def guide(context: Context, model: Handle, conditioning: Conditioning) -> tuple[object, ...]:
    """Towards one conditioning, away from nothing."""
    return (Guider(model, conditioning, conditioning, 1.0),)


def guide_between(
    context: Context, model: Handle, positive: Conditioning, negative: Conditioning, cfg: float
) -> tuple[object, ...]:
    """Towards one conditioning and away from the other."""
    return (Guider(model, positive, negative, cfg),)


def select_sampler(context: Context, sampler_name: str) -> tuple[object, ...]:
    """The sampler, by its name."""
    return (sampler_name,)


def space(context: Context, model: Handle, scheduler: str, steps: int, denoise: float) -> tuple[object, ...]:
    """The noise levels of a run. Raises ModelError, OutOfMemoryError; ValueError for too long a run."""
    return (space_sigmas(context.service(Models).denoiser(model).schedule, scheduler, steps, denoise),)


def draw(
    context: Context, noise: Noise, guider: Guider, sampler: str, sigmas: Levels, latent_image: Latent
) -> tuple[object, ...]:
    """The denoised latents, twice: all noise levels that there are end in 0, where nothing more is to be expected.

    Raises what `sampling.draw` raises.
    """
    from engine.sampling import Guidance

    guidance = Guidance(guider.positive, guider.negative, guider.cfg)
    latent = draw_along(
        context, guider.model, sampler, sigmas, guidance, latent_image, noise.seed, adds_noise=noise.added
    )
    return latent, latent


NODES = (
    Node(
        class_type="RandomNoise",
        function=make_noise,
        category="sampling/custom_sampling/noise",
        required={"noise_seed": SEED},
        outputs=(Output("NOISE"),),
        description="Draws noise from a seed.",
    ),
    Node(
        class_type="DisableNoise",
        function=make_no_noise,
        category="sampling/custom_sampling/noise",
        required={},
        outputs=(Output("NOISE"),),
        description="Adds no noise.",
    ),
    Node(
        class_type="BasicGuider",
        function=guide,
        category="sampling/custom_sampling/guiders",
        required={"model": Input("MODEL"), "conditioning": Input("CONDITIONING")},
        outputs=(Output("GUIDER"),),
        description="Guides a model by one conditioning.",
    ),
    Node(
        class_type="CFGGuider",
        function=guide_between,
        category="sampling/custom_sampling/guiders",
        required={
            "model": Input("MODEL"),
            "positive": Input("CONDITIONING"),
            "negative": Input("CONDITIONING"),
            "cfg": CFG,
        },
        outputs=(Output("GUIDER"),),
        description="Guides a model towards one conditioning and away from another.",
    ),
    Node(
        class_type="KSamplerSelect",
        function=select_sampler,
        category="sampling/custom_sampling/samplers",
        required={"sampler_name": SAMPLER},
        outputs=(Output("SAMPLER"),),
        description="Says how to get from a step to the next.",
    ),
    Node(
        class_type="BasicScheduler",
        function=space,
        category="sampling/custom_sampling/schedulers",
        required={"model": Input("MODEL"), "scheduler": SCHEDULER, "steps": STEPS, "denoise": DENOISE},
        outputs=(Output("SIGMAS"),),
        description="Says how much noise each step removes.",
    ),
    Node(
        class_type="SamplerCustomAdvanced",
        function=draw,
        category="sampling/custom_sampling",
        required={
            "noise": Input("NOISE"),
            "guider": Input("GUIDER"),
            "sampler": Input("SAMPLER"),
            "sigmas": Input("SIGMAS"),
            "latent_image": Input("LATENT"),
        },
        outputs=(Output("LATENT", name="output"), Output("LATENT", name="denoised_output")),
        description="Draws by removing noise from latents, as its parts say.",
    ),
)
