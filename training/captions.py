"""Captions: the words for a scene.

For: saying the same in many ways, and nothing at all now and then. Leaves how words become numbers to `vocabulary`.
Invariant: pure; a caption never says what the picture does not show; what it leaves out has the one meaning that
`scenes` gives to what is unsaid, a white background among it.
"""

import random
from collections.abc import Mapping, Sequence

from training.scenes import COLOURS, SHAPES, Figure, Scene

_NOUNS: Mapping[str, Sequence[str]] = {
    "circle": ("circle", "circle", "circle", "disc", "disk"),
    "cross": ("cross", "cross", "cross", "plus"),
    "ring": ("ring", "ring", "ring", "donut"),
}
_HUES: Mapping[str, Sequence[str]] = {
    "gray": ("gray", "grey"),
    "purple": ("purple", "purple", "violet"),
}
_SIZES: Mapping[str, Sequence[str]] = {
    "small": ("small", "small", "little", "tiny"),
    "large": ("large", "large", "big", "huge"),
}
_GROUNDS = ("background", "background", "background", "background", "ground", "canvas", "surface")
_OPENINGS = (
    "a picture of ",
    "an image of ",
    "a drawing of ",
    "a painting of ",
    "draw ",
    "a photo of ",
    "an icon of ",
    "there is ",
)
_FILLERS = ("masterpiece", "best quality", "highly detailed", "simple", "clean", "minimal", "flat design", "sharp")
_PLACES: Mapping[str, Sequence[str]] = {
    "left": ("on the left", "on the left", "at the left", "to the left", "on the left side"),
    "right": ("on the right", "on the right", "at the right", "to the right", "on the right side"),
    "top": ("at the top", "at the top", "on top", "on the top", "in the upper half"),
    "bottom": ("at the bottom", "at the bottom", "on the bottom", "in the lower half"),
    "centre": ("in the centre", "in the center", "in the middle", "at the center"),
}
_RELATIONS: Mapping[str, Sequence[str]] = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "top": ("above", "over", "on top of"),
    "bottom": ("below", "under", "beneath"),
}
_SINGLES = (
    "{figure} on {ground}, {where}",
    "{figure} {where} on {ground}",
    "{figure} {where}, {ground}",
    "{figure} on {ground} {where}",
    "{figure}, {ground}, {where}",
    "{ground} with {figure} {where}",
)
_UNWANTED = ("text", "watermark", "blurry", "ugly", "bad quality", "low quality", "deformed", "noise", "signature")

_PLAIN = ("a", "an", "and", "next", "with")  # words that stand in the patterns below


def list_words() -> list[str]:
    """Every word that a caption may hold, sorted."""
    tables = [*_NOUNS.values(), *_HUES.values(), *_SIZES.values(), *_PLACES.values(), *_RELATIONS.values()]
    phrases = [*COLOURS, *SHAPES, *_GROUNDS, *_OPENINGS, *_FILLERS, *_UNWANTED, *_PLAIN, "plain", "to", "of"]
    phrases += [phrase for table in tables for phrase in table]
    return sorted({word for phrase in phrases for word in phrase.split()})


def write_caption(chance: random.Random, scene: Scene) -> str:
    """A caption of the scene in words picked at random."""
    ground = _name_ground(chance, scene.background)
    figures = [_name_figure(chance, figure) for figure in scene.figures]
    if len(figures) == 1:
        text = _tell_single(chance, figures[0], scene.figures[0].place, ground)
    else:
        text = _tell_pair(chance, figures, scene, ground)
    if chance.random() < 0.15 and not text.startswith(ground):
        text = chance.choice(_OPENINGS) + text
    if chance.random() < 0.08:
        text += ", " + ", ".join(chance.sample(_FILLERS, chance.randint(1, 2)))
    if chance.random() < 0.1:
        text += "."
    return text


def write_nothing(chance: random.Random) -> str:
    """A caption that says nothing of the scene: mostly empty, or what negative prompts hold, or letters."""
    luck = chance.random()
    if luck < 0.6:
        return ""
    if luck < 0.85:
        return ", ".join(chance.sample(_UNWANTED, chance.randint(1, 4)))
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join("".join(chance.choices(letters, k=chance.randint(2, 7))) for _ in range(chance.randint(1, 3)))


def write_plainly(scene: Scene) -> str:
    """The caption that a person would write first: what the model is measured with."""
    parts = []
    told = any(figure.place != place for figure, place in zip(scene.figures, ("left", "right"), strict=False))
    for figure in scene.figures:
        size = "" if figure.size == "medium" else figure.size
        place = figure.place if (told if len(scene.figures) == 2 else figure.place != "centre") else ""
        parts.append(" ".join(filter(None, (_article(f"{size} {figure.colour}".strip()), size, figure.colour))))
        parts[-1] += f" {figure.shape}" + (f" {_PLACES[place][0]}" if place and len(scene.figures) == 2 else "")
    ground = f"{_article(scene.background)} {scene.background} background"
    text = f"{' and '.join(parts)} on {ground}"
    if len(scene.figures) == 1 and scene.figures[0].place != "centre":
        text += f", {_PLACES[scene.figures[0].place][0]}"
    return text


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _name_ground(chance: random.Random, colour: str) -> str:
    """A background with its article; empty now and then where it is white, which is what is meant without a word."""
    if colour == "white" and chance.random() < 0.3:
        return ""
    word = chance.choice(_HUES.get(colour, (colour,)))
    words = f"plain {word}" if chance.random() < 0.1 else word
    return f"{_article(words)} {words} {chance.choice(_GROUNDS)}"


def _name_figure(chance: random.Random, figure: Figure) -> str:
    words = [chance.choice(_HUES.get(figure.colour, (figure.colour,)))]
    words.append(chance.choice(_NOUNS.get(figure.shape, (figure.shape,))))
    if figure.size != "medium":
        words.insert(0, chance.choice(_SIZES[figure.size]))
    return " ".join([_article(words[0]), *words])


def _tell_single(chance: random.Random, figure: str, place: str, ground: str) -> str:
    told = place != "centre" or chance.random() < 0.2
    where = chance.choice(_PLACES[place]) if told else ""
    if not ground:
        return f"{figure} {where}".strip()
    pattern = chance.choice(_SINGLES)
    return _tidy(pattern.format(figure=figure, ground=ground, where=where))


def _tell_pair(chance: random.Random, figures: Sequence[str], scene: Scene, ground: str) -> str:
    first, second = scene.figures[0].place, scene.figures[1].place
    places = [chance.choice(_PLACES[place]) for place in (first, second)]
    patterns = ["{a} {p} and {b} {q}", "{a} {p}, {b} {q}", "{a} {r} {b}", "{b} {s} {a}"]
    if (first, second) == ("left", "right"):
        patterns += ["{a} and {b}"] * 8 + ["{a} next to {b}", "{a}, {b}", "{a} with {b}"]
    r, s = chance.choice(_RELATIONS[first]), chance.choice(_RELATIONS[second])
    text = chance.choice(patterns).format(a=figures[0], b=figures[1], p=places[0], q=places[1], r=r, s=s)
    if not ground:
        return text
    return _tidy(
        chance.choice(("{t} on {g}", "{t} on {g}", "{t} on {g}", "{t}, {g}", "{g} with {t}")).format(t=text, g=ground)
    )


def _tidy(text: str) -> str:
    return " ".join(text.split()).replace(" ,", ",").rstrip(", ")
