"""Measurement: how many held-out captions a model draws right.

For: scores to stop training by, and sheets of samples. Leaves what is right about a picture to `judge`.
Invariant: the same captions and seeds at each measurement.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from training.captions import write_plainly
from training.judge import Pixels, Verdict, judge_picture
from training.scenes import Scene, draw_scene

_COLUMNS = 10  # pictures in a row of a sheet
_AHEAD = 0.05  # of the picture's side, by which a place must be kept


@dataclass(frozen=True, slots=True)
class Score:
    """Shares of captions drawn right: all of it, and each part of it."""

    right: float
    background: float
    colours: float
    shapes: float
    places: float

    def as_shares(self) -> dict[str, float]:
        """The shares by name, for a log."""
        return asdict(self)


def list_held_out(amount: int, figures: int, seed: int = 0) -> list[Scene]:
    """Scenes of combinations that training never sees."""
    chance = random.Random(f"held out {seed} {figures}")
    return [draw_scene(chance, figures, held_out=True) for _ in range(amount)]


def write_captions(scenes: Sequence[Scene]) -> list[str]:
    """A caption for each scene."""
    return [write_plainly(scene) for scene in scenes]


def score_pictures(scenes: Sequence[Scene], pictures: Sequence[Pixels]) -> tuple[Score, list[bool]]:
    """The score, and which pictures are right."""
    rows = [_compare(scene, judge_picture(picture)) for scene, picture in zip(scenes, pictures, strict=True)]
    shares = np.array(rows, dtype=float).mean(axis=0).round(3).tolist()
    return Score(*shares), [row[0] for row in rows]


def save_sheet(path: Path, pictures: Sequence[Pixels], right: Sequence[bool]) -> None:
    """A sheet of pictures; a dark red bar is under each that is wrong."""
    tiles = []
    for picture, is_right in zip(pictures, right, strict=True):
        tile = np.full((picture.shape[0] + 8, picture.shape[1] + 4, 3), 255, dtype=np.uint8)
        tile[: picture.shape[0], : picture.shape[1]] = picture
        if not is_right:
            tile[-7:-3, : picture.shape[1]] = (160, 0, 0)
        tiles.append(tile)
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % _COLUMNS)
    rows = [np.hstack(tiles[start : start + _COLUMNS]) for start in range(0, len(tiles), _COLUMNS)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.vstack(rows)).save(path)


def _compare(scene: Scene, verdict: Verdict) -> tuple[bool, bool, bool, bool, bool]:
    background = verdict.background == scene.background
    wanted = sorted((figure.shape, figure.colour) for figure in scene.figures)
    found = sorted((finding.shape, finding.colour) for finding in verdict.findings)
    colours = sorted(colour for _, colour in wanted) == sorted(colour for _, colour in found)
    shapes = [shape for shape, _ in wanted] == [shape for shape, _ in found]
    return background and wanted == found, background, colours, shapes, wanted == found and _keep_places(scene, verdict)


def _keep_places(scene: Scene, verdict: Verdict) -> bool:
    """Whether each figure is on the side of the middle where it was wanted."""
    found = {(finding.shape, finding.colour): finding for finding in verdict.findings}
    for figure in scene.figures:
        finding = found[figure.shape, figure.colour]
        across, down = finding.x - 0.5, finding.y - 0.5
        kept = {
            "left": across < -_AHEAD,
            "right": across > _AHEAD,
            "top": down < -_AHEAD,
            "bottom": down > _AHEAD,
            "centre": abs(across) < 0.15 and abs(down) < 0.15,
        }
        if not kept[figure.place]:
            return False
    return True
