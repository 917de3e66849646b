"""Conditionings: put together as ComfyUI does, and heeded cue by cue."""

from concurrent.futures import Future
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.conditioning import Conditioning, Cue
from engine.device import Device
from engine.models import Handle, Models
from engine.nodes import conditioning
from engine.pipelines import Prediction
from engine.sampling import Evaluation, Guidance
from tests.engine.contexts import RecordingContext

NODES = {node.class_type: node for node in conditioning.NODES}
WIDTH = 32


def make_cue(tokens: int, seed: int, pooled: int | None = None) -> Cue:
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(1, tokens, WIDTH, generator=generator)
    return Cue(embedding, None if pooled is None else torch.randn(1, pooled, generator=generator))


def call(class_type: str, *services: object, **inputs: object) -> Any:
    """The output of a node."""
    context: Any = RecordingContext(*services)
    result = NODES[class_type].function(context, **inputs)
    assert isinstance(result, tuple)
    (output,) = result
    return output


def ask(device: Device, models: Models, guidance: Guidance, latent: Tensor, time: int = 500) -> "Future[Tensor]":
    evaluation = Evaluation(latent, time, guidance, 1.6, "epsilon", 1, 1, True)
    return device.submit(Prediction(models.denoiser(Handle("tiny", "model")), evaluation))


@settings(max_examples=12, deadline=None)
@given(
    positive=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    negative=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    cfg=st.sampled_from([0.0, 1.0, 7.5]),
)
def test_what_is_predicted_for_cues_is_averaged(
    device: Device, models: Models, positive: list[int], negative: list[int], cfg: float
) -> None:
    latent = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    cues = [make_cue(11 * length, seed) for seed, length in enumerate(positive + negative)]
    sides = Conditioning(tuple(cues[: len(positive)])), Conditioning(tuple(cues[len(positive) :]))
    alone = [Conditioning((cue,)) for cue in cues]
    each = [ask(device, models, Guidance(cue, cue, 1.0), latent).result(60) for cue in alone]
    towards, away = (torch.stack(part).mean(0) for part in (each[: len(positive)], each[len(positive) :]))
    found = ask(device, models, Guidance(*sides, cfg), latent).result(60)
    assert torch.allclose(found, away + cfg * (towards - away), atol=2e-4)


def test_prompts_with_other_numbers_of_cues_share_passes(models: Models) -> None:
    denoiser = models.denoiser(Handle("tiny", "model"))
    latent = torch.zeros(1, 4, 8, 8)

    def describe(positive: int, cfg: float, pooled: int | None = None) -> tuple[object, int]:
        side = Conditioning(tuple(make_cue(77, seed, pooled) for seed in range(positive)))
        guidance = Guidance(side, Conditioning((make_cue(77, 9, pooled),)), cfg)
        work = Prediction(denoiser, Evaluation(latent, 500, guidance, 1.6, "epsilon", 1, 1, True))
        return work.key, work.rows

    assert describe(1, 7.0) == (describe(2, 7.0)[0], 2)
    assert describe(2, 7.0)[1] == 3
    assert describe(1, 1.0) == (describe(1, 7.0)[0], 1)
    assert describe(1, 7.0, pooled=8)[0] != describe(1, 7.0)[0]


def test_several_evaluations_with_several_cues_are_answered_as_alone(device: Device, models: Models) -> None:
    latents = [torch.randn(size, 4, 4, 4, generator=torch.Generator().manual_seed(size)) for size in (1, 2, 3)]
    sides = [Conditioning(tuple(make_cue(77, 10 * count + seed) for seed in range(count))) for count in (1, 2, 3)]
    guidances = [Guidance(sides[0], sides[2], 7.0), Guidance(sides[1], sides[0], 3.0), Guidance(sides[2], sides[1], 1)]
    alone = [
        ask(device, models, guidance, latent, time).result(60)
        for guidance, latent, time in zip(guidances, latents, (900, 500, 10), strict=True)
    ]
    denoiser = models.denoiser(Handle("tiny", "model"))
    works = [
        Prediction(denoiser, Evaluation(latent, time, guidance, 1.6, "epsilon", 1, 1, True))
        for guidance, latent, time in zip(guidances, latents, (900, 500, 10), strict=True)
    ]

    class Together:
        """All of them in one go, four rows at a time."""

        def perform(self, place: Any) -> list[Tensor]:
            return works[0].perform_all(place, works, 4)

    for expected, found in zip(alone, device.submit(Together()).result(60), strict=True):
        assert torch.allclose(expected, found, atol=1e-4)


def test_combining_keeps_the_cues_of_both() -> None:
    first, second = Conditioning((make_cue(77, 0), make_cue(77, 1))), Conditioning((make_cue(154, 2),))
    assert call("ConditioningCombine", conditioning_1=first, conditioning_2=second).cues == first.cues + second.cues


def test_concatenating_appends_the_first_cue_to_every_one() -> None:
    to = Conditioning((make_cue(77, 0, 8), make_cue(154, 1, 8)))
    of = Conditioning((make_cue(77, 2, 8), make_cue(77, 3, 8)))
    found = call("ConditioningConcat", conditioning_to=to, conditioning_from=of)
    assert [cue.embedding.shape[1] for cue in found.cues] == [154, 231]
    for cue, before in zip(found.cues, to.cues, strict=True):
        assert torch.equal(cue.embedding, torch.cat([before.embedding, of.cues[0].embedding], 1))
        assert cue.pooled is before.pooled


def test_conditionings_of_two_models_are_not_concatenated() -> None:
    with pytest.raises(ValueError, match="embeddings 32 and 8 wide do not go together"):
        call(
            "ConditioningConcat",
            conditioning_to=Conditioning((make_cue(77, 0),)),
            conditioning_from=Conditioning.of(torch.zeros(1, 77, 8)),
        )


def test_zeroing_out_leaves_the_shape() -> None:
    before = Conditioning((make_cue(77, 0, 8), make_cue(154, 1)))
    first, second = call("ConditioningZeroOut", conditioning=before).cues
    assert torch.equal(first.embedding, torch.zeros(1, 77, WIDTH))
    assert first.pooled is not None
    assert torch.equal(first.pooled, torch.zeros(1, 8))
    assert second.embedding.shape == (1, 154, WIDTH)
    assert second.pooled is None
    assert float(before.cues[0].embedding.abs().max()) > 0, "what was given is not changed"


def test_a_text_encoder_stops_where_it_is_told(device: Device, models: Models) -> None:
    def encode(clip: Handle) -> Tensor:
        (cue,) = call("CLIPTextEncode", device, models, text="a cat", clip=clip).cues
        embedding: Tensor = cue.embedding
        return embedding

    whole = Handle("tiny", "clip")
    last, early = (call("CLIPSetLastLayer", clip=whole, stop_at_clip_layer=layer) for layer in (-1, -2))
    assert torch.allclose(encode(last), encode(whole), atol=1e-6)
    assert not torch.allclose(encode(early), encode(whole), atol=1e-2)
    assert models.text_encoder(early).towers is models.text_encoder(whole).towers, "the weights are there once"


def test_limits_are_comfyuis() -> None:
    options = NODES["CLIPSetLastLayer"].required["stop_at_clip_layer"].options
    assert [options[key] for key in ("default", "min", "max")] == [-1, -24, -1]


def test_what_is_joined_with_itself_does_not_grow_without_end() -> None:
    many = Conditioning.of(torch.zeros(1, 77, 8))
    for _ in range(6):
        many = many.combine(many)
    with pytest.raises(ValueError, match="at most 64 parts"):
        many.combine(many)
    long = Conditioning.of(torch.zeros(1, 77, 8))
    for _ in range(5):
        long = long.append(long)
    with pytest.raises(ValueError, match="at most 2464 tokens"):
        long.append(long)
