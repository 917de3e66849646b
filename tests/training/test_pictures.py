"""The pictures of the training set, their captions, and the judge, which has to agree with what was drawn."""

import random

import numpy as np
import pytest

from training.captions import list_words, write_caption, write_nothing, write_plainly
from training.drawing import draw_exercise, draw_picture
from training.judge import judge_picture
from training.measurement import list_held_out, score_pictures
from training.scenes import COLOURS, SHAPES, SIDE, Figure, Scene, draw_scene, is_held_out


def test_training_never_sees_what_is_held_out() -> None:
    chance = random.Random(1)
    seen = {_combine(draw_scene(chance)) for _ in range(3000)}
    held_out = list_held_out(100, 1) + list_held_out(100, 2)
    assert all(is_held_out(scene) for scene in held_out)
    assert not seen & {_combine(scene) for scene in held_out}


def test_every_word_is_seen_in_training_in_its_own() -> None:
    chance = random.Random(2)
    scenes = [draw_scene(chance) for _ in range(2000)]
    assert {figure.shape for scene in scenes for figure in scene.figures} == set(SHAPES)
    assert {figure.colour for scene in scenes for figure in scene.figures} == set(COLOURS)
    assert {scene.background for scene in scenes} == set(COLOURS)
    assert all(figure.colour != scene.background for scene in scenes for figure in scene.figures)


def test_captions_hold_known_words_only() -> None:
    chance = random.Random(3)
    words = set(list_words())
    for _ in range(3000):
        scene = draw_scene(chance)
        for caption in (write_caption(chance, scene), write_plainly(scene)):
            assert set(caption.replace(",", " ").replace(".", " ").split()) <= words, caption


@pytest.mark.parametrize(
    ("scene", "caption"),
    [
        (Scene((Figure("star", "orange", "small", "left", 34, 64, 15),), "yellow"), "left"),
        (Scene((Figure("star", "orange", "medium", "centre", 64, 64, 30),), "white"), ""),
    ],
)
def test_plain_captions(scene: Scene, caption: str) -> None:
    told = "a small orange star on a yellow background, on the left"
    assert write_plainly(scene) == (told if caption else "an orange star on a white background")


def test_plain_captions_of_pairs_tell_places_that_are_not_usual() -> None:
    circle = Figure("circle", "red", "medium", "top", 64, 32, 20)
    square = Figure("square", "blue", "large", "bottom", 64, 96, 27)
    told = "a red circle at the top and a large blue square at the bottom on a gray background"
    assert write_plainly(Scene((circle, square), "gray")) == told
    circle = Figure("circle", "red", "medium", "left", 32, 64, 20)
    square = Figure("square", "blue", "large", "right", 96, 64, 27)
    told = "a red circle and a large blue square on a gray background"
    assert write_plainly(Scene((circle, square), "gray")) == told


def test_dropped_captions_are_mostly_empty() -> None:
    chance = random.Random(4)
    dropped = [write_nothing(chance) for _ in range(500)]
    assert 0.5 < dropped.count("") / 500 < 0.7


def test_pictures_have_the_colours_that_are_asked_for() -> None:
    picture = draw_picture(Scene((Figure("square", "cyan", "large", "centre", 64, 64, 40),), "brown"))
    assert picture.shape == (SIDE, SIDE, 3)
    assert tuple(picture[64, 64]) == COLOURS["cyan"]
    assert tuple(picture[2, 2]) == COLOURS["brown"]


def test_exercises_differ() -> None:
    chance = random.Random(5)
    assert not np.array_equal(draw_exercise(chance), draw_exercise(chance))


def test_the_judge_agrees_with_what_was_drawn() -> None:
    scenes = list_held_out(100, 1) + list_held_out(100, 2)
    score, _ = score_pictures(scenes, [draw_picture(scene) for scene in scenes])
    assert score.right >= 0.99
    assert score.places >= 0.99


def test_the_judge_tells_wrong_pictures() -> None:
    scenes = list_held_out(50, 1)
    score, right = score_pictures(scenes, [draw_picture(scene) for scene in reversed(scenes)])
    assert score.right < 0.1
    assert sum(right) == round(score.right * 50)


def test_the_judge_knows_no_shape_in_blots() -> None:
    blot = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)
    blot[20:40, 20:100] = 0
    blot[40:110, 30:50] = 0
    assert [finding.shape for finding in judge_picture(blot).findings] == ["unknown"]


def _combine(scene: Scene) -> tuple[frozenset[tuple[str, str]], str]:
    return frozenset((figure.shape, figure.colour) for figure in scene.figures), scene.background
